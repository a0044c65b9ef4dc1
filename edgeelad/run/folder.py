"""A run folder: which file holds which records, and the lock that keeps a second process out.

A stage is done when its files are there as it left them: each appears whole or not at all, and its digest is recorded.
So a run resumes by doing what is missing. `state.json` names the current stage and how long each stage took.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from edgeelad.errors import RunError, StorageError
from edgeelad.files import make_private_folder, storage_errors, sweep_folder
from edgeelad.locks import lock_file
from edgeelad.record_files import RecordFile, RowFile
from edgeelad.records import Annotation, TeachingPlan
from edgeelad.run.digests import DigestBook
from edgeelad.run.records import (
    AnswerRow,
    AuditRow,
    OwnRow,
    PoolSplit,
    RoundMetrics,
    RunState,
    SelectedRow,
    Summary,
    TeacherStage,
    Tracked,
    TrainingRecord,
)
from edgeelad.run.scores import ScoreRow
from edgeelad.uncertainty.risk import RiskModel

LOCK_FILE = ".lock"


class RoundFolder:
    """The files of one round; round 0 is the base student, before any teaching."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = int(path.name)
        self.risk = RecordFile(path / "risk.json", RiskModel)
        self.greedy = RowFile(path / "greedy.jsonl", ScoreRow)  # the first of two passes, if there are two
        self.scores = RowFile(path / "scores.jsonl", ScoreRow)
        self.selected = RowFile(path / "selected.jsonl", SelectedRow)
        self.plan = RowFile(path / "plan.jsonl", TeachingPlan)  # with teacher.mode = "auto"
        self.annotations = RowFile(path / "annotations.jsonl", Annotation)
        self.teacher = RecordFile(path / "teacher.json", TeacherStage)  # of round 0, for the audit
        self.own = RowFile(path / "own.jsonl", OwnRow)  # with training.own_examples
        self.reworded = RowFile(path / "reworded.jsonl", OwnRow)  # likewise
        self.student = path / "student"  # in torch's format
        self.training = RecordFile(path / "training.json", TrainingRecord)
        self.onnx = path / "onnx"
        self.answers = RowFile(path / "answers.jsonl", AnswerRow)
        self.metrics = RecordFile(path / "metrics.json", RoundMetrics)
        self.tracked = RecordFile(path / "tracked.json", Tracked)  # with training.report_to


class RunFolder:
    """The files of a run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.toml"
        self.digests = DigestBook(path)
        self.state = RecordFile(path / "state.json", RunState)
        self.pool = RecordFile(path / "pool.json", PoolSplit)
        self.audit = RowFile(path / "audit.jsonl", AuditRow)
        self.ledger = path / "ledger.sqlite"  # unless the configuration names another
        self.metrics = RowFile(path / "metrics.jsonl", RoundMetrics)
        self.summary = RecordFile(path / "summary.json", Summary, Summary.to_json)
        self.teacher_check = path / "teacher_check.json"  # see `teacher_check`
        self.report = path / "report.html"
        self.package = path / "package"

    def round(self, number: int) -> RoundFolder:
        """The files of one round."""
        return RoundFolder(self.path / "rounds" / f"{number:02d}")

    def rounds(self) -> list[RoundFolder]:
        """The rounds that have a folder, in order."""
        paths = (path for path in (self.path / "rounds").glob("[0-9]*") if path.name.isdigit())
        return sorted(map(RoundFolder, paths), key=lambda folder: folder.number)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the run folder; the lock is released when the process ends, however it ends.

        Raises:
            RunError: Another process holds it.
            StorageError: The folder cannot be made or written.
        """
        make_private_folder(self.path)
        with storage_errors(self.path):
            file = (self.path / LOCK_FILE).open("a+", encoding="utf-8")
        with file:
            try:
                lock_file(file.fileno())
            except OSError:
                file.seek(0)
                holder = file.read().strip() or "unknown"
                raise RunError(
                    f"{self.path}: another edgeelad process (pid {holder}) is working on this run folder; "
                    "wait for it to end, or choose another --out"
                ) from None
            with storage_errors(self.path):
                file.truncate(0)
                file.write(f"{os.getpid()}\n")
                file.flush()
            sweep_folder(self.path)
            yield

    def is_done(self, *outputs: Path) -> bool:
        """Whether a stage's outputs are all there, as it left them.

        Raises:
            RunError: One was changed since; names the file.
        """
        return self.digests.is_done(outputs)

    @contextmanager
    def stage(self, round_number: int, name: str, *outputs: Path) -> Iterator[None]:
        """Run a stage: note it in `state.json`, record the digests of its outputs, add its seconds however it ends."""
        before = self.read_state()
        running = replace(before, round=round_number, stage=name, status="running")
        self.state.write(running)
        start = time.monotonic()
        try:
            with self.digests.recording(*outputs):
                yield
        finally:
            key = f"{round_number}:{name}"
            seconds = round(before.seconds.get(key, 0.0) + time.monotonic() - start, 3)
            try:
                self.state.write(replace(running, status="ended", seconds={**before.seconds, key: seconds}))
            except StorageError:
                if sys.exc_info()[0] is None:  # pragma: no cover - else the first error is the one to show
                    raise

    def read_state(self) -> RunState:
        """Read `state.json`; the start of a run if it is missing."""
        return self.state.read() if self.state.exists() else RunState()

    def seconds_by_stage(self, round_number: int | None = None) -> dict[str, float]:
        """Seconds spent in each stage, of one round or of all."""
        total: dict[str, float] = {}
        for key, seconds in self.read_state().seconds.items():
            number, _, name = key.partition(":")
            if round_number is None or int(number) == round_number:
                total[name] = round(total.get(name, 0.0) + seconds, 3)
        return total
