"""Bad input on the command line: one line that says what, where and what to do; exit codes; no traceback."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fixtures.small_run import SmallRun
from fixtures.students import StudentFolders

from edgeelad.quickstart.server import TeacherServer


def _edgeelad(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgeelad", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


def _refused(code: int, *arguments: object, **environment: str) -> str:
    """Run it, check that it is refused in one line, and give that line."""
    done = _edgeelad(*arguments, **environment)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert lines[-1].startswith("edgeelad: "), done.stderr
    return lines[-1]


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    path = tmp_path / "pool.jsonl"
    rows = [{"id": str(i), "question": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(20)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b'{"question": "a?"}\nnot json\n', ":2"),
        (b'{"question": ""}\n', ":1"),
        (b'{"text": "a?"}\n', "question"),
        (b'{"id": "1", "question": "a?"}\n{"id": "1", "question": "b?"}\n', ":2"),
        (b'{"question": 5}\n', ":1"),
        (b'{"question": "\xff"}\n', "UTF-8"),
        (b'{"question": "' + b"x" * (10 << 20) + b'"}\n', ":1"),
    ],
)
def test_bad_pools(tmp_path: Path, students: StudentFolders, content: bytes, said: str) -> None:
    path = tmp_path / "pool.jsonl"
    path.write_bytes(content)
    line = _refused(
        1, "score", "--model", students.onnx(), "--pool", path, "--out", tmp_path / "scores.jsonl", "--quiet"
    )
    assert str(path) in line
    assert said in line
    assert not (tmp_path / "scores.jsonl").exists()


def test_models_that_cannot_be_used(tmp_path: Path, pool: Path, students: StudentFolders) -> None:
    scores = ("--pool", pool, "--out", tmp_path / "scores.jsonl", "--quiet")
    assert "no such folder" in _refused(1, "score", "--model", tmp_path / "none", *scores)
    torn = shutil.copytree(students.onnx(), tmp_path / "torn")
    graph = torn / "engine_lanes.graph"
    graph.write_bytes(graph.read_bytes()[:1000])
    assert "engine_lanes.graph: damaged, or no ONNX graph" in _refused(1, "score", "--model", torn, *scores)
    weights = torn / "model.onnx_data"
    weights.write_bytes(weights.read_bytes()[:-1000])
    shutil.copyfile(students.onnx() / "engine_lanes.graph", graph)
    assert "cannot load it" in _refused(1, "score", "--model", torn, *scores)
    out = tmp_path / "run"
    given = ("distill", "--pool", pool, "--teacher", "dataset", "--out", out, "--quiet")
    assert "none" in _refused(1, *given, "--student", tmp_path / "none")
    assert not (out / "rounds").exists()


def test_configurations_and_flags_that_are_wrong(tmp_path: Path, pool: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("[training]\nepoch = 2\n", encoding="utf-8")
    assert "did you mean epochs?" in _refused(2, "distill", path)
    assert "training.epochs" in _refused(2, "distill", "--pool", pool, "--student", "x", "--set", "training.epochs=-1")
    assert "selection.strategy" in _refused(
        2, "distill", "--pool", pool, "--student", "x", "--set", "selection.strategy=eald"
    )
    assert "--resume" in _refused(2, "distill", tmp_path)
    assert "nothing to resume" in _refused(1, "distill", tmp_path, "--resume")
    assert "student.model is not set" in _refused(2, "distill", "--pool", pool, "--out", tmp_path / "r")
    assert "unknown" in _refused(
        2, "score", "--model", "m", "--pool", pool, "--out", tmp_path / "s", "--strategy", "eald"
    )
    assert _edgeelad("distill", "--no-such-flag").returncode == 2


def test_output_folders_that_cannot_be_written(tmp_path: Path, pool: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    given = ("distill", "--pool", pool, "--student", "x", "--teacher", "dataset", "--quiet", "--out")
    assert "file" in _refused(1, *given, tmp_path / "file")
    assert "file" in _refused(1, *given, tmp_path / "file" / "deeper")


def test_teachers_that_cannot_be_reached_or_refuse(small_run: SmallRun, tmp_path: Path) -> None:
    unreachable = small_run.write_config(tmp_path / "a", "http://127.0.0.1:9/v1", "teacher.max_retry_s=0.2")
    assert "127.0.0.1:9" in _refused(1, "distill", unreachable, "--quiet")
    with TeacherServer(api_key="right") as server:
        keyed = small_run.write_config(tmp_path / "b", server.url, "teacher.api_key_env=TEST_TEACHER_KEY")
        line = _refused(1, "distill", keyed, "--quiet", TEST_TEACHER_KEY="wrong-and-secret")
        assert "api_key_env" in line
        assert "wrong-and-secret" not in line
        assert "TEST_TEACHER_KEY" in _refused(2, "distill", keyed, "--quiet")
        # nothing was made: with the right key the same command runs
        assert not (tmp_path / "b").exists()
        settings = ("--quiet", "--json", "--set", "selection.num_rounds=1")
        done = _edgeelad("distill", keyed, *settings, TEST_TEACHER_KEY="right")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rounds"] == 1
    for path in (tmp_path / "b").rglob("*"):
        assert not path.is_file() or b"wrong-and-secret" not in path.read_bytes()


def test_questions_that_do_not_fit_are_set_aside_and_counted(
    small_run: SmallRun, students: StudentFolders, tmp_path: Path, pool: Path
) -> None:
    with pool.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"id": "long", "question": "Why? " * 400, "answer": "1"}) + "\n")
    scores = tmp_path / "scores.jsonl"
    done = _edgeelad(
        "score", "--model", students.trained_onnx(), "--pool", pool, "--out", scores, "--json", "--max-tokens", 16
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["questions"], summary["set_aside"]) == (20, 1)
    assert json.loads((tmp_path / "scores.jsonl.set_aside.jsonl").read_text(encoding="utf-8"))["id"] == "long"
