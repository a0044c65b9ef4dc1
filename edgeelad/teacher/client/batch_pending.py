"""A request that waits to be bought in a batch, between `BatchClient.complete` and `BatchClient.fetch`."""

from __future__ import annotations

from dataclasses import dataclass

from edgeelad.teacher.ledger.exchange import TeacherRequest


@dataclass(frozen=True, slots=True)
class Pending:
    """A request that has to be bought in a batch."""

    request: TeacherRequest
    question_id: str
    completion_cap: int


class NotYetError(Exception):
    """A reply is not there yet: collect what is pending, fetch it, and call again.

    Never leaves the package: `revision.concurrent` handles it.
    """

    def __init__(self, pending: Pending) -> None:
        super().__init__(pending.request.key)
        self.pending = pending
