"""Read what a provider says of a batch: its description in any envelope, its state by any name, a line of its results.

Pure functions from JSON to records; sends nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from edgeelad.errors import TeacherRefusedError
from edgeelad.teacher.client.transport import HttpReply

METADATA_KEY = "edgeelad_batch"
State = Literal["active", "completed", "failed", "expired", "canceled", "unknown"]

_NAMES: dict[State, tuple[str, ...]] = {
    "active": (
        "validating", "in_progress", "inprogress", "processing", "running", "started", "pending", "queued", "scheduled",
        "created", "submitted", "new", "not_started", "finalizing", "finalising", "cancelling", "canceling",
        "cancellation_requested", "paused",
    ),
    "completed": ("completed", "complete", "succeeded", "success", "successful", "finished", "done", "ended"),
    "failed": ("failed", "failure", "error", "errored", "invalid", "rejected"),
    "expired": ("expired", "timed_out", "timeout", "timeout_exceeded"),
    "canceled": ("cancelled", "canceled", "aborted", "stopped"),
}  # fmt: skip
_STATES = {name: state for state, names in _NAMES.items() for name in names}
_PREFIX = re.compile(r"^(?:batch|job)_(?:state|status)_")
_OUTPUT = ("output_file_id", "output_file", "results_file_id", "result_file_id")
_ERRORS = ("error_file_id", "error_file")
# a queue that is full now, and a batch that is too large whenever it comes
_FULL = re.compile(
    r"token_limit_exceeded|enqueued token|queued token|queue is full|too many (?:batches|jobs)|in[_ ]flight"
)
_LARGE = re.compile(
    r"too large|file size|too many (?:lines|rows)|"
    r"(?:exceed|maximum|limit).{0,60}(?:requests|lines|rows|size|bytes|\bmb\b)"
)


@dataclass(frozen=True, slots=True)
class RemoteBatch:
    """A batch as its provider describes it.

    Attributes:
        remote_id: The provider's name for it.
        state: What it is doing; "unknown" if the provider's word for that is not known here.
        told: The provider's word.
        output_file_id: The file with the replies, if it is there.
        error_file_id: The file with the failures, if it is there.
        num_completed: Lines that have a reply; None if the provider does not count.
        num_failed: Lines that failed.
        problem: What went wrong, in the provider's words.
    """

    remote_id: str
    state: State
    told: str
    output_file_id: str | None = None
    error_file_id: str | None = None
    num_completed: int | None = None
    num_failed: int | None = None
    problem: str = ""

    @property
    def is_final(self) -> bool:
        """Whether no further reply will come."""
        return self.state not in ("active", "unknown")

    @property
    def owes_results(self) -> bool:
        """Whether it has ended, but names no file with the replies that it must have."""
        if self.output_file_id or self.error_file_id or not self.is_final or self.state == "failed":
            return False
        return bool(self.num_completed) or (self.state == "completed" and self.num_completed is None)


def read_batch(data: Any) -> RemoteBatch:
    """Read a batch's description, also if it is in an envelope: `{"job": {…}}`.

    Raises:
        TeacherRefusedError: It is none.
    """
    found = _inside(data, ("id", "batch_id", "job_id"), ("status", "state"))
    if found is None:
        raise TeacherRefusedError("the batch API's answer has no id and status: is it compatible with OpenAI's?")
    told = str(_first(found, ("status", "state")))
    counts = found.get("request_counts")
    counts = counts if isinstance(counts, dict) else {}
    return RemoteBatch(
        remote_id=str(_first(found, ("id", "batch_id", "job_id"))),
        state=_STATES.get(_PREFIX.sub("", re.sub(r"[\s-]+", "_", told.strip().lower())), "unknown"),
        told=told,
        output_file_id=_text(_first(found, _OUTPUT)),
        error_file_id=_text(_first(found, _ERRORS)),
        num_completed=_count(_first(counts, ("completed", "succeeded"))),
        num_failed=_count(_first(counts, ("failed", "errored"))),
        problem="; ".join(_problems(found.get("errors"), found.get("error"))),
    )


def read_list(data: Any) -> list[dict[str, Any]]:
    """The batches of a list, which stands alone or under a name."""
    if isinstance(data, dict):
        data = next((data[name] for name in ("data", "batches", "jobs", "items", "results") if name in data), None)
    items = data if isinstance(data, list) else []
    found = (_inside(item, ("id", "batch_id", "job_id"), ("status", "state")) for item in items)
    return [item for item in found if item is not None]


def is_ours(item: Mapping[str, Any], our_id: str, file_id: str) -> bool:
    """Whether a batch of a list is the one with our id, or was made from our file: not all providers keep metadata."""
    metadata = item.get("metadata")
    if isinstance(metadata, dict) and metadata.get(METADATA_KEY) == our_id:
        return True
    return bool(_first(item, ("input_file_id", "input_file", "file_id")) == file_id)


def read_id(data: Any) -> str:
    """The id of an uploaded file.

    Raises:
        TeacherRefusedError: There is none.
    """
    found = _inside(data, ("id", "file_id"), ())
    if found is None:
        raise TeacherRefusedError("the batch API's answer has no field id: is it compatible with OpenAI's?")
    return str(_first(found, ("id", "file_id")))


def says_full(text: str) -> bool:
    """Whether a refusal is because of what else is in the provider's queue."""
    return _FULL.search(text.lower()) is not None


def says_large(text: str) -> bool:
    """Whether a refusal is because of a batch's size."""
    return _LARGE.search(text.lower()) is not None


def reply_of(row: Mapping[str, Any]) -> HttpReply:
    """A line of a result file as the HTTP answer that it stands for."""
    response = row.get("response")
    if isinstance(response, dict):
        body = response.get("body", response)
        body = body if isinstance(body, str) else json.dumps(body)
        status = _status(response.get("status_code", response.get("status")))
        if status is None and "choices" in response:
            status = 200
        if status is not None:
            return HttpReply(status, {}, body.encode())
    error = row.get("error")
    code = _status(error.get("code")) if isinstance(error, dict) else None
    return HttpReply(code or 500, {}, json.dumps({"error": error}).encode())


def _inside(data: Any, ids: tuple[str, ...], states: tuple[str, ...], depth: int = 0) -> dict[str, Any] | None:
    """The object that has an id and, if asked for, a state: the data itself, or what it wraps."""
    if not isinstance(data, dict) or depth > 2:
        return None
    if _first(data, ids) and (not states or _first(data, states)):
        return data
    inner = (_inside(value, ids, states, depth + 1) for value in data.values())
    return next((item for item in inner if item is not None), None)


def _problems(*values: Any) -> list[str]:
    """The messages and codes of errors in any form."""
    found = []
    for value in values:
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, list):
            found += _problems(*value)
        elif isinstance(value, dict):
            parts = [value.get(name) for name in ("message", "code")]
            texts = [part for part in parts if isinstance(part, str) and part]
            found += [" / ".join(texts)] if texts else _problems(value.get("data"))
    return [" ".join(text.split()) for text in found if text]


def _first(data: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((data[name] for name in names if data.get(name)), None)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _status(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 100 <= value < 600 else None
