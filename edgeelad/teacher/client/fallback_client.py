"""Buy from a second endpoint once the first is down.

The first that is unavailable, after all its retries, is left alone for the rest of the session. Every reply is kept
under the endpoint and model that gave it, at that one's price; a reply that either gave before is never bought again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

from edgeelad.errors import TeacherUnavailableError
from edgeelad.teacher.client.chat_client import ChatClient
from edgeelad.teacher.ledger.exchange import StoredReply, TeacherRequest


class FallbackClient:
    """Two clients of one ledger and run; thread-safe.

    Attributes:
        endpoint: The first client's.
        accounts: The first client's.
    """

    def __init__(self, first: ChatClient, second: ChatClient, say: Callable[[str], None]) -> None:
        self.endpoint = first.endpoint
        self.accounts = first.accounts
        self._first = first
        self._second = second
        self._say = say
        self._lock = threading.Lock()
        self._is_interrupted = False
        self._is_down = False

    def close(self) -> None:
        """Close all connections."""
        self._first.close()
        self._second.close()

    def interrupt(self) -> None:
        """Send no further request."""
        self._is_interrupted = True
        self._first.interrupt()
        self._second.interrupt()

    def complete(self, request: TeacherRequest, question_id: str, completion_cap: int) -> StoredReply:
        """The reply to a request; see `ChatClient.complete`. Its key tells which endpoint gave it."""
        endpoint = self._second.endpoint
        other = replace(request, endpoint=endpoint.url, model=endpoint.model)
        if self._first.accounts.find(request.key, completion_cap) is None:
            found = self._second.accounts.find(other.key, completion_cap)
            if found is not None:
                return found
        try:
            return self._first.complete(request, question_id, completion_cap)
        except TeacherUnavailableError as error:
            if self._is_interrupted:
                raise
            self._leave_first(error)
            return self._second.complete(other, question_id, completion_cap)

    def _leave_first(self, error: TeacherUnavailableError) -> None:
        with self._lock:
            is_new, self._is_down = not self._is_down, True
        if is_new:
            self._say(f"{error}; from here on {self._second.endpoint} is asked (teacher.fallback_url)")
