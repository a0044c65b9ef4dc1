"""The ledger: one SQLite file that holds every exchange with a teacher, so that nothing is paid for twice.

A row for every HTTP attempt is committed (WAL, full synchronous) before it is sent and completed after it. A process
that dies in between leaves the row open: it is *in doubt* and counts at what was reserved for it. Several threads,
processes and runs may share a ledger; caps are checked in the transaction that writes the attempt. Keeps neither keys
to the API nor headers. Times come from the clock that it is given.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Literal

from edgeelad.errors import BudgetError, RunError, StorageError
from edgeelad.records import TeacherUsage
from edgeelad.teacher.ledger import counts as ledger_counts
from edgeelad.teacher.ledger.budget import Caps, Prices, Reservation, Spent, check
from edgeelad.teacher.ledger.counts import LedgerTotals, PromptRates
from edgeelad.teacher.ledger.exchange import Billing, StoredReply, TeacherRequest, content_key, content_sha256
from edgeelad.teacher.ledger.schema import migrate

BUSY_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Begun:
    """What `Ledger.begin` came to: an attempt to send, or the reply that is there already, or neither.

    Neither means: wait, then ask again. Another live process has the same request under way, or what this session has
    under way holds so much of the budget that this attempt has to wait for what they really cost.
    """

    attempt_id: int | None = None
    reply: StoredReply | None = None


class Ledger:
    """An open ledger; close it, or use it as a context manager."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        """Open or create a ledger.

        Raises:
            RunError: The file is no ledger, damaged, or from a newer edgeelad.
            StorageError: It cannot be written.
        """
        self.path = path
        self.clock = clock
        self._lock = threading.RLock()
        self.session = uuid.uuid4().hex
        with _storage_errors(path):
            self._connection = sqlite3.connect(
                path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
        try:
            with _storage_errors(path):
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.execute("PRAGMA synchronous = FULL")
                self._connection.execute("PRAGMA foreign_keys = ON")
                migrate(self._connection, path)
            with self.transaction() as connection:
                connection.execute(
                    "INSERT INTO sessions VALUES (?, ?, ?, ?)",
                    (self.session, os.getpid(), socket.gethostname(), clock()),
                )
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def find(self, key: str) -> StoredReply | None:
        """The reply to a request, if it was ever bought: a usable one before an unusable one, else the latest."""
        row = self._one(
            "SELECT r.key, r.content, r.finish_reason, r.problem, r.completion_cap, a.prompt_tokens, "
            "a.completion_tokens, a.cached_prompt_tokens, a.reasoning_tokens, a.is_estimated "
            "FROM replies r JOIN attempts a ON a.id = r.attempt_id WHERE r.key = ? "
            "ORDER BY r.problem = '' DESC, r.attempt_id DESC LIMIT 1",
            (key,),
        )
        if row is None:
            return None
        key, content, finish_reason, problem, completion_cap, *billed, is_estimated = row
        prompt, completion, cached, reasoning = billed
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
            batch: The batch that it is sent in, if any.
            completion_cap: Its completion cap: an unusable reply bought under a lower one does not stand in the way.

        Raises:
            BudgetError: A cap could be passed, whatever the attempts under way may cost.
            StorageError: The row cannot be written, so nothing may be sent.
        """
        canonical = request.canonical()
        key = content_key(canonical)
        with self.transaction() as connection:
            found = self.find(key)
            if found is not None and (not found.problem or found.completion_cap >= completion_cap):
                return Begun(reply=found)
            if self._is_under_way_elsewhere(key):
                return Begun()
            known = self._one("SELECT 1 FROM run_questions WHERE run = ? AND question_id = ?", (run, question_id))
            try:
                check(ledger_counts.spent(connection, run, prices), wanted, caps, is_new_question=known is None)
            except BudgetError:
                settled = ledger_counts.spent(connection, run, prices, without_open_of=self.session)
                check(settled, wanted, caps, is_new_question=known is None)
                return Begun()
            now = self.clock()
            connection.execute("INSERT OR IGNORE INTO requests VALUES (?, ?, ?)", (key, canonical, now))
            cursor = connection.execute(
                "INSERT INTO attempts (key, run, question_id, session, started_at, outcome, batch, "
                "reserved_prompt_tokens, reserved_completion_tokens, reserved_cost) "
                "VALUES (?, ?, ?, ?, ?, 'open', ?, ?, ?, ?)",
                (key, run, question_id, self.session, now, batch, *astuple(wanted)),
            )
            return Begun(attempt_id=cursor.lastrowid)

    def answer(self, attempt_id: int, reply: StoredReply, cost_pico: int | None, *, model: str, status: int) -> None:
        """Complete an attempt with the reply that it bought; `reply.problem` says why it cannot be used, if so."""
        with self.transaction() as connection:
            updated = connection.execute(
                "UPDATE attempts SET outcome = 'answered', finished_at = ?, http_status = ?, problem = ?, cost = ?, "
                "prompt_tokens = ?, completion_tokens = ?, cached_prompt_tokens = ?, reasoning_tokens = ?, "
                "is_estimated = ? WHERE id = ? AND outcome = 'open'",
                (self.clock(), status, reply.problem, cost_pico, *astuple(reply.billing), attempt_id),
            )
            if not updated.rowcount:
                return  # another process has brought the same batch's results in
            digest = content_sha256(reply.content)
            connection.execute(
                "INSERT INTO replies VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (attempt_id, reply.key, reply.content, digest, *astuple(reply)[2:5], model),
            )

    def note_problem(self, key: str, problem: str) -> None:
        """Note why a reply that came whole could not be used; it stays, and is read again when it is asked for."""
        with self.transaction() as connection:
            connection.execute(
                "UPDATE attempts SET problem = ? WHERE key = ? AND outcome = 'answered' AND problem = ''",
                (problem, key),
            )

    def fail(
        self, attempt_id: int, outcome: Literal["unbilled", "in_doubt"], problem: str, status: int | None = None
    ) -> None:
        """Complete an attempt that brought no reply: surely not billed, or in doubt (counted at its reservation)."""
        with self.transaction() as connection:
            connection.execute(
                "UPDATE attempts SET outcome = ?, finished_at = ?, http_status = ?, problem = ? "
                "WHERE id = ? AND outcome = 'open'",
                (outcome, self.clock(), status, problem, attempt_id),
            )

    def spent(self, run: str, prices: Prices | None = None) -> Spent:
        """What counts against a run's caps, open and doubtful attempts at their reservation."""
        with self._lock, _storage_errors(self.path):
            return ledger_counts.spent(self._connection, run, prices or Prices())

    def totals(self, run: str | None = None, prices: Prices | None = None) -> LedgerTotals:
        """What was paid, by one run or by all; at `prices` where a row was written without a cost."""
        with self._lock, _storage_errors(self.path):
            return ledger_counts.totals(self._connection, prices or Prices(), run=run)

    def usage_of(self, keys: Sequence[str], prices: Prices | None = None) -> TeacherUsage:
        """What the replies to these requests cost when they were bought, failed attempts included."""
        with self._lock, _storage_errors(self.path):
            return ledger_counts.totals(self._connection, prices or Prices(), keys=keys).usage

    def rates(self, model: str) -> dict[str, PromptRates]:
        """What each prompt has come to with a model so far, by prompt id."""
        with self._lock, _storage_errors(self.path):
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
        """Recompute every hash; one line for each thing that is wrong."""
        with self._lock, _storage_errors(self.path):
            return ledger_counts.verify(self._connection)

    def _is_under_way_elsewhere(self, key: str) -> bool:
        with self._lock:
            rows = self._connection.execute(
                "SELECT DISTINCT s.pid, s.host FROM attempts a JOIN sessions s ON s.id = a.session "
                "WHERE a.key = ? AND a.outcome = 'open' AND a.session <> ?",
                (key, self.session),
            ).fetchall()
        return any(host == socket.gethostname() and _is_alive(pid) for pid, host in rows)

    def rows(self, sql: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        """Read rows."""
        with self._lock, _storage_errors(self.path):
            return self._connection.execute(sql, values).fetchall()

    def _one(self, sql: str, values: tuple[Any, ...]) -> tuple[Any, ...] | None:
        with self._lock, _storage_errors(self.path):
            row: tuple[Any, ...] | None = self._connection.execute(sql, values).fetchone()
            return row

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One transaction, alone on the ledger; undone where the block raises."""
        with self._lock, _storage_errors(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


@contextlib.contextmanager
def _storage_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise StorageError(
            f"{path}: the ledger cannot be written or read ({error}); nothing more is sent to the teacher, and "
            "everything before is intact: make room or fix its permissions, then go on"
        ) from error
    except sqlite3.DatabaseError as error:
        raise RunError(
            f"{path}: not a ledger, or damaged ({error}); restore it, or name another file with --ledger"
        ) from error
