"""Look at a ledger, and move what it holds to another: what `edgeelad ledger stats|export|import` do.

An export is JSON lines, one per reply that can be used, with the request that it answers; an import takes what the
ledger does not have yet and recomputes every key. What is imported was paid for elsewhere: it counts against no budget.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeelad.errors import InputError
from edgeelad.files import write_jsonl
from edgeelad.teacher.ledger.budget import PICO
from edgeelad.teacher.ledger.counts import DIGESTED, LedgerTotals, altered
from edgeelad.teacher.ledger.exchange import content_key, reply_digest
from edgeelad.teacher.ledger.ledger import Ledger
from edgeelad.teacher.ledger.schema import DELETED, damaged

# the run that imported replies belong to; no run that spends has this name
IMPORTED_RUN = "imported"


@dataclass(frozen=True, slots=True)
class PromptStats:
    """What one prompt has come to with one model."""

    model: str
    prompt_id: str
    requests: int
    replies: int
    unusable: int
    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    cost_usd: float | None


@dataclass(frozen=True, slots=True)
class LedgerStats:
    """What a ledger holds: in all, by run, by model and prompt."""

    total: LedgerTotals
    by_run: dict[str, LedgerTotals]
    by_prompt: tuple[PromptStats, ...]


def ledger_stats(path: Path) -> LedgerStats:
    """Count what a ledger holds.

    Raises:
        InputError: There is no such file.
    """
    with _opened(path) as ledger:
        runs = [str(row[0]) for row in ledger.rows("SELECT DISTINCT run FROM totals ORDER BY run", ())]
        return LedgerStats(ledger.totals(), {run: ledger.totals(run) for run in runs}, tuple(_prompt_stats(ledger)))


def verify_ledger(path: Path) -> list[str]:
    """Recompute every hash and sum of a ledger; one line per thing that is wrong.

    Raises:
        InputError: There is no such file.
    """
    with _opened(path, is_checked=False) as ledger:
        return ledger.verify()


def delete_altered(path: Path) -> int:
    """Delete the replies that do not have the hash written with them; gives their number. They are bought again.

    What they cost stays counted.

    Raises:
        InputError: There is no such file.
        StorageError: It cannot be written.
    """
    with _opened(path, is_checked=False) as ledger, ledger.transaction() as connection:
        ids = [(id_,) for id_ in altered(connection)]
        connection.executemany("DELETE FROM replies WHERE attempt_id = ?", ids)
        connection.executemany(f"UPDATE attempts SET problem = '{DELETED}' WHERE id = ?", ids)
        return len(ids)


def export_ledger(path: Path, out: Path) -> int:
    """Write a ledger's usable replies as JSON lines, in the order in which they were bought; gives their number.

    Raises:
        InputError: There is no such ledger.
        RunError: A reply is not what was written.
        StorageError: `out` cannot be written.
    """
    with _opened(path) as ledger:
        return write_jsonl(out, _rows(ledger))


def import_ledger(path: Path, source: Path) -> int:
    """Add the replies of an export to a ledger, all or nothing; gives the number of new ones.

    Raises:
        InputError: A line is not a reply of an export, or was altered.
        StorageError: The ledger cannot be written.
    """
    num_new = 0
    with Ledger(path) as ledger:
        ledger.register()
        with ledger.transaction() as connection:
            for number, row in _lines(source):
                key = _check(row, f"{source}:{number}")
                if ledger.find(key) is None:
                    _insert(connection, ledger, row)
                    num_new += 1
    return num_new


def _insert(connection: sqlite3.Connection, ledger: Ledger, row: dict[str, Any]) -> None:
    now = ledger.clock()
    connection.execute("INSERT OR IGNORE INTO requests VALUES (?, ?, ?)", (row["key"], row["request"], now))
    head = (row["key"], IMPORTED_RUN, row["question_id"], ledger.session, row["completion_cap"], now, now, row["cost"])
    cursor = connection.execute(
        "INSERT INTO attempts (key, run, question_id, session, completion_cap, started_at, finished_at, cost, outcome, "
        f"reserved_prompt_tokens, reserved_completion_tokens, {', '.join(_BILLED)}) "
        f"VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'open', 0, 0, {', '.join('?' for _ in _BILLED)})",
        (*head, *(row[name] for name in _BILLED)),
    )
    connection.execute("UPDATE attempts SET outcome = 'answered' WHERE id = ?", (cursor.lastrowid,))
    fields = [row[name] for name in DIGESTED]
    connection.execute(
        "INSERT INTO replies VALUES (?, ?, ?, ?, ?, ?, ?, '')", (cursor.lastrowid, *fields, reply_digest(*fields))
    )


_BILLED = ("prompt_tokens", "completion_tokens", "cached_prompt_tokens", "reasoning_tokens", "is_estimated")
_FIELDS: dict[str, type | tuple[type, ...]] = {
    "key": str,
    "request": str,
    "question_id": str,
    "content": str,
    "finish_reason": str,
    "completion_cap": int,
    "model": str,
    "cost": (int, type(None)),
    **dict.fromkeys(_BILLED, int),
}


def _rows(ledger: Ledger) -> Iterator[dict[str, Any]]:
    sql = (
        "SELECT r.key, q.canonical, a.question_id, r.content, r.finish_reason, r.completion_cap, r.model, a.cost, "
        f"{', '.join(f'a.{name}' for name in _BILLED)}, r.digest, r.attempt_id FROM replies r "
        "JOIN attempts a ON a.id = r.attempt_id JOIN requests q ON q.key = r.key "
        "WHERE r.problem = '' AND r.attempt_id > ? ORDER BY r.attempt_id LIMIT 1000"
    )
    last = 0
    while page := ledger.rows(sql, (last,)):
        for *values, digest, last in page:  # noqa: B007  # where the next page begins
            row = dict(zip(_FIELDS, values, strict=True))
            if reply_digest(*(row[name] for name in DIGESTED)) != digest:
                raise damaged(ledger.path, f"the reply to {row['key']} was altered")
            yield row


def _lines(source: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with source.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    yield number, json.loads(line)
                except ValueError as error:
                    raise InputError(f"{source}:{number}: not JSON ({error}); export the ledger again") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{source}: cannot be read: {error}") from error


def _check(row: Any, where: str) -> str:
    if not isinstance(row, dict):
        raise InputError(f"{where}: not a reply of an exported ledger")
    for name, kind in _FIELDS.items():
        if name not in row or not isinstance(row[name], kind) or isinstance(row[name], bool):
            raise InputError(f"{where}: the field {name} is missing or of another type; export the ledger again")
    key = content_key(row["request"])
    if key != row["key"]:
        raise InputError(f"{where}: the request does not have the key written with it: the file was altered")
    return key


def _prompt_stats(ledger: Ledger) -> Iterator[PromptStats]:
    names = ("requests", "replies", "unusable", "prompt", "completion", "reasoning", "cost", "unpriced")
    sql = (
        f"SELECT model, prompt_id, {', '.join(f'SUM({name})' for name in names)} FROM totals WHERE requests > 0 "
        "GROUP BY model, prompt_id ORDER BY model, prompt_id"
    )
    for *fields, cost, num_unpriced in ledger.rows(sql, ()):
        model, prompt, requests, replies, unusable, prompt_tokens, completion_tokens, reasoning = fields
        cost_usd = None if num_unpriced else cost / PICO
        yield PromptStats(
            model, prompt, requests, replies, unusable, prompt_tokens, completion_tokens, reasoning, cost_usd
        )


def _opened(path: Path, is_checked: bool = True) -> Ledger:
    if not path.is_file():
        raise InputError(f"{path}: no such ledger")
    return Ledger(path, is_checked=is_checked)
