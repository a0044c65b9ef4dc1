"""Keep blocks that finish before an earlier one, so that a killed run does not score them again.

OUT.ahead/HASH.jsonl    one row per question of a block, whole or not at all; deleted once its rows are in OUT
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeelad.engine.blocks import Lost
from edgeelad.engine.workers import SetAside, set_aside_lost
from edgeelad.files import dump_json, storage_errors
from edgeelad.records import Question, TokenCounts


@dataclass(frozen=True, slots=True)
class Scored:
    """The result for one question: its row, and the tokens that it took; None if an earlier run scored it."""

    line: bytes
    tokens: TokenCounts | None


Result = Scored | SetAside


class BlocksAhead:
    """The finished blocks of a run whose rows are not yet in `out`: at most a few per worker."""

    def __init__(self, out: Path) -> None:
        self._folder = out.with_name(out.name + ".ahead")

    def exists(self) -> bool:
        """Whether any block is kept."""
        return any(self._folder.glob("*.jsonl"))

    def find(self, block: list[Question]) -> list[Result] | None:
        """The results of a block if it is kept; it is deleted if it is damaged."""
        path = self._path(block)
        try:
            lines = path.read_bytes().splitlines(keepends=True)
            return [_result(line, question) for line, question in zip(lines, block, strict=True)]
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            self.drop(block)
            return None

    def keep(self, block: list[Question], results: Sequence[Result | Lost[Question]]) -> None:
        """Keep the results of a block.

        Raises:
            StorageError: They cannot be written.
        """
        path = self._path(block)
        half = path.with_suffix(".tmp")
        with storage_errors(path):
            self._folder.mkdir(exist_ok=True)
            half.write_bytes(b"".join(map(_line, set_aside_lost(results))))
            half.replace(path)  # not synced: what a power cut leaves of it is found to be damaged, and done again

    def drop(self, block: list[Question]) -> None:
        """Delete a block."""
        with storage_errors(self._folder):
            self._path(block).unlink(missing_ok=True)

    def clear(self) -> None:
        """Delete all blocks."""
        with storage_errors(self._folder):
            for path in (*self._folder.glob("*.jsonl"), *self._folder.glob("*.tmp")):
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # there is none, or it holds files of others
            self._folder.rmdir()

    def _path(self, block: list[Question]) -> Path:
        ids = json.dumps([question.id for question in block])
        return self._folder / f"{hashlib.sha256(ids.encode('ascii')).hexdigest()[:32]}.jsonl"


def aside_line(aside: SetAside) -> bytes:
    """The row of a question without a score."""
    return (dump_json({"id": aside.question.id, "reason": aside.reason}) + "\n").encode("utf-8")


def _line(result: Result) -> bytes:
    return result.line if isinstance(result, Scored) else aside_line(result)


def _result(line: bytes, question: Question) -> Result:
    row = json.loads(line)
    if not line.endswith(b"\n"):
        raise ValueError("truncated")
    if not isinstance(row, dict) or row.get("id") != question.id:
        raise ValueError("not the row of this question")
    return SetAside(question, row["reason"]) if row.keys() == {"id", "reason"} else Scored(line, None)
