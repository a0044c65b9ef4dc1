"""A teacher check as it is kept: `teacher_check.json` in a run folder, from where the run's report takes it.

Turns a check with its circumstances into JSON and back; the figures of a file are read as counts, so that shares and
intervals are computed in one place.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeelad.files import write_json
from edgeelad.records import TeacherUsage
from edgeelad.teacher.check.measure import Share, TeacherCheck

CHECK_FILE = "teacher_check.json"
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
    """A check, and what it was made of: the teacher's URL and model, and the rows' origin in words."""

    url: str
    model: str
    data: str
    result: TeacherCheck

    @property
    def shares(self) -> dict[str, Share]:
        """What was measured, by the words for it."""
        return {label: getattr(self.result, name) for name, label in MEASURES.items()}


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


def check_from_json(row: Mapping[str, Any]) -> KeptCheck:
    """Read back what `check_to_json` gave.

    Raises:
        KeyError, TypeError, ValueError: It is something else.
    """
    shares = {name: Share(int(row[name]["hits"]), int(row[name]["of"])) for name in MEASURES}
    if any(not 0 <= share.num_hits <= share.num for share in shares.values()):
        raise ValueError("a share of more hits than were tried")
    return KeptCheck(
        url=str(row["teacher"]["url"]),
        model=str(row["teacher"]["model"]),
        data=str(row["data"]),
        result=TeacherCheck(num_rows=int(row["rows"]), usage=TeacherUsage(**row["usage"]), **shares),
    )


def keep_check(kept: KeptCheck, run_folder: Path) -> Path:
    """Write a check into a run folder, made where there is none; gives the file.

    Raises:
        StorageError: It cannot be written.
    """
    path = run_folder / CHECK_FILE
    write_json(path, check_to_json(kept))
    return path
