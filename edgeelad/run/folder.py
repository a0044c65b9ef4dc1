"""A run folder: which file holds which records, and the lock that keeps a second process out.

A stage is done when its files are there as it left them: each appears whole or not at all, and its digest is recorded.
So a run resumes by doing what is missing. `state.json` tells which stage the run is in, and how long each stage took.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from edgeelad.errors import RunError, StorageError
from edgeelad.files import make_private_folder, storage_errors, sweep_folder
from edgeelad.locks import lock_file
from edgeelad.record_files import RecordFile, RowFile
from edgeelad.records import Annotation
from edgeelad.run.digests import DigestBook
from edgeelad.run.records import (
    AnswerRow,
    AuditRow,
    PoolSplit,
    RoundMetrics,
    RunState,
    SelectedRow,
    Summary,
    TeacherStage,
    TrainingRecord,
)
from edgeelad.run.scores import ScoreRow
from edgeelad.run.teacher_check import CHECK_FILE

LOCK_FILE = ".lock"


@dataclass(frozen=True, slots=True)
class RoundFolder:
    """The files of one round; round 0 is the base student, before any teaching."""

    path: Path

    @property
    def number(self) -> int:
        """The round."""
        return int(self.path.name)

    @property
    def scores(self) -> RowFile[ScoreRow]:
        """Every scored question."""
        return RowFile(self.path / "scores.jsonl", ScoreRow)

    @property
    def selected(self) -> RowFile[SelectedRow]:
        """The batch, with the reason for each choice."""
        return RowFile(self.path / "selected.jsonl", SelectedRow)

    @property
    def annotations(self) -> RowFile[Annotation]:
        """The result of the teacher's work on each selected question."""
        return RowFile(self.path / "annotations.jsonl", Annotation)

    @property
    def teacher(self) -> RecordFile[TeacherStage]:
        """What the teacher has cost so far, and why it was asked no more; of round 0, for the audit."""
        return RecordFile(self.path / "teacher.json", TeacherStage)

    @property
    def student(self) -> Path:
        """The student in torch's format."""
        return self.path / "student"

    @property
    def training(self) -> RecordFile[TrainingRecord]:
        """The outcome of the fine-tuning."""
        return RecordFile(self.path / "training.json", TrainingRecord)

    @property
    def onnx(self) -> Path:
        """The exported student."""
        return self.path / "onnx"

    @property
    def answers(self) -> RowFile[AnswerRow]:
        """The student's answers to the test, audit and training questions."""
        return RowFile(self.path / "answers.jsonl", AnswerRow)

    @property
    def metrics(self) -> RecordFile[RoundMetrics]:
        """The round's figures."""
        return RecordFile(self.path / "metrics.json", RoundMetrics)


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The files of a run."""

    path: Path

    @property
    def config(self) -> Path:
        """The configuration as resolved."""
        return self.path / "config.toml"

    @property
    def state(self) -> RecordFile[RunState]:
        """Round, stage and seconds so far."""
        return RecordFile(self.path / "state.json", RunState)

    @property
    def pool(self) -> RecordFile[PoolSplit]:
        """The split into test, audit and askable questions."""
        return RecordFile(self.path / "pool.json", PoolSplit)

    @property
    def audit(self) -> RowFile[AuditRow]:
        """The audit sample with the teacher's answers."""
        return RowFile(self.path / "audit.jsonl", AuditRow)

    @property
    def ledger(self) -> Path:
        """The teacher's exchanges, unless the configuration names another ledger."""
        return self.path / "ledger.sqlite"

    @property
    def metrics(self) -> RowFile[RoundMetrics]:
        """The figures of all rounds, one per line."""
        return RowFile(self.path / "metrics.jsonl", RoundMetrics)

    @property
    def summary(self) -> RecordFile[Summary]:
        """How the run ended, and its figures."""
        return RecordFile(self.path / "summary.json", Summary, Summary.to_json)

    @property
    def teacher_check(self) -> Path:
        """A check of the teacher, if one was kept here; see `run.teacher_check`."""
        return self.path / CHECK_FILE

    @property
    def report(self) -> Path:
        """The page to show."""
        return self.path / "report.html"

    @property
    def package(self) -> Path:
        """What ships."""
        return self.path / "package"

    def round(self, number: int) -> RoundFolder:
        """The files of one round."""
        return RoundFolder(self.path / "rounds" / f"{number:02d}")

    def rounds(self) -> list[RoundFolder]:
        """The rounds that have a folder, in order."""
        paths = (path for path in (self.path / "rounds").glob("[0-9]*") if path.name.isdigit())
        return sorted(map(RoundFolder, paths), key=lambda folder: folder.number)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run folder; the operating system lets go of it when the process ends, however it ends.

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

    @property
    def digests(self) -> DigestBook:
        """The digests of what the stages finished."""
        return DigestBook(self.path)

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
            self.digests.begin(outputs)
            yield
            self.digests.finish(outputs)
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
