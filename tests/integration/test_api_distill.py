"""A run from Python: a teacher and a score of one's own, events, resuming, caps; and the same as installed plugins."""

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fixtures import plugin
from fixtures.small_run import SmallRun

import edgeelad
from edgeelad.errors import UsageError
from edgeelad.quickstart import solver
from edgeelad.records import TeacherUsage
from edgeelad.run.folder import RunFolder

PRICE = 0.01


class Solver:
    """Answers, explains, finds errors and completes, for a price; `fail_after` calls it breaks."""

    def __init__(self, fail_after: int = 10**9) -> None:
        self.calls: Counter[tuple[str, str]] = Counter()
        self.left = fail_after
        self._lock = threading.Lock()

    def answer(self, question: edgeelad.Question, sample: int = 0) -> edgeelad.AnswerReply:
        self._take("answer", f"{question.text} {sample}")
        return edgeelad.AnswerReply(str(solver.solve(question.text).answer), self._usage)

    def rationale(self, question: edgeelad.Question, reference: str | None, sample: int = 0) -> edgeelad.ChainReply:
        self._take("rationale", question.text)
        solution = solver.solve(question.text)
        return edgeelad.ChainReply(solution.steps, str(solution.answer), self._usage)

    def find_first_error(
        self, question: edgeelad.Question, steps: Any, reference: str | None, student_answer: str | None
    ) -> edgeelad.FirstErrorReply:
        self._take("find_first_error", f"{question.text} {steps}")
        for index, step in enumerate(steps):
            if not solver.judge_step(question.text, steps[:index], step):
                return edgeelad.FirstErrorReply(
                    index, solver.correct_step(question.text, steps[:index], step), usage=self._usage
                )
        return edgeelad.FirstErrorReply(None, usage=self._usage)

    @property
    def _usage(self) -> TeacherUsage:
        return TeacherUsage(1, 100, 20, PRICE)

    def _take(self, method: str, what: str) -> None:
        with self._lock:
            self.left -= 1
            if self.left < 0:
                raise RuntimeError("the network is gone")
            self.calls[method, what] += 1


def settings(small_run: SmallRun, out: Path, **teacher: Any) -> dict[str, Any]:
    """One round on the small run's files."""
    config = small_run.config(out, "http://127.0.0.1:9/v1", "selection.num_rounds=1")
    sections: dict[str, Any] = config.model_dump(exclude_unset=True)
    return {**sections, "teacher": {"max_concurrency": 2, **teacher}}


def test_a_teacher_object_and_a_score_of_ones_own(small_run: SmallRun, tmp_path: Path) -> None:
    def length(tree: edgeelad.ReasoningTree) -> float:
        return float(tree.num_steps)

    config, events = settings(small_run, tmp_path / "run"), []
    breaking = Solver(fail_after=20)
    with pytest.raises(RuntimeError, match="the network is gone"):
        edgeelad.distill(config, teacher=breaking, strategy=length)
    with pytest.raises(edgeelad.errors.RunError, match="holds a run already"):
        edgeelad.distill(config, teacher=breaking, strategy=length)

    # what was answered is not asked again
    working = Solver()
    summary = edgeelad.distill(tmp_path / "run", resume=True, teacher=working, strategy=length, on_event=events.append)
    assert not breaking.calls.keys() & working.calls.keys()
    assert max(working.calls.values()) == 1
    assert (summary.stopped_because, summary.rounds) == ("max_rounds", 1)
    assert summary.annotated > 0
    assert summary.strategy == "python:length"
    bought = breaking.calls.total() + working.calls.total()
    assert summary.teacher.prompt_tokens == bought * 100
    assert summary.teacher.cost_usd == pytest.approx(bought * PRICE)
    for row in RunFolder(tmp_path / "run").round(1).scores.read():
        assert (row.strategy, row.score) == ("length", len(row.steps))

    started = [event.stage for event in events if isinstance(event, edgeelad.StageStarted)]
    ended = [event.stage for event in events if isinstance(event, edgeelad.StageEnded)]
    assert started == ended
    assert "Round 1: teacher revises" in started
    advanced = [event for event in events if isinstance(event, edgeelad.StageAdvanced)]
    assert any(event.stage == "Round 1: teacher revises" and event.done == event.total == 12 for event in advanced)

    # a finished run gives its summary again; another teacher is refused, and the command says where to resume
    again = edgeelad.distill(tmp_path / "run", resume=True, teacher=Solver(), strategy=length)
    assert {**again.to_json(), "seconds": None} == {**summary.to_json(), "seconds": None}
    command = [sys.executable, "-m", "edgeelad", "distill", str(tmp_path / "run"), "--resume", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "resume it from Python" in done.stderr


def test_caps_hold_for_a_teacher_object(small_run: SmallRun, tmp_path: Path) -> None:
    teacher, out = Solver(), tmp_path / "run"
    config = settings(small_run, out, max_usd=0.18, max_concurrency=1, mode="revise")
    with pytest.raises(edgeelad.errors.BudgetError, match=r"nothing was taught.*teacher\.max_usd = \$0\.1800"):
        edgeelad.distill(config, teacher=teacher)
    assert teacher.calls.total() == 18
    summary = edgeelad.distill(out, resume=True, overrides=["teacher.max_usd=0.4"], teacher=teacher)
    assert summary.stopped_because == "budget"
    assert summary.annotated > 0
    assert teacher.calls.total() == 40
    assert max(teacher.calls.values()) == 1
    assert summary.teacher.cost_usd == pytest.approx(0.4)


def test_the_teacher_of_a_run_cannot_be_replaced(small_run: SmallRun, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    small_run.write_config(tmp_path / "run", "http://127.0.0.1:9/v1").rename(tmp_path / "run" / "config.toml")
    with pytest.raises(UsageError, match=r"teacher\.kind of this run is 'openai'; it cannot be changed"):
        edgeelad.distill(tmp_path / "run", resume=True, teacher=Solver())


def test_an_installed_teacher_teaches_from_the_command_line(small_run: SmallRun, tmp_path: Path) -> None:
    log = tmp_path / "log"
    site = plugin.install(tmp_path / "site")
    config = small_run.write_config(
        tmp_path / "run", "", "teacher.kind=solver", f"teacher.options={{log = {json.dumps(str(log))}}}",
        "selection.strategy=num-steps", "selection.num_rounds=1", "stopping.audit_size=8", "stopping.num_self_checks=0",
    )  # fmt: skip
    paths = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "edgeelad", "distill", str(config), "--quiet", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths})
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    lines = [line for line in log.read_text(encoding="utf-8").splitlines() if not line.startswith("close")]
    assert len(lines) == len(set(lines)) or Counter(lines).most_common(1)[0][1] <= 3  # up to three samples per question
    assert summary["teacher"]["requests"] == len(lines)
    assert summary["annotated"] + summary["set_aside"] == 12
    assert summary["annotated"] > 0
    assert summary["strategy"] == "num-steps"
