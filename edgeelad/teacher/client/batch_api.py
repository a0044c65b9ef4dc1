"""A provider's batch API (OpenAI's `/files` and `/batches`): upload, create, find, poll, download.

Gives plain values; decides nothing about money or the ledger. Each call is repeated while that is safe. Creating a
batch is not: `create` says if it does not know whether a batch was created, and `find` looks for it.
"""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Callable
from typing import Any

from edgeelad.errors import TeacherRefusedError, TeacherUnavailableError
from edgeelad.teacher.client.api_error import error_message, read_error
from edgeelad.teacher.client.batch_remote import (
    METADATA_KEY,
    RemoteBatch,
    is_ours,
    read_batch,
    read_id,
    read_list,
    says_full,
    says_large,
)
from edgeelad.teacher.client.patience import check_wait
from edgeelad.teacher.client.refusals import retry_after
from edgeelad.teacher.client.transport import HttpReply, Lost, Transport

MAX_OUTPUT_BYTES = 512 * 2**20
NUM_TRIES = 6
FIRST_WAIT_S = 2.0
# what an endpoint answers that does not know a list of batches
NO_LIST = frozenset({400, 403, 404, 405, 422, 501})
RETRIED = frozenset({200, 408, 409, 425, 429})


class TooLargeError(Exception):
    """The provider does not take so large a batch, now (`is_full`: others are in its queue) or ever.

    Never leaves the package: `BatchClient` splits the batch, and waits.
    """

    def __init__(self, message: str, is_full: bool) -> None:
        super().__init__(message)
        self.is_full = is_full


class NoListError(Exception):
    """The provider cannot list its batches. Never leaves the package: `BatchClient` handles it."""


class BatchApi:
    """The batch API beside a chat endpoint.

    Args:
        endpoint: The chat endpoint's URL. A query (Azure's `api-version`) is kept behind every path.
        transport: What sends.
        sleep: Waits.
        clock: The time of day, for a Retry-After that is a date.
        poll_s: Minimum seconds between two requests for one batch's state.
        max_retry_s: Maximum seconds that the provider may ask to wait.

    Attributes:
        target: The path that each line of a batch names.
    """

    def __init__(
        self,
        endpoint: str,
        transport: Transport,
        sleep: Callable[[float], None],
        clock: Callable[[], float],
        poll_s: float,
        max_retry_s: float,
    ) -> None:
        parts = urllib.parse.urlsplit(endpoint)
        path = parts.path.removesuffix("/chat/completions")
        # Azure's batches are beside its deployments, not in one
        path, _, deployment = path.partition("/deployments/")
        self.target = "/chat/completions" if deployment else "/v1/chat/completions"
        self._parts = parts._replace(path=path)
        self._transport = transport
        self._sleep = sleep
        self._clock = clock
        self._poll_s = poll_s
        self._max_retry_s = max_retry_s

    def upload(self, content: bytes) -> str:
        """Upload a batch's file; gives its id.

        Raises:
            TooLargeError: The provider does not take so large a file.
        """
        url = self._url("/files")
        return read_id(_json(self._try(lambda: self._transport.upload(url, {"purpose": "batch"}, "b.jsonl", content))))

    def create(self, file_id: str, our_id: str) -> RemoteBatch | None:
        """Begin a batch from an uploaded file; None if it is unknown whether that has happened.

        Raises:
            TooLargeError: The provider's queue has no room for it, or never would have.
            TeacherRefusedError, TeacherUnavailableError: It was not begun.
        """
        body = {
            "input_file_id": file_id,
            "endpoint": self.target,
            "completion_window": "24h",
            "metadata": {METADATA_KEY: our_id},
        }
        for number in range(NUM_TRIES):
            reply = self._transport.post(body, url=self._url("/batches"))
            if isinstance(reply, Lost):
                if reply.was_sent:
                    return None
                reason, told = reply.reason, None
            elif reply.status < 400 or reply.problem:
                return _batch_or_none(reply)
            elif reply.status >= 500 or reply.status == 408:
                return None
            else:
                self._check_size(reply)
                reason, told = f"status {reply.status}: {error_message(reply.body)}", None
                if reply.status != 429:
                    raise TeacherRefusedError(f"{self} refused: {reason}")
                told = self._told(reply, reason)
            if number + 1 < NUM_TRIES:
                self._sleep(max(FIRST_WAIT_S * 2**number, told or 0.0))
        raise TeacherUnavailableError(f"{self} refuses the batch: {reason}; nothing was submitted, resume later")

    def find(self, our_id: str, file_id: str) -> RemoteBatch | None:
        """The batch that carries our id or was made from our file, if the provider has it.

        Raises:
            NoListError: The provider has no list of batches.
        """
        query = {"limit": "100"}
        while True:
            url = self._url("/batches", **query)
            reply = self._try(lambda url=url: self._transport.get(url), accepted=NO_LIST)  # type: ignore[misc]
            if reply.status in NO_LIST:
                raise NoListError
            page = _json(reply)
            batches = read_list(page)
            for item in batches:
                if is_ours(item, our_id, file_id):
                    return read_batch(item)
            last = batches[-1].get("id") if batches else None
            if not isinstance(page, dict) or not page.get("has_more") or not last:
                return None
            query["after"] = str(last)

    def get(self, remote_id: str) -> RemoteBatch:
        """How far a batch has come."""
        url = self._url(f"/batches/{urllib.parse.quote(remote_id, safe='')}")
        return read_batch(_json(self._try(lambda: self._transport.get(url), min_wait_s=self._poll_s)))

    def download(self, file_id: str) -> list[dict[str, Any]] | None:
        """The lines of a result file that can be read; None if the file is not there yet."""
        url = self._url(f"/files/{urllib.parse.quote(file_id, safe='')}/content")
        reply = self._try(
            lambda: self._transport.get(url, MAX_OUTPUT_BYTES), min_wait_s=self._poll_s, accepted=frozenset({404})
        )
        return None if reply.status == 404 else _lines(reply.body)

    def __str__(self) -> str:
        return f"the batch API at {self._url('')}"

    def _url(self, path: str, **query: str) -> str:
        """A path beside the endpoint, with the endpoint's query and more."""
        joined = "&".join(part for part in (self._parts.query, urllib.parse.urlencode(query)) if part)
        return urllib.parse.urlunsplit(self._parts._replace(path=self._parts.path + path, query=joined, fragment=""))

    def _try(
        self,
        send: Callable[[], HttpReply | Lost],
        *,
        min_wait_s: float = 0.0,
        accepted: frozenset[int] = frozenset(),
    ) -> HttpReply:
        reason = ""
        for number in range(NUM_TRIES):
            reply = send()
            told = None
            if isinstance(reply, Lost):
                reason = reply.reason
                if reply.is_final:
                    raise TeacherRefusedError(f"{self}: {reason}")
            elif not reply.problem and (200 <= reply.status < 300 or reply.status in accepted):
                return reply
            else:
                reason = reply.problem or f"status {reply.status}: {error_message(reply.body)}"
                if reply.status < 500 and reply.status not in RETRIED:
                    self._check_size(reply)
                    raise TeacherRefusedError(f"{self} refused: {reason}")
                told = self._told(reply, reason)
            if number + 1 < NUM_TRIES:
                self._sleep(max(min_wait_s, FIRST_WAIT_S * 2**number, told or 0.0))
        raise TeacherUnavailableError(f"{self} does not answer: {reason}; everything is kept, resume later")

    def _told(self, reply: HttpReply, reason: str) -> float | None:
        """Seconds that a refusal asks to wait, in a header or in its body.

        Raises:
            TeacherUnavailableError: It asks to wait longer than is allowed.
        """
        now = self._clock()
        told = retry_after(reply.headers, now) or read_error(reply.body).retry_delay_s
        check_wait(str(self), told, self._max_retry_s, now, reason)
        return told

    def _check_size(self, reply: HttpReply) -> None:
        text = error_message(reply.body)
        if says_full(text):
            raise TooLargeError(text, is_full=True)
        if reply.status == 413 or (reply.status in (400, 422) and says_large(text)):
            raise TooLargeError(f"status {reply.status}: {text}", is_full=False)


def _json(reply: HttpReply) -> Any:
    try:
        return json.loads(reply.body)
    except (ValueError, RecursionError):
        raise TeacherRefusedError(f"the batch API's answer is not JSON: {error_message(reply.body)}") from None


def _batch_or_none(reply: HttpReply) -> RemoteBatch | None:
    try:
        return read_batch(_json(reply))
    except TeacherRefusedError:
        return None  # taken, by all appearances: it has to be looked for


def _lines(body: bytes) -> list[dict[str, Any]]:
    rows = []
    for line in body.split(b"\n"):
        try:
            row = json.loads(line) if line.strip() else None
        except (ValueError, RecursionError):
            row = None  # the attempt that it was about is left without a result, and in doubt
        if isinstance(row, dict):
            rows.append(row)
    return rows
