"""teacher_check.json: a check of the teacher, kept in a run folder so that the run's report can show it.

The file holds its own digest, because it may be written while a run works on the folder and keeps digests.json.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeelad.errors import RunError
from edgeelad.files import BOM, PRIVATE, dump_json, make_private_folder, read_errors, write_json
from edgeelad.record_files import parse_record
from edgeelad.records import TeacherUsage
from edgeelad.run.folder import RunFolder
from edgeelad.teacher.check.measure import Share, TeacherCheck

MEASURES = {
    "found": "finds the first error",
    "near": "… within one step",
    "cleared": "lets right explanations pass",
    "fixed": "its correction leads to the right answer",
    "answered": "answers right by itself",
    "unusable": "replies that could not be used",
}


@dataclass(frozen=True, slots=True)
class KeptCheck:
    """A check, and what it was made of: the teacher's URL and model, and the origin of the rows in words."""

    url: str
    model: str
    data: str
    result: TeacherCheck

    @property
    def shares(self) -> dict[str, Share]:
        """What was measured, by the words for it."""
        return {label: getattr(self.result, name) for name, label in MEASURES.items()}


@dataclass(frozen=True, slots=True)
class _Teacher:
    url: str
    model: str


@dataclass(frozen=True, slots=True)
class _Counts:
    hits: int
    of: int


@dataclass(frozen=True, slots=True)
class _File:
    """The file's layout; intervals are left out, for they follow from the counts."""

    sha256: str
    teacher: _Teacher
    data: str
    rows: int
    found: _Counts
    near: _Counts
    cleared: _Counts
    fixed: _Counts
    answered: _Counts
    unusable: _Counts
    usage: TeacherUsage


def check_to_json(kept: KeptCheck) -> dict[str, Any]:
    """The figures for a program, intervals included."""
    result = kept.result
    shares: dict[str, Share] = {name: getattr(result, name) for name in MEASURES}
    return {
        "teacher": {"url": kept.url, "model": kept.model},
        "data": kept.data,
        "rows": result.num_rows,
        **{
            name: {"hits": share.num_hits, "of": share.num, "low": share.interval[0], "high": share.interval[1]}
            for name, share in shares.items()
        },
        "usage": dataclasses.asdict(result.usage),
    }


def keep_check(kept: KeptCheck, run_folder: Path) -> Path:
    """Write a check into a run folder, created if missing; returns its path.

    Raises:
        StorageError: It cannot be written.
    """
    make_private_folder(run_folder)
    path = RunFolder(run_folder).teacher_check
    figures = check_to_json(kept)
    write_json(path, {"sha256": _digest(figures), **figures}, PRIVATE)
    return path


def read_check(path: Path) -> KeptCheck:
    """Read a check that `keep_check` wrote.

    Raises:
        RunError: The file is missing, unreadable, damaged or changed; the message names it.
    """
    with read_errors(path):
        data = path.read_bytes().removeprefix(BOM)
    row = parse_record(data, _File, str(path))
    with read_errors(path):
        figures = json.loads(data)
        is_same = figures.pop("sha256") == _digest(figures)
    if not is_same:
        raise RunError(f"{path}: changed since it was written; restore it, delete it, or run the check again")
    counts: dict[str, _Counts] = {name: getattr(row, name) for name in MEASURES}
    shares = {name: Share(count.hits, count.of) for name, count in counts.items()}
    return KeptCheck(
        row.teacher.url, row.teacher.model, row.data, TeacherCheck(num_rows=row.rows, usage=row.usage, **shares)
    )


def _digest(figures: dict[str, Any]) -> str:
    return hashlib.sha256(dump_json(figures).encode()).hexdigest()
