"""`edgeelad score` on a Ray cluster: the bytes of one machine, whatever dies."""

import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fixtures.poisoned import open_poisoned
from fixtures.small_run import SmallRun
from fixtures.students import StudentFolders, make_sum
from integration.test_score import arguments, stop_after

from edgeelad.config import PoolConfig
from edgeelad.engine import workers
from edgeelad.engine.options import EngineOptions
from edgeelad.engine.ray_actors import cluster_options
from edgeelad.errors import RunError, UsageError
from edgeelad.files import read_jsonl, write_jsonl
from edgeelad.loop import distill
from edgeelad.progress import Silent
from edgeelad.quickstart.server import TeacherServer
from edgeelad.quickstart.solver import solve
from edgeelad.records import ReasoningTree
from edgeelad.scoring.files import aside_path, meta_path
from edgeelad.scoring.score import score_pool

ray = pytest.importorskip("ray", reason="needs edgeelad[ray]")
# nodes of a cluster listen at the machine's own address
pytestmark = [pytest.mark.ray, pytest.mark.allow_hosts(["127.0.0.1", ray.util.get_node_ip_address()])]

NUM = 199
SETTINGS: dict[str, Any] = {"strategy": "elad", "max_tokens": 16, "branches": 2, "explanations": 2}
# one kill each; twenty by: EDGEELAD_KILLS=20 pytest -m ray tests/integration/test_ray.py -k whatever_is_killed
NUM_SEEDS = int(os.environ.get("EDGEELAD_KILLS", "3"))
START_OPENER = workers.student_opener


class Meanwhile(Silent):
    """Calls functions once so many questions are done."""

    def __init__(self, **calls: Callable[[], object]) -> None:
        self.calls = {int(name.removeprefix("at_")): call for name, call in calls.items()}
        self.warnings: list[str] = []

    def update(self, done: int, note: str = "") -> None:
        for place in [place for place in self.calls if place <= done]:
            self.calls.pop(place)()

    def warn(self, message: str) -> None:
        self.warnings.append(message)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> PoolConfig:
    path = tmp_path_factory.mktemp("pool") / "pool.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number in range(NUM):
            question, _, answer = make_sum(number % 10, number // 10 % 10)
            file.write(json.dumps({"id": f"q{number}", "question": question.text, "answer": answer}) + "\n")
    return PoolConfig(path=str(path))


@pytest.fixture(scope="module")
def model(students: StudentFolders) -> Path:
    return students.trained_onnx()


@pytest.fixture(scope="module")
def whole(model: Path, pool: PoolConfig, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The scores that one process writes."""
    out = tmp_path_factory.mktemp("whole") / "scores.jsonl"
    score_pool(model, pool, out, Silent(), options=EngineOptions(1), **SETTINGS)
    return out.read_bytes()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster of two nodes with one core each, both on this machine."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # where actors find the functions of these tests
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        cluster.add_node(num_cpus=1)
        yield cluster
        ray.shutdown()
        cluster.shutdown()


def actor_pids() -> list[int]:
    """Processes of actors that score."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(b"ray::_Scorer"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def test_two_nodes_write_what_one_process_writes(
    cluster: Any, model: Path, pool: PoolConfig, whole: bytes, tmp_path: Path
) -> None:
    options = cluster_options(cluster.address)
    assert options.num_workers == 2
    summary = score_pool(model, pool, tmp_path / "scores.jsonl", Silent(), options=options, **SETTINGS)
    assert (tmp_path / "scores.jsonl").read_bytes() == whole
    assert (summary["workers"], summary["replaced_workers"]) == (2, 0)
    with pytest.raises(
        UsageError, match="too many workers: 3 with 1 thread each, but the Ray cluster's nodes have 1, 1"
    ):
        cluster_options(cluster.address, 3)


def test_actors_are_killed_and_a_node_leaves(
    cluster: Any, model: Path, pool: PoolConfig, whole: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leaving = cluster.add_node(num_cpus=1)
    rng = random.Random(3)

    def kill() -> None:
        os.kill(rng.choice(sorted(actor_pids())), signal.SIGKILL)

    meanwhile = Meanwhile(at_17=kill, at_60=lambda: cluster.remove_node(leaving), at_100=kill)
    out = tmp_path / "scores.jsonl"
    summary = score_pool(model, pool, out, meanwhile, options=cluster_options(cluster.address), **SETTINGS)
    assert out.read_bytes() == whole
    assert summary["replaced_workers"] >= 2
    assert len(meanwhile.warnings) == summary["replaced_workers"]
    assert not aside_path(out).exists()
    assert capsys.readouterr().out == ""  # Ray's raylet tells of deaths on standard output


@pytest.mark.parametrize("seed", range(NUM_SEEDS))
def test_nothing_is_lost_whatever_is_killed_whenever(
    cluster: Any, model: Path, pool: PoolConfig, whole: bytes, tmp_path: Path, seed: int
) -> None:
    rng, out = random.Random(seed), tmp_path / "scores.jsonl"
    meanwhile = Meanwhile()
    victim = ("actor", "node", "driver")[seed % 3]
    if victim == "actor":
        meanwhile.calls[rng.randrange(NUM)] = lambda: os.kill(rng.choice(sorted(actor_pids())), signal.SIGKILL)
    elif victim == "node":
        leaving = cluster.add_node(num_cpus=1)
        meanwhile.calls[rng.randrange(NUM)] = lambda: cluster.remove_node(leaving)
    else:
        assert pool.path is not None
        given = [*arguments(model, Path(pool.path), out), "--engine", "ray", "--address", cluster.address, "--quiet"]
        killed = stop_after(rng.randrange(1, len(whole)), "kill", given, tmp_path)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert out.stat().st_size < len(whole)
    summary = score_pool(model, pool, out, meanwhile, options=cluster_options(cluster.address), **SETTINGS)
    assert out.read_bytes() == whole
    assert not meanwhile.calls
    assert sorted(tmp_path.glob("scores*")) == [out, meta_path(out)]
    assert summary["new_questions"] + summary["resumed_from"] == NUM


def test_a_question_that_kills_is_set_aside(
    cluster: Any, model: Path, pool: PoolConfig, whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_work_on_node", work_poisoned)
    out = tmp_path / "scores.jsonl"
    score_pool(model, pool, out, Silent(), options=cluster_options(cluster.address), **SETTINGS)
    rows = whole.splitlines(keepends=True)
    assert out.read_bytes() == b"".join(rows[:70] + rows[71:])
    (aside,) = map(json.loads, aside_path(out).read_text(encoding="utf-8").splitlines())
    assert aside["id"] == "q70"
    assert re.search(r"3 worker processes died of it \(its Ray actor ended", aside["reason"])


def work_poisoned(folder: Path, **given: Any) -> Any:
    opener = partial(open_poisoned, START_OPENER(folder, given["options"]), frozenset({"q70"}), True)
    return workers._tree_work(opener, given["params"], given["then"])


def test_a_killed_driver_resumes(model: Path, pool: PoolConfig, whole: bytes, tmp_path: Path) -> None:
    out = tmp_path / "scores.jsonl"
    command = [
        *(sys.executable, "-m", "edgeelad", "score", "--model", str(model), "--pool", str(pool.path)),
        *("--out", str(out), "--engine", "ray", "--workers", "1", "--json", "--quiet"),
        *("--max-tokens", "16", "--branches", "2", "--explanations", "2", "--strategy", "elad"),
    ]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while process.poll() is None and not (out.exists() and out.stat().st_size > len(whole) // 4):
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert 0 < out.stat().st_size < len(whole)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert json.loads(done.stdout)["resumed_from"] > 0
    assert out.read_bytes() == whole


def said_again(tree: ReasoningTree, *_: object) -> list[tuple[str, ...]]:
    """All that was sampled."""
    return [(branch.text,) for group in tree.branches for branch in group]


def test_a_run_scores_and_samples_on_the_cluster(
    cluster: Any, small_run: SmallRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # scored, sampled for the teacher, and put in other words, whatever these are: the student is of some seconds
    monkeypatch.setattr("edgeelad.teacher.plan.own_examples.wordings", said_again)
    pool = [
        {**row, "answer": str(solve(row["question"]).answer)} for row in read_jsonl(small_run.folder / "pool.jsonl")
    ]
    write_jsonl(tmp_path / "pool.jsonl", pool)
    settings = (f"pool.path={tmp_path / 'pool.jsonl'}", "selection.strategy=risk", "selection.num_rounds=1")
    on_cluster = ("scoring.engine=ray", f"scoring.ray_address={cluster.address}", "scoring.num_workers=2")
    with TeacherServer() as server:
        for name, places in (("here", ()), ("there", on_cluster)):
            distill(small_run.config(tmp_path / name, server.url, *settings, *places), Silent())
    for name in ("scores", "annotations", "reworded"):
        here, there = ((tmp_path / run / "rounds" / "01" / f"{name}.jsonl").read_bytes() for run in ("here", "there"))
        assert here == there != b"", name


def test_no_cluster_there() -> None:
    code = "from edgeelad.engine.ray_actors import cluster_options; cluster_options('127.0.0.1:9')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"{RunError.__name__}: no Ray cluster at 127.0.0.1:9: [Errno 111] Connection refused; check" in done.stderr
