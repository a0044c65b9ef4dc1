"""What an HTTP answer means: a reply, a reason to try again, or a refusal.

Pure functions from what the transport gives to records; no waiting, no money, no files. Which outcomes are billed is
said here: a refusal or an error status is not, an answer that broke off may be.
"""

from __future__ import annotations

import email.utils
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from edgeelad.teacher.client.message import excerpt, read_choice
from edgeelad.teacher.client.transport import HttpReply, Lost
from edgeelad.teacher.client.usage import read_usage
from edgeelad.teacher.ledger.exchange import Billing
from edgeelad.teacher.prompts.messages import clean_text

RETRIED_STATUSES = frozenset({408, 409, 425, 429})
# of these, 400 and 413 may be about one request only, or about a feature; see _refusal
REQUEST_STATUSES = frozenset({400, 413, 422})
QUOTA_WORDS = ("insufficient_quota", "exceeded your current quota", "billing", "insufficient credit", "out of credits")
# error codes and phrases that are about this one request, not about all
REQUEST_WORDS = (
    "context_length",
    "maximum context",
    "context length",
    "content_policy",
    "content_filter",
    "content management policy",
    "string_above_max_length",
    "too long",
    "safety",
)
STRUCTURE_WORDS = (
    "response_format",
    "json_schema",
    "json_object",
    "structured output",
    "guided_json",
    "guided decoding",
)


@dataclass(frozen=True, slots=True)
class Answered:
    """A reply came, and is billed. `problem` says why its text cannot be used; `billing` None = it does not tell."""

    content: str
    finish_reason: str
    problem: str
    billing: Billing | None
    model: str


@dataclass(frozen=True, slots=True)
class Again:
    """Nothing usable came; the same request may be sent again, after `retry_after_s` where the server said so.

    `outcome` says whether it could have been billed; `is_throttle` whether fewer requests should go out.
    """

    reason: str
    outcome: Literal["unbilled", "in_doubt"]
    retry_after_s: float | None = None
    is_throttle: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """Final. `is_about_request`: only this request is refused; else no request will fare better.

    `is_unclear`: the endpoint finds fault with the request's form and does not say whose it is. If it takes others, it
    is this one's.
    """

    reason: str
    is_about_request: bool = False
    is_unclear: bool = False


@dataclass(frozen=True, slots=True)
class Unsupported:
    """The endpoint does not know a feature of the request: it should be sent again without."""

    feature: Literal["structured", "temperature"]
    reason: str


Outcome = Answered | Again | Refused | Unsupported


def classify(reply: HttpReply | Lost, now: float) -> Outcome:
    """Say what came of one attempt.

    Args:
        reply: What the transport gave.
        now: The time of day (seconds since the epoch), for a Retry-After that is a date.
    """
    if isinstance(reply, Lost):
        if reply.is_final:
            return Refused(reply.reason)
        return Again(reply.reason, "in_doubt" if reply.was_sent else "unbilled")
    if reply.status == 200:
        return _read_reply(reply, now)
    return _read_status(reply.status, reply, now)


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds to wait as the header Retry-After says, in either of its forms; None where it says nothing.

    >>> retry_after({"retry-after": "20"}, 0.0), retry_after({}, 0.0)
    (20.0, None)
    """
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - now
        except (TypeError, ValueError, OverflowError):
            return None
    # nan fails both comparisons
    return max(0.0, seconds) if seconds < float("inf") else None


def _read_reply(reply: HttpReply, now: float) -> Outcome:
    if reply.problem:
        return Again(reply.problem, "in_doubt")
    try:
        data = json.loads(reply.body)
    except (ValueError, RecursionError):
        what = "an empty body" if not reply.body.strip() else f"no JSON: {excerpt(reply.body)}"
        return Again(f"status 200 with {what}", "in_doubt")
    if not isinstance(data, dict):
        return Again(f"status 200 with JSON that is no object: {excerpt(reply.body)}", "in_doubt")
    error = data.get("error")
    if error:
        # some gateways wrap an upstream's error in a 200
        code = error.get("code") if isinstance(error, dict) else None
        return _read_status(code if isinstance(code, int) and 400 <= code < 600 else 500, reply, now)
    billing = read_usage(data, reply.headers)
    model = data.get("model")
    content, finish_reason, problem = read_choice(data, billing)
    return Answered(content, finish_reason, problem, billing, clean_text(model) if isinstance(model, str) else "")


def _read_status(status: int, reply: HttpReply, now: float) -> Outcome:
    text = reply.body.decode("utf-8", "replace")
    lowered = text.lower()
    reason = f"status {status}: {error_message(reply.body)}"
    if status == 429 and any(word in lowered for word in QUOTA_WORDS):
        return Refused(f"{reason}; the quota of this key is used up")
    if status in RETRIED_STATUSES or status >= 500:
        return Again(reason, "unbilled", retry_after(reply.headers, now), is_throttle=status in (429, 503, 529))
    if 300 <= status < 400:
        return Refused(f"{reason}; redirected to another place, which is not followed; set teacher.url to it")
    return _refusal(status, lowered, reason)


def _refusal(status: int, lowered: str, reason: str) -> Outcome:
    if status in REQUEST_STATUSES:
        if any(word in lowered for word in STRUCTURE_WORDS):
            return Unsupported("structured", reason)
        if "temperature" in lowered and ("unsupported" in lowered or "not support" in lowered):
            return Unsupported("temperature", reason)
        if "max_completion_tokens" in lowered and "max_tokens" in lowered:
            return Refused(f'{reason}; set teacher.token_parameter = "max_completion_tokens"')
        if status == 413 or any(word in lowered for word in REQUEST_WORDS):
            return Refused(reason, is_about_request=True)
    hints = {
        401: "check the key in the variable that teacher.api_key_env names",
        402: "the account has no money left",
        403: "the key has no permission for this",
        404: "check teacher.url and teacher.model",
    }
    return Refused(f"{reason}; {hints[status]}" if status in hints else reason, is_unclear=status in REQUEST_STATUSES)


def error_message(body: bytes) -> str:
    """What an error's body says, on one printable line."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return excerpt(body)
    error = data.get("error", data) if isinstance(data, dict) else data
    if isinstance(error, dict):
        message, code = error.get("message"), error.get("code")
        parts = [part for part in (message, code) if isinstance(part, str) and part]
        if parts:
            return excerpt(" / ".join(parts).encode("utf-8", "replace"))
    return excerpt(body)
