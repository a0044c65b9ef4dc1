"""The ledger: one SQLite file that holds every exchange with a teacher, so that nothing is paid for twice.

A row for every HTTP attempt is committed (WAL, full synchronous) before it is sent and completed after it. A process
that dies in between leaves the row open: it is *in doubt* and counts at what was reserved for it. Several threads,
processes and runs may share a ledger; caps are checked in the transaction that writes the attempt. A reply is read only
if it has the hash that was written with it. API keys and headers are not kept.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from edgeelad.errors import BudgetError, RunError
from edgeelad.records import TeacherUsage
from edgeelad.teacher.ledger import counts as ledger_counts
from edgeelad.teacher.ledger.budget import Caps, Prices, Reservation, Spent, check
from edgeelad.teacher.ledger.counts import LedgerTotals, PromptRates
from edgeelad.teacher.ledger.exchange import Billing, StoredReply, TeacherRequest, content_key, reply_digest
from edgeelad.teacher.ledger.schema import damage, damaged, open_file, read_errors, sampled_damage, storage_errors
from edgeelad.teacher.ledger.sessions import Session, is_alive

# a file up to this size is checked as a whole when it is opened, in a second at most; 3 GB would take minutes
LARGE_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Begun:
    """What `Ledger.begin` came to: an attempt to send, or the reply that is there already, or neither.

    Neither means: wait, then ask again. Another live process has sent the same request, or this session's open attempts
    hold so much of the budget that this one has to wait until their cost is known.
    """

    attempt_id: int | None = None
    reply: StoredReply | None = None
    is_held: bool = field(default=False, compare=False)  # by the budget


class Ledger:
    """An open ledger; close it, or use it as a context manager."""

    def __init__(
        self,
        path: Path,
        clock: Callable[[], float] = time.time,
        *,
        say: Callable[[str], None] = lambda message: None,
        is_checked: bool = True,
    ) -> None:
        """Open or create a ledger.

        Args:
            path: Its file.
            clock: The time of day, in seconds.
            say: Told when this process waits for another one.
            is_checked: Refuse a file with damage that can be seen without reading every reply; of a large file, only
                a sample is looked at.

        Raises:
            RunError, StorageError: It is not a ledger, is damaged, is of another version, or cannot be written.
        """
        self.path = path
        self.clock = clock
        self.session = uuid.uuid4().hex
        self.say = say
        self._lock = threading.RLock()
        self._waited_for: set[str] = set()
        self._held: Session | None = None
        self._reserved: dict[int, tuple[str, Reservation]] = {}  # by this session's open attempts
        self._sums: dict[str, Counter[str]] = {}  # of these, by run
        self._connection = open_file(path)
        try:
            with read_errors(path):
                look = damage if path.stat().st_size <= LARGE_BYTES else sampled_damage
                found = next(look(self._connection), "") if is_checked else ""
            if found:
                raise damaged(path, found)
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Idempotent."""
        with self._lock:
            self._connection.close()
            if self._held is not None:
                self._held.close()

    def find(self, key: str, completion_cap: int = 0, settings: str | None = None) -> StoredReply | None:
        """The reply to a request, if it was ever bought: a usable one, else the latest that another would repeat.

        Args:
            key: The request's key.
            completion_cap: Replies that were cut off under a lower cap do not count.
            settings: Unusable replies bought under other settings do not count; None: they do.

        Raises:
            RunError: The reply is not what was written.
        """
        row = self._one(
            "SELECT r.attempt_id, r.digest, r.model, r.key, r.content, r.finish_reason, r.problem, r.completion_cap, "
            "a.prompt_tokens, a.completion_tokens, a.cached_prompt_tokens, a.reasoning_tokens, a.is_estimated "
            "FROM replies r JOIN attempts a ON a.id = r.attempt_id WHERE r.key = ? AND (a.problem = '' OR "
            "((r.problem = '' OR r.completion_cap >= ?) AND a.settings = COALESCE(?, a.settings))) "
            "ORDER BY a.problem = '' DESC, r.attempt_id DESC LIMIT 1",
            (key, completion_cap, settings),
        )
        if row is None:
            return None
        attempt_id, digest, model, _, content, finish_reason, problem, completion_cap, *billed = row
        with read_errors(self.path):
            if reply_digest(key, content, finish_reason, completion_cap, model) != digest:
                raise RunError(
                    f"{self.path}: the reply of attempt {attempt_id} was altered after it was written, so it is not "
                    "used; restore the file from a copy, or delete what was altered with "
                    f"`edgeelad ledger verify --delete {self.path}` (it is bought again)"
                )
            prompt, completion, cached, reasoning, is_estimated = billed
            billing = Billing(prompt, completion, cached, reasoning, bool(is_estimated))
            return StoredReply(key, content, finish_reason, problem, completion_cap, billing)

    def begin(
        self,
        request: TeacherRequest,
        wanted: Reservation,
        caps: Caps,
        prices: Prices,
        *,
        run: str,
        question_id: str,
        completion_cap: int,
        settings: str = "",
        batch: str | None = None,
    ) -> Begun:
        """Write the row of an attempt that is about to be sent, unless its reply is there or a cap forbids it.

        Args:
            request: What will be sent.
            wanted: The most that it can cost.
            caps: The run's caps.
            prices: Today's prices; they fill in the cost of rows that were written without prices.
            run: Whose budget it counts against.
            question_id: The question that it serves.
            completion_cap: Its completion cap.
            settings: Other settings that decide whether its reply can be used. An unusable reply bought under others,
                or cut off under a lower cap, does not stand in the way.
            batch: The batch that it is sent in, if any.

        Raises:
            BudgetError: A cap could be passed, whatever the open attempts may cost.
            StorageError: The row cannot be written, so nothing may be sent.
        """
        canonical = request.canonical()
        key = content_key(canonical)
        self.register()
        with self.transaction() as connection:
            found = self.find(key, completion_cap, settings)
            if found is not None:
                return Begun(reply=found)
            if self._is_under_way_elsewhere(key):
                return Begun()
            known = self._one("SELECT 1 FROM run_questions WHERE run = ? AND question_id = ?", (run, question_id))
            spent = ledger_counts.spent(connection, run, prices)
            try:
                check(spent, wanted, caps, is_new_question=known is None)
            except BudgetError:
                check(self._settled(spent, run), wanted, caps, is_new_question=known is None)
                return Begun(is_held=True)
            now = self.clock()
            connection.execute("INSERT OR IGNORE INTO requests VALUES (?, ?, ?)", (key, canonical, now))
            cursor = connection.execute(
                "INSERT INTO attempts (key, run, question_id, session, started_at, outcome, batch, completion_cap, "
                "settings, reserved_prompt_tokens, reserved_completion_tokens, reserved_cost) "
                "VALUES (?, ?, ?, ?, ?, 'open', ?, ?, ?, ?, ?, ?)",
                (key, run, question_id, self.session, now, batch, completion_cap, settings, *astuple(wanted)),
            )
            attempt_id = cursor.lastrowid
            assert attempt_id is not None, "a row was inserted"
            self._reserved[attempt_id] = (run, wanted)
            self._sums.setdefault(run, Counter()).update(_counted(wanted))
            return Begun(attempt_id)

    def answer(self, attempt_id: int, reply: StoredReply, cost_pico: int | None, *, model: str) -> None:
        """Complete an attempt with the reply that it bought; `reply.problem` says why it cannot be used, if so."""
        with self.transaction() as connection:
            self._release(attempt_id)
            updated = connection.execute(
                "UPDATE attempts SET outcome = 'answered', finished_at = ?, problem = ?, cost = ?, "
                "prompt_tokens = ?, completion_tokens = ?, cached_prompt_tokens = ?, reasoning_tokens = ?, "
                "is_estimated = ? WHERE id = ? AND outcome = 'open'",
                (self.clock(), reply.problem, cost_pico, *astuple(reply.billing)[:5], attempt_id),
            )
            if not updated.rowcount:
                return  # another process has brought the same batch's results in
            fields = (reply.key, reply.content, reply.finish_reason, reply.completion_cap, model)
            connection.execute(
                "INSERT INTO replies VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (attempt_id, *fields, reply_digest(*fields), reply.problem),
            )

    def note_problem(self, key: str, problem: str, *, is_cut: bool = False) -> None:
        """Note why a reply could not be used; one that was cut off (`is_cut`) may be bought again with a higher cap."""
        with self.transaction() as connection:
            connection.execute(
                "UPDATE attempts SET problem = ? WHERE key = ? AND outcome = 'answered' AND problem = ''",
                (problem, key),
            )
            if is_cut:
                connection.execute("UPDATE replies SET problem = ? WHERE key = ? AND problem = ''", (problem, key))

    def fail(self, attempt_id: int, outcome: Literal["unbilled", "in_doubt"], problem: str) -> None:
        """Complete an attempt that brought no reply: surely not billed, or in doubt (counted at its reservation)."""
        with self.transaction() as connection:
            self._release(attempt_id)
            connection.execute(
                "UPDATE attempts SET outcome = ?, finished_at = ?, problem = ? WHERE id = ? AND outcome = 'open'",
                (outcome, self.clock(), problem, attempt_id),
            )

    def spent(self, run: str, prices: Prices | None = None) -> Spent:
        """What counts against a run's caps, open and doubtful attempts at their reservation."""
        with self._lock, read_errors(self.path):
            return ledger_counts.spent(self._connection, run, prices or Prices())

    def totals(self, run: str | None = None, prices: Prices | None = None) -> LedgerTotals:
        """What was paid, by one run or by all; at `prices` if a row was written without a cost."""
        with self._lock, read_errors(self.path):
            return ledger_counts.totals(self._connection, prices or Prices(), run=run)

    def usage_of(self, keys: Sequence[str], prices: Prices | None = None) -> TeacherUsage:
        """What the replies to these requests cost when they were bought, failed attempts included."""
        with self._lock, read_errors(self.path):
            return ledger_counts.totals(self._connection, prices or Prices(), keys=keys).usage

    def rates(self, model: str) -> dict[str, PromptRates]:
        """What each prompt has come to with a model so far, by prompt id."""
        with self._lock, read_errors(self.path):
            return ledger_counts.rates(self._connection, model)

    def ability(self, endpoint: str, model: str, name: str) -> str | None:
        """What was learned about an endpoint's model, or None."""
        sql = "SELECT value FROM abilities WHERE endpoint = ? AND model = ? AND name = ?"
        row = self._one(sql, (endpoint, model, name))
        return None if row is None else str(row[0])

    def remember_ability(self, endpoint: str, model: str, name: str, value: str) -> None:
        """Remember what an endpoint's model can do."""
        with self.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO abilities VALUES (?, ?, ?, ?)", (endpoint, model, name, value))

    def verify(self) -> list[str]:
        """Recompute every hash; one line per thing that is wrong."""
        with self._lock, read_errors(self.path):
            return ledger_counts.verify(self._connection)

    def overruns(self, run: str) -> tuple[int, int, float]:
        """How far replies have exceeded what was reserved for them; see `counts.overruns`."""
        with self._lock, read_errors(self.path):
            return ledger_counts.overruns(self._connection, run)

    def register(self) -> None:
        """Make this session known, and show others that it is alive; before its first attempt or batch."""
        with self._lock:
            if self._held is None:
                with storage_errors(self.path):
                    held = Session(self.path, self.session)
                row = (self.session, os.getpid(), socket.gethostname(), self.clock())
                with self.transaction() as connection:
                    connection.execute("INSERT INTO sessions VALUES (?, ?, ?, ?)", row)
                self._held = held

    def _settled(self, spent: Spent, run: str) -> Spent:
        """What is spent without what this session has reserved for its open attempts: they may come to nothing."""
        own = self._sums.get(run, Counter())
        return replace(
            spent,
            prompt_tokens=spent.prompt_tokens - own["prompt"],
            completion_tokens=spent.completion_tokens - own["completion"],
            cost_pico=None if spent.cost_pico is None else spent.cost_pico - own["cost"],
        )

    def _release(self, attempt_id: int) -> None:
        run, wanted = self._reserved.pop(attempt_id, ("", None))
        if wanted is not None:
            self._sums[run].subtract(_counted(wanted))

    def _is_under_way_elsewhere(self, key: str) -> bool:
        rows = self.rows(
            "SELECT DISTINCT s.id, s.pid, s.host FROM attempts a JOIN sessions s ON s.id = a.session "
            "WHERE a.key = ? AND a.outcome = 'open' AND a.session <> ?",
            (key, self.session),
        )
        alive = [row for row in rows if is_alive(self.path, row[0])]
        for id_, pid, host in alive:
            if id_ not in self._waited_for:
                self._waited_for.add(id_)
                self.say(f"waiting for process {pid} on {host}, which has sent the same request ({self.path})")
        return bool(alive)

    def rows(self, sql: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        """Read rows."""
        with self._lock, read_errors(self.path):
            return self._connection.execute(sql, values).fetchall()

    def _one(self, sql: str, values: tuple[Any, ...]) -> tuple[Any, ...] | None:
        with self._lock, read_errors(self.path):
            row: tuple[Any, ...] | None = self._connection.execute(sql, values).fetchone()
            return row

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One transaction, alone on the ledger; undone if the block raises. One inside another is a part of it."""
        with self._lock, storage_errors(self.path):
            if self._connection.in_transaction:
                yield self._connection
                return
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise


def _counted(wanted: Reservation) -> dict[str, int]:
    return {"prompt": wanted.prompt_tokens, "completion": wanted.completion_tokens, "cost": wanted.cost_pico or 0}
