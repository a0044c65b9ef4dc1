"""The loop goes on past questions that kill the process that works on them, and says so."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fixtures.poisoned import open_poisoned
from fixtures.small_run import NUM_POOL, SmallRun
from fixtures.students import MAX_CONTEXT, StudentFolders

from edgeelad.config import RunConfig
from edgeelad.engine import workers
from edgeelad.files import read_jsonl
from edgeelad.loop import distill
from edgeelad.progress import Silent
from edgeelad.quickstart.server import TeacherServer
from edgeelad.records import Question
from edgeelad.stages.evaluate import explain

POISON = "pool-040"


def test_a_question_that_kills_is_not_asked(
    small_run: SmallRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opener = workers.student_opener
    monkeypatch.setattr(
        workers, "student_opener", lambda *given: partial(open_poisoned, opener(*given), frozenset({POISON}))
    )
    faults = ("selection.num_rounds=1", "scoring.num_workers=2", "scoring.batch_size=16", "stopping.audit_size=0")
    said = Silent()
    with TeacherServer() as server:
        summary = distill(small_run.config(tmp_path / "run", server.url, *faults), said)
    assert summary.rounds == 1
    scored = {row["id"] for row in read_jsonl(tmp_path / "run" / "rounds" / "01" / "scores.jsonl")}
    assert scored == {f"pool-{number:03d}" for number in range(NUM_POOL)} - {POISON}
    (told,) = (warning for warning in said.warnings if POISON in warning)
    assert "is not scored, and not asked this round: 3 worker processes died of it" in told


def test_a_question_that_kills_when_it_is_sampled_is_explained_by_the_teacher_alone(
    small_run: SmallRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opener = workers.student_opener
    monkeypatch.setattr(
        workers,
        "student_opener",
        lambda *given: partial(open_poisoned, opener(*given), frozenset({POISON}), only_sampled=True),
    )
    asked = ("selection.strategy=risk", f"selection.batch_size={NUM_POOL}", "selection.num_rounds=1")
    faults = ("scoring.num_workers=2", "scoring.batch_size=16", "stopping.audit_size=0")
    said = Silent()
    with TeacherServer() as server:
        distill(small_run.config(tmp_path / "run", server.url, *asked, *faults), said)
    annotations = {
        row["question_id"]: row for row in read_jsonl(tmp_path / "run" / "rounds" / "01" / "annotations.jsonl")
    }
    assert annotations[POISON]["rung"] == "L5"
    (told,) = (warning for warning in said.warnings if POISON in warning)
    assert "is explained by the teacher alone: 3 worker processes died of it" in told


def test_a_question_that_cannot_be_explained_counts_as_not_answered(students: StudentFolders) -> None:
    asked = [Question("short", "What is 1 + 2?"), Question("long", "Why? " * MAX_CONTEXT)]
    run: Any = SimpleNamespace(config=RunConfig(), num_workers=1, progress=Silent())
    trees = explain(run, students.trained_onnx(), asked, "fp32")
    assert set(trees) == {"short", "long"}
    assert trees["short"].text != ""
    assert (trees["long"].text, trees["long"].answer) == ("", None)
    assert run.progress.warnings == ["question long counts as not answered: prompt longer than the student's context"]
