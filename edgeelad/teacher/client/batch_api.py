"""A provider's batch API (OpenAI's `/files` and `/batches`): upload, create, find, poll, download.

Gives plain values; decides nothing about money or the ledger. Each call is repeated while that is safe; creating a
batch is not, so a batch carries our id in its metadata and is looked for before it is created again.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edgeelad.errors import TeacherRefusedError, TeacherReplyError, TeacherUnavailableError
from edgeelad.teacher.client.api_error import error_message
from edgeelad.teacher.client.refusals import retry_after
from edgeelad.teacher.client.transport import HttpReply, Lost, Transport

METADATA_KEY = "edgeelad_batch"
MAX_OUTPUT_BYTES = 512 * 2**20
NUM_TRIES = 6
FIRST_WAIT_S = 2.0
FINAL_STATES = frozenset({"completed", "failed", "expired", "cancelled"})


@dataclass(frozen=True, slots=True)
class RemoteBatch:
    """A batch as the provider describes it."""

    remote_id: str
    state: str
    output_file_id: str | None
    error_file_id: str | None
    problem: str

    @property
    def is_final(self) -> bool:
        """Whether nothing more will come of it."""
        return self.state in FINAL_STATES


class BatchApi:
    """The batch API beside an endpoint whose base URL is `base`."""

    def __init__(
        self, base: str, transport: Transport, sleep: Callable[[float], None], clock: Callable[[], float]
    ) -> None:
        self._base = base
        self._transport = transport
        self._sleep = sleep
        self._clock = clock

    def upload(self, content: bytes) -> str:
        """Upload a batch's file; gives its id."""
        url = f"{self._base}/files"
        reply = self._try(lambda: self._transport.upload(url, {"purpose": "batch"}, "batch.jsonl", content))
        return str(_field(reply, "id"))

    def create(self, file_id: str, our_id: str) -> RemoteBatch:
        """Begin a batch from an uploaded file."""
        body = {
            "input_file_id": file_id,
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "metadata": {METADATA_KEY: our_id},
        }
        url = f"{self._base}/batches"
        reply = self._transport.post(body, url=url)
        if isinstance(reply, Lost) or reply.status >= 500 or reply.status == 429 or reply.problem:
            # it may have been created all the same
            self._sleep(FIRST_WAIT_S)
            found = self.find(our_id)
            if found is not None:
                return found
            reply = self._try(lambda: self._transport.post(body, url=url), num_tries=1)
        return _batch(_object(reply))

    def find(self, our_id: str) -> RemoteBatch | None:
        """The batch that carries our id, if the provider has it."""
        url = f"{self._base}/batches?limit=100"
        while True:
            page = _object(self._try(functools.partial(self._transport.get, url)))
            batches = [item for item in page.get("data") or [] if isinstance(item, dict)]
            for item in batches:
                if (item.get("metadata") or {}).get(METADATA_KEY) == our_id:
                    return _batch(item)
            if not page.get("has_more") or not batches:
                return None
            url = f"{self._base}/batches?limit=100&after={batches[-1].get('id')}"

    def get(self, remote_id: str) -> RemoteBatch:
        """How far a batch has come."""
        return _batch(_object(self._try(lambda: self._transport.get(f"{self._base}/batches/{remote_id}"))))

    def download(self, file_id: str) -> Iterator[dict[str, Any]]:
        """The lines of a result file; a line that is no JSON object is an error, for a reply could be lost in it."""
        url = f"{self._base}/files/{file_id}/content"
        reply = self._try(lambda: self._transport.get(url, MAX_OUTPUT_BYTES))
        for number, line in enumerate(reply.body.splitlines(), start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                raise TeacherReplyError(f"{url}: line {number} of the batch's results is no JSON object")
            yield row

    def _try(self, send: Callable[[], HttpReply | Lost], num_tries: int = NUM_TRIES) -> HttpReply:
        reason = ""
        for number in range(num_tries):
            reply = send()
            if isinstance(reply, Lost):
                reason = reply.reason
                if reply.is_final:
                    raise TeacherRefusedError(f"{self._base}: {reason}")
                wait_s = None
            elif reply.status == 200 and not reply.problem:
                return reply
            else:
                reason = reply.problem or f"status {reply.status}: {error_message(reply.body)}"
                if reply.status < 500 and reply.status not in (200, 408, 409, 429):
                    raise TeacherRefusedError(f"{self._base}: the batch API refused: {reason}")
                wait_s = retry_after(reply.headers, self._clock())
            if number + 1 < num_tries:
                self._sleep(FIRST_WAIT_S * 2**number if wait_s is None else wait_s)
        raise TeacherUnavailableError(f"{self._base}: the batch API does not answer: {reason}; try again later")


def _object(reply: HttpReply | Lost) -> dict[str, Any]:
    assert isinstance(reply, HttpReply)
    try:
        data = json.loads(reply.body)
    except (ValueError, RecursionError):
        data = None
    if reply.status != 200 or not isinstance(data, dict):
        raise TeacherRefusedError(f"the batch API refused: status {reply.status}: {error_message(reply.body)}")
    return data


def _field(reply: HttpReply, name: str) -> Any:
    data = _object(reply)
    if not data.get(name):
        raise TeacherRefusedError(f"the batch API's answer has no field {name}: is it compatible with OpenAI's?")
    return data[name]


def _batch(data: Mapping[str, Any]) -> RemoteBatch:
    if not data.get("id") or not data.get("status"):
        raise TeacherRefusedError("the batch API's answer has no id and status: is it compatible with OpenAI's?")
    errors = (data.get("errors") or {}).get("data") or []
    problem = "; ".join(str(error.get("message")) for error in errors if isinstance(error, dict))
    return RemoteBatch(
        str(data["id"]), str(data["status"]), data.get("output_file_id"), data.get("error_file_id"), problem
    )
