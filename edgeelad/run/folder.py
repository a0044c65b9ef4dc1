"""A run folder: where each file lies, the lock that keeps a second process out, and what a round leaves behind.

A stage is done when its file is there, for every file appears whole or not at all; so a run resumes by doing what is
missing. `state.json` says for people and programs which round and stage is under way, and how long each stage took.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeelad.errors import RunError, StorageError
from edgeelad.files import read_json, storage_errors, sweep_folder, write_json
from edgeelad.locks import lock_file

LOCK_FILE = ".lock"


@dataclass(frozen=True, slots=True)
class RoundFolder:
    """The files of one round; round 0 is the base student, before any teaching."""

    path: Path

    @property
    def scores(self) -> Path:
        """One row a scored question."""
        return self.path / "scores.jsonl"

    @property
    def selected(self) -> Path:
        """The batch, with the reason for each choice."""
        return self.path / "selected.jsonl"

    @property
    def annotations(self) -> Path:
        """What the teacher's work produced, one row a selected question."""
        return self.path / "annotations.jsonl"

    @property
    def student(self) -> Path:
        """The student in torch's format."""
        return self.path / "student"

    @property
    def onnx(self) -> Path:
        """The exported student."""
        return self.path / "onnx"

    @property
    def answers(self) -> Path:
        """The student's answers to the test and audit questions."""
        return self.path / "answers.jsonl"

    @property
    def metrics(self) -> Path:
        """The round's figures."""
        return self.path / "metrics.json"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The files of a run."""

    path: Path

    @property
    def config(self) -> Path:
        """The configuration as resolved."""
        return self.path / "config.toml"

    @property
    def state(self) -> Path:
        """Round, stage and seconds so far."""
        return self.path / "state.json"

    @property
    def pool(self) -> Path:
        """The pool's fingerprint and the split into test, audit and askable questions."""
        return self.path / "pool.json"

    @property
    def audit(self) -> Path:
        """The audit sample with the teacher's answers."""
        return self.path / "audit.jsonl"

    @property
    def ledger(self) -> Path:
        """The teacher's exchanges, unless the configuration names another ledger."""
        return self.path / "ledger.sqlite"

    @property
    def metrics(self) -> Path:
        """One line a round."""
        return self.path / "metrics.jsonl"

    @property
    def summary(self) -> Path:
        """How the run ended, and its figures."""
        return self.path / "summary.json"

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

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run folder; the operating system lets go of it when the process ends, however it ends.

        Raises:
            RunError: Another process holds it.
            StorageError: The folder cannot be made or written.
        """
        with storage_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
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

    @contextmanager
    def stage(self, round_number: int, name: str) -> Iterator[None]:
        """Note in `state.json` that a stage is under way, and add its seconds when it ends (well or not)."""
        state = self.read_state()
        write_json(self.state, {**state, "round": round_number, "stage": name, "status": "running"})
        start = time.monotonic()
        try:
            yield
        finally:
            seconds: dict[str, float] = state.get("seconds", {})
            key = f"{round_number}:{name}"
            seconds[key] = round(seconds.get(key, 0.0) + time.monotonic() - start, 3)
            try:
                write_json(self.state, {**state, "round": round_number, "stage": name, "seconds": seconds})
            except StorageError:
                if sys.exc_info()[0] is None:  # pragma: no cover - else the first error is the one to show
                    raise

    def read_state(self) -> dict[str, Any]:
        """What `state.json` says; empty where there is none yet."""
        return dict(read_json(self.state)) if self.state.exists() else {}

    def seconds_by_stage(self, round_number: int | None = None) -> dict[str, float]:
        """Seconds spent in each stage, of one round or of all."""
        total: dict[str, float] = {}
        for key, seconds in self.read_state().get("seconds", {}).items():
            number, _, name = key.partition(":")
            if round_number is None or int(number) == round_number:
                total[name] = round(total.get(name, 0.0) + seconds, 3)
        return total
