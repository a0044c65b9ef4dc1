"""The ledger's pages on batches: which were begun, how far each has come, which attempts it holds.

A batch's states: new (its rows are written), uploaded (the provider has its file), submitting (the request that begins
it may have been sent), submitted (`remote_id` names it at the provider), done. Every change is committed before the
next step is taken.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import Any

from edgeelad.teacher.ledger.budget import Reservation
from edgeelad.teacher.ledger.exchange import TeacherRequest, content_key
from edgeelad.teacher.ledger.ledger import Ledger
from edgeelad.teacher.ledger.schema import damaged
from edgeelad.teacher.ledger.sessions import is_alive
from edgeelad.teacher.prompts.messages import Message


@dataclass(frozen=True, slots=True)
class OpenBatch:
    """A batch that is not done."""

    id: str
    state: str
    file_id: str | None
    remote_id: str | None
    is_own: bool = True  # of this run


@dataclass(frozen=True, slots=True)
class OpenAttempt:
    """An attempt of a batch that has no outcome yet."""

    attempt_id: int
    request: TeacherRequest
    completion_cap: int
    wanted: Reservation

    @property
    def custom_id(self) -> str:
        """Its name in the batch's file."""
        return f"{self.request.key[-16:]}-{self.attempt_id}"


class BatchBook:
    """The batches of one run at one endpoint."""

    def __init__(self, ledger: Ledger, run: str, endpoint: str) -> None:
        self._ledger = ledger
        self._run = run
        self._endpoint = endpoint

    def create(self) -> str:
        """Write a new batch, and give its id."""
        batch_id = uuid.uuid4().hex
        self._ledger.register()
        with self._ledger.transaction() as connection:
            connection.execute(
                "INSERT INTO batches (id, run, endpoint, session, created_at, state) VALUES (?, ?, ?, ?, ?, 'new')",
                (batch_id, self._run, self._endpoint, self._ledger.session, self._ledger.clock()),
            )
        return batch_id

    def update(self, batch_id: str, state: str, *, file_id: str | None = None, remote_id: str | None = None) -> None:
        """Write how far a batch has come."""
        with self._ledger.transaction() as connection:
            connection.execute(
                "UPDATE batches SET state = ?, file_id = COALESCE(?, file_id), remote_id = COALESCE(?, remote_id) "
                "WHERE id = ?",
                (state, file_id, remote_id, batch_id),
            )

    def withdraw(self, batch_id: str) -> None:
        """Write that the provider has a batch's file, but no batch of it."""
        with self._ledger.transaction() as connection:
            connection.execute("UPDATE batches SET state = 'uploaded', remote_id = NULL WHERE id = ?", (batch_id,))

    def open_batches(self) -> list[OpenBatch]:
        """The run's batches that are not done, and those that other runs have submitted and left; oldest first."""
        sql = (
            "SELECT id, state, file_id, remote_id, run, session FROM batches WHERE endpoint = ? AND state <> 'done' "
            "AND (run = ? OR remote_id IS NOT NULL) ORDER BY created_at, id"
        )
        return [
            OpenBatch(id_, state, file_id, remote_id, run == self._run)
            for id_, state, file_id, remote_id, run, session in self._ledger.rows(sql, (self._endpoint, self._run))
            if run == self._run or not is_alive(self._ledger.path, session)
        ]

    def open_attempts(self, batch_id: str) -> list[OpenAttempt]:
        """A batch's attempts that have no outcome yet, in the order in which they were written."""
        sql = (
            "SELECT a.id, r.key, r.canonical, a.completion_cap, a.reserved_prompt_tokens, "
            "a.reserved_completion_tokens, a.reserved_cost "
            "FROM attempts a JOIN requests r ON r.key = a.key WHERE a.batch = ? AND a.outcome = 'open' ORDER BY a.id"
        )
        opened = []
        for attempt_id, key, canonical, cap, *wanted in self._ledger.rows(sql, (batch_id,)):
            if content_key(canonical) != key:
                raise damaged(self._ledger.path, f"the request {key} was altered")
            opened.append(OpenAttempt(attempt_id, _request(json.loads(canonical)), cap, Reservation(*wanted)))
        return opened


def _request(fields: dict[str, Any]) -> TeacherRequest:
    """A request from its canonical form."""
    messages = tuple(Message(message["role"], message["content"]) for message in fields["messages"])
    extra_body = json.dumps(fields["extra_body"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return TeacherRequest(**{**fields, "messages": messages, "extra_body": extra_body})
