"""What all tests share: no network but loopback, small models on one thread, tiny students made once a session."""

import importlib.util
import os
import re
import signal
from pathlib import Path

# set before anything imports the libraries that read them
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for models this small, threads cost more than they give
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

# a shell's background jobs ignore Ctrl-C, and so would all that the tests start
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import hypothesis
import pytest
import pytest_socket
from fixtures.small_run import SmallRun, make_small_run
from fixtures.students import StudentFolders
from fixtures.t5 import T5Folders

# a test asserts no time, and machines may be slow; the same commit draws the same examples each time, and new ones with
# --hypothesis-profile=explore
hypothesis.settings.register_profile("edgeelad", deadline=None, derandomize=True)
hypothesis.settings.register_profile("explore", deadline=None)
hypothesis.settings.load_profile("edgeelad")

# without the distill extra, as on servers and devices, tests that need it are left out
HEAVY = re.compile(
    r"^\s*(?:from|import) (?:torch|transformers|optimum|onnx|peft|sklearn|requests|safetensors|pyarrow)\b"
    r"|edgeelad\.(?:training|export|quickstart\.student|selection|stages|loop|launch|teacher\.client)\b",
    re.MULTILINE,
)
HERE = Path(__file__).parent
if importlib.util.find_spec("torch") is None:
    collect_ignore = [
        str(path.relative_to(HERE))
        for path in HERE.rglob("test_*.py")
        if path.name.startswith("test_benchmark") or HEAVY.search(path.read_text(encoding="utf-8"))
    ]

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
    pytest.importorskip("torch", reason="needs the distill extra")
    return StudentFolders(tmp_path_factory.mktemp("students"))


@pytest.fixture(scope="session")
def t5(tmp_path_factory: pytest.TempPathFactory) -> T5Folders:
    """Tiny T5 students, made and exported when first requested."""
    pytest.importorskip("torch", reason="needs the distill extra")
    return T5Folders(tmp_path_factory.mktemp("t5"))


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    """A pool, a test set and a student trained for some seconds, for whole runs in small."""
    pytest.importorskip("torch", reason="needs the distill extra")
    return make_small_run(tmp_path_factory.mktemp("small-run"))
