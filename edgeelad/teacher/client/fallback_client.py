"""Buy from a second endpoint while the first is down.

The first that is unavailable, after all its retries, is left alone for a while; then one request tries it again, and
goes to the second if that fails. Every reply is kept under the endpoint and model that gave it, at that one's price; a
reply that either gave before is never bought again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from edgeelad.errors import TeacherRefusedError, TeacherReplyError, TeacherUnavailableError
from edgeelad.teacher.client.chat_client import ChatClient
from edgeelad.teacher.ledger.exchange import StoredReply, TeacherRequest

# until the first endpoint is tried again; doubled each time that it is still down, for a trial may be billed
COOL_OFF_S, MAX_COOL_OFF_S = 300.0, 3600.0


class FallbackClient:
    """Two clients of one ledger and run; thread-safe.

    Args:
        first: The client of the endpoint that is asked if it is up.
        second: The other.
        say: Called with which of them is asked, when that changes.
        clock: Seconds, monotonic.

    Attributes:
        endpoint: The first client's.
        accounts: The first client's.
    """

    def __init__(
        self,
        first: ChatClient,
        second: ChatClient,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.endpoint = first.endpoint
        self.accounts = first.accounts
        self._first = first
        self._second = second
        self._say = say
        self._clock = clock
        self._lock = threading.Lock()
        self._is_interrupted = False
        self._retry_at: float | None = None  # while the first is down
        self._cool_off_s = COOL_OFF_S
        self._is_tried = False

    def close(self) -> None:
        """Close all connections."""
        self._first.close()
        self._second.close()

    def interrupt(self) -> None:
        """Send no further request."""
        self._is_interrupted = True
        self._first.interrupt()
        self._second.interrupt()

    def reopen(self) -> None:
        """Send requests again after an interrupt or a failure of both; the first waits for its trial if it is down."""
        with self._lock:
            self._is_interrupted = False
            if self._retry_at is None:
                self._first.reopen()
            self._second.reopen()

    def complete(self, request: TeacherRequest, question_id: str, completion_cap: int) -> StoredReply:
        """The reply to a request; see `ChatClient.complete`. Its key tells which endpoint gave it."""
        endpoint = self._second.endpoint
        other = replace(request, endpoint=endpoint.url, model=endpoint.model)
        found = self._first.accounts.find(request.key, completion_cap)
        found = found or self._second.accounts.find(other.key, completion_cap)
        if found is not None:
            return found
        turn = self._turn()
        if turn == "first":
            try:
                return self._first.complete(request, question_id, completion_cap)
            except TeacherUnavailableError as error:
                if self._is_interrupted:
                    raise
                self._leave_first(error)
        elif turn == "trial":
            reply = self._try_first(request, question_id, completion_cap)
            if reply is not None:
                return reply
        return self._second.complete(other, question_id, completion_cap)

    def _turn(self) -> Literal["first", "trial", "second"]:
        with self._lock:
            if self._retry_at is None:
                return "first"
            if self._is_tried or self._is_interrupted or self._clock() < self._retry_at:
                return "second"
            self._is_tried = True
            return "trial"

    def _leave_first(self, error: TeacherUnavailableError) -> None:
        with self._lock:
            is_new = self._retry_at is None
            if is_new:
                self._retry_at = self._clock() + self._cool_off_s
        if is_new:
            self._say(f"{error}; from here on {self._second.endpoint} is asked (teacher.fallback_url)")

    def _try_first(self, request: TeacherRequest, question_id: str, completion_cap: int) -> StoredReply | None:
        """Send one attempt to the first endpoint; None if it is still down."""
        reply = None
        try:
            self._first.reopen(max_retry_s=0.0)
            if self._is_interrupted:
                self._first.interrupt()
            reply = self._first.complete(request, question_id, completion_cap)
        except (TeacherReplyError, TeacherUnavailableError, TeacherRefusedError):
            if self._is_interrupted:
                raise
        finally:
            with self._lock:
                self._is_tried = False
                self._cool_off_s = COOL_OFF_S if reply else min(2 * self._cool_off_s, MAX_COOL_OFF_S)
                self._retry_at = None if reply else self._clock() + self._cool_off_s
                if reply:
                    self._first.reopen()
        if reply is not None:
            self._say(f"{self.endpoint} answers again, and is asked")
        return reply
