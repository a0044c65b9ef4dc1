"""The files that `edgeelad score` writes, and how an interrupted run resumes them.

    OUT                     one row per scored question, in the pool's order
    OUT.set_aside.jsonl     one row per question without a score, with the reason; only if there are any
    OUT.meta.json           the settings that determine the rows, written before the first of them
    OUT.jsonl               the rows, if OUT is a parquet file, until all are there
    OUT.ahead/              blocks that finished before an earlier one (`ahead`); only while scoring

Every question of the pool (or shard) has its row in one of the first two, so the files themselves tell how far a run
has come: a truncated last line is dropped, and the other rows are compared with the pool's questions one by one.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from edgeelad.engine.graph_files import Precision
from edgeelad.engine.workers import SetAside
from edgeelad.errors import RunError, UsageError
from edgeelad.files import read_json, read_lines, storage_errors, write_json
from edgeelad.locks import lock_file
from edgeelad.records import Question
from edgeelad.scoring.ahead import BlocksAhead, aside_line
from edgeelad.scoring.tables import count_table, is_table, require_pyarrow, rows_path, write_table

SYNC_S = 5.0  # maximum loss in a power cut; a killed process loses nothing that was written
ANOTHER = {"model": "another student", "pool": "other questions", "risk": "another risk model"}
OPEN_FLAGS = os.O_RDWR | getattr(os, "O_BINARY", 0)


@dataclass(frozen=True, slots=True)
class ScoreSettings:
    """The settings that determine the rows: runs resume, and shards merge, only if all of them are the same.

    Attributes:
        edgeelad: Version; another may compute other last bits.
        model: Fingerprint of the student.
        pool: Fingerprint of the questions.
        num_questions: Of the whole pool.
        shard, num_shards: The part of the pool, counted from 1.
        risk: Fingerprint of the risk model; "" for the default.
    """

    edgeelad: str
    model: str
    pool: str
    num_questions: int
    strategy: str
    branches: int
    explanations: int
    max_tokens: int
    precision: Precision
    seed: int
    shard: int = 1
    num_shards: int = 1
    risk: str = ""

    def differences(self, other: ScoreSettings) -> str:
        """The settings that differ, in words; "" if none does."""
        mine, theirs = asdict(self), asdict(other)
        words = []
        for name in (name for name in mine if mine[name] != theirs[name]):
            if name in ANOTHER:
                words.append(ANOTHER[name])
            else:
                words.append(f"{name} {mine[name]} and not {theirs[name]}")
        return ", ".join(words)


class ScoreFiles:
    """The files of a run in progress.

    Attributes:
        out: The scores.
        num_scored: Scored questions, those of earlier runs included.
        num_set_aside: Questions without a score, likewise.
        ahead: Blocks whose turn has not come.
    """

    def __init__(self, out: Path, descriptor: int) -> None:
        self.out = out
        self.num_scored = self.num_set_aside = 0
        self.ahead = BlocksAhead(out)
        self._scores = _Rows(rows_path(out), descriptor)
        aside = aside_path(out)
        self._aside = _Rows(aside, os.open(aside, OPEN_FLAGS) if aside.exists() else None)

    def skip_done(self, blocks: Iterator[list[Question]]) -> tuple[int, Iterator[list[Question]]]:
        """Skip the questions that have their rows, and drop a truncated row.

        Returns:
            The number of questions to skip in the first incomplete block, and the blocks from that one on.

        Raises:
            RunError: The rows are not those of these questions.
        """
        self._scores.advance()
        self._aside.advance()
        for block in blocks:
            for place, question in enumerate(block):
                if self._scores.next_id == question.id:
                    self._scores.advance()
                    self.num_scored += 1
                elif self._aside.next_id == question.id:
                    self._aside.advance()
                    self.num_set_aside += 1
                else:
                    self._cut()
                    return place, chain([block], blocks)
        self._cut()
        return 0, iter(())

    def add(self, line: bytes) -> None:
        """Append a row of scores.

        Raises:
            StorageError: It cannot be written; earlier rows are kept.
        """
        self._scores.append(line, is_urgent=False)
        self.num_scored += 1

    def set_aside(self, aside: SetAside) -> None:
        """Append a question without a score.

        Raises:
            StorageError: It cannot be written; earlier rows are kept.
        """
        # on disk before any later score is, or a power cut could leave a gap
        self._aside.append(aside_line(aside), is_urgent=True)
        self.num_set_aside += 1

    def finish(self) -> None:
        """Turn the rows into a parquet file, if that is what `out` is to be; all questions have their rows.

        Raises:
            StorageError: It cannot be written; the rows are kept.
        """
        self.ahead.clear()
        if is_table(self.out):
            write_table([rows_path(self.out)], self.out)
            self._scores.delete()

    def delete(self) -> None:
        """Delete the files of a run that scored nothing."""
        with storage_errors(self.out):
            meta_path(self.out).unlink(missing_ok=True)
        self._scores.delete()

    def close(self) -> None:
        """Sync the files to disk, and close them."""
        self._scores.close()
        self._aside.close()

    def _cut(self) -> None:
        if self._scores.next_id is not None:
            raise RunError(
                f"{self.out}: row {self.num_scored + 1} is of question {self._scores.next_id}, which is not the pool's "
                "next; the file was changed after it was written: move it away to score the pool again"
            )
        self._scores.cut()
        self._aside.cut()


@contextmanager
def open_score_files(out: Path, settings: ScoreSettings) -> Iterator[ScoreFiles]:
    """Start the files of a run, or resume them; they are locked meanwhile.

    Raises:
        UsageError: `out` is something else, or was started with other settings.
        RunError: Another process is writing it.
        StorageError: It cannot be written.
    """
    if is_table(out):
        require_pyarrow(out)
    descriptor = _open_locked(rows_path(out))
    try:
        _check_settings(out, settings, is_empty=os.fstat(descriptor).st_size == 0)
        files = ScoreFiles(out, descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    is_whole = False
    try:
        yield files
        is_whole = True
    finally:
        try:
            if not is_whole and _is_nothing_scored(out):
                files.delete()
        finally:
            files.close()


def count_finished(out: Path, settings: ScoreSettings) -> tuple[int, int] | None:
    """Numbers of questions scored and set aside, if `out` is a finished parquet file of scores; else None.

    Raises:
        UsageError: `out` is something else, or was written with other settings.
    """
    if not is_table(out) or not out.exists():
        return None
    require_pyarrow(out)
    _require_same(out, read_settings(out), settings)
    with storage_errors(out):
        rows_path(out).unlink(missing_ok=True)  # of a process that was killed just before
    return count_table(out), sum(1 for _ in read_lines(aside_path(out))) if aside_path(out).exists() else 0


def lock_scores(out: Path, descriptor: int) -> None:
    """Lock an open file of scores.

    Raises:
        RunError: Another process is writing it.
    """
    try:
        lock_file(descriptor)
    except OSError:
        raise RunError(
            f"{out}: another edgeelad process is writing it; wait until it ends, or name another file with --out"
        ) from None


def _open_locked(path: Path) -> int:
    """Open a file of scores, a new one if there is none, and lock it."""
    while True:
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, OPEN_FLAGS | os.O_CREAT, 0o666)
        try:
            lock_scores(path, descriptor)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # another process deleted this file after it was opened here


def read_settings(out: Path) -> ScoreSettings:
    """Read the settings of a file of scores.

    Raises:
        UsageError: It was not written by `edgeelad score`, or by another version.
    """
    path = meta_path(out)
    if not path.exists():
        raise UsageError(f"{out}: not written by this `edgeelad score` ({path.name} is missing); name another file")
    try:
        return ScoreSettings(**read_json(path)["settings"])
    except (RunError, TypeError, KeyError):
        raise UsageError(f"{path}: not what this edgeelad writes; name another file with --out") from None


def write_settings(out: Path, settings: ScoreSettings) -> None:
    """Write the settings of a file of scores.

    Raises:
        StorageError: It cannot be written.
    """
    write_json(meta_path(out), {"settings": asdict(settings)})


def aside_path(out: Path) -> Path:
    """Path of the list of questions without a score."""
    return out.with_name(out.name + ".set_aside.jsonl")


def meta_path(out: Path) -> Path:
    """Path of the settings."""
    return out.with_name(out.name + ".meta.json")


def _check_settings(out: Path, settings: ScoreSettings, *, is_empty: bool) -> None:
    before = read_settings(out) if meta_path(out).exists() or not is_empty else None
    if before == settings:
        return
    if before is not None and not _is_nothing_scored(out):
        _require_same(out, before, settings)
    with storage_errors(out):
        aside_path(out).unlink(missing_ok=True)
    BlocksAhead(out).clear()
    write_settings(out, settings)


def _require_same(out: Path, before: ScoreSettings, settings: ScoreSettings) -> None:
    if before != settings:
        raise UsageError(
            f"{out} was started with {before.differences(settings)}; use the same settings to resume it, or name "
            "another file with --out"
        )


def _is_nothing_scored(out: Path) -> bool:
    return rows_path(out).stat().st_size == 0 and not aside_path(out).exists() and not BlocksAhead(out).exists()


class _Rows:
    """A file of JSON lines with ids: read from its start, then appended to; created when needed."""

    def __init__(self, path: Path, descriptor: int | None) -> None:
        self.path = path
        self.next_id: str | None = None
        self._descriptor = descriptor
        self._lines: Iterator[tuple[int, str]] = whole_rows(path) if descriptor is not None else iter(())
        self._end = self._next_end = 0
        self._synced = time.monotonic()

    def advance(self) -> None:
        """Skip the next row, and read the id of the one after it into `next_id`; None at the end."""
        self._end = self._next_end
        self._next_end, self.next_id = next(self._lines, (self._end, None))

    def cut(self) -> None:
        """Truncate the file after the skipped rows."""
        if self._descriptor is not None:
            with storage_errors(self.path):
                if os.fstat(self._descriptor).st_size > self._end:
                    os.ftruncate(self._descriptor, self._end)
                os.lseek(self._descriptor, self._end, os.SEEK_SET)

    def append(self, data: bytes, *, is_urgent: bool) -> None:
        """Append a row, whole or not at all."""
        with storage_errors(self.path):
            if self._descriptor is None:
                self._descriptor = os.open(self.path, OPEN_FLAGS | os.O_CREAT | os.O_TRUNC, 0o666)
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
            except OSError:
                self.cut()
                raise
            self._end += len(data)
            if is_urgent or time.monotonic() - self._synced > SYNC_S:
                os.fsync(self._descriptor)
                self._synced = time.monotonic()

    def delete(self) -> None:
        """Delete the file while it is locked, so that no other process has opened and filled it."""
        if os.name == "nt":  # pragma: no cover  an open file cannot be deleted there, whoever opened it
            self.close()
        with storage_errors(self.path):
            self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            with storage_errors(self.path):
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)


def whole_rows(path: Path) -> Iterator[tuple[int, str]]:
    """The end and id of each complete row; a truncated last row is ignored.

    Raises:
        RunError: Another row is damaged.
    """
    end = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            row = _parse(line)
            if row is None:
                if file.read(1):
                    raise RunError(f"{path}:{number}: damaged row; move the file away to score the pool again")
                return
            end += len(line)
            yield end, row["id"]


def _parse(line: bytes) -> dict[str, Any] | None:
    """A row with an id; None if it is truncated."""
    if not line.endswith(b"\n"):
        return None
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("id"), str) else None
