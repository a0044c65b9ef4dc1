"""What all tests share: no network but loopback, small models on one thread, tiny students made once a session."""

import os
from pathlib import Path

# set before anything imports the libraries that read them
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for models this small, threads cost more than they give
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest
import pytest_socket
from fixtures.small_run import SmallRun, make_small_run
from fixtures.students import StudentFolders

LOOPBACK = ["127.0.0.1", "::1", "localhost"]
SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


def pytest_runtest_setup() -> None:
    pytest_socket.socket_allow_hosts(LOOPBACK, allow_unix_socket=True)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public data files beside the checkout."""
    if not SHARED_DATA.is_dir():
        pytest.skip("needs the public data files in ../shared/data")
    return SHARED_DATA


@pytest.fixture(scope="session")
def students(tmp_path_factory: pytest.TempPathFactory) -> StudentFolders:
    """Tiny students of the supported architectures, made and exported when first asked for."""
    return StudentFolders(tmp_path_factory.mktemp("students"))


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    """A pool, a test set and a student trained for some seconds, for whole runs in small."""
    return make_small_run(tmp_path_factory.mktemp("small-run"))
