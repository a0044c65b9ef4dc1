"""Judge an error that an endpoint sent: try again, leave a feature out, set this request aside, or end the run.

A pure function from a status, a body and what was sent to a record. Structured fields (code, type, parameter, details)
decide first, words last. A code that no table here knows is an unclear refusal: the client sets the request aside, and
ends the run only if it happens again and again.
"""

from __future__ import annotations

import email.utils
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from edgeelad.teacher.client import vocabulary as words
from edgeelad.teacher.client.api_error import ApiError, error_message, read_error
from edgeelad.teacher.client.vocabulary import Feature

Suspect = Literal["network", "server", "server or request", "request"]


@dataclass(frozen=True, slots=True)
class Again:
    """Nothing usable came; the same request may be sent again, after `retry_after_s` if the server said so.

    Attributes:
        reason: What came instead.
        outcome: Whether it could have been billed.
        retry_after_s: How long the server asks to wait.
        is_throttle: Whether fewer requests should go out.
        suspect: What is at fault if it continues: the network or the account's rate limit; the server, if it is down;
            the server or this request; this request.
        is_generation: The model's own output did not have the required form: a lower level of structured output helps.
    """

    reason: str
    outcome: Literal["unbilled", "in_doubt"]
    retry_after_s: float | None = None
    is_throttle: bool = False
    suspect: Suspect = "network"
    is_generation: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """The same request will be refused again.

    Attributes:
        reason: Why, with a hint.
        is_about_request: Only this request is refused.
        is_unclear: The endpoint does not say whose fault it is. Neither of the two: no request will fare better.
    """

    reason: str
    is_about_request: bool = False
    is_unclear: bool = False


@dataclass(frozen=True, slots=True)
class Unsupported:
    """The endpoint does not know a feature of the request: it should be sent again without."""

    feature: Feature
    reason: str


RETRIED_STATUSES = frozenset({408, 409, 425, 429, 498})
THROTTLES = frozenset({429, 498, 503, 529})
# what an error of the server itself may name: a chat template or a grammar that fails
NAMED_IN_500: frozenset[Feature | None] = frozenset({"structured", "system_role"})
# words that name more features are a list of what may be sent, or repeat the request
MAX_NAMED = 2

HINTS = {
    401: "check the key in the variable that teacher.api_key_env names",
    402: "the account has no money left",
    403: "the key has no permission for this",
    404: "check teacher.model, and teacher.url: the base URL of most APIs ends in /v1",
    405: "check teacher.url: the base URL of most APIs ends in /v1",
}


def judge(
    status: int, headers: Mapping[str, str], body: bytes, now: float, sent: Mapping[str, Any] | None = None
) -> Again | Refused | Unsupported:
    """Say what an error means.

    Args:
        status: The HTTP status; 200 for an error inside a 200.
        headers: Of the answer, names in lower case.
        body: Of the answer.
        now: The time of day (seconds since the epoch), for a Retry-After that is a date.
        sent: The body that was sent; without it, every feature is taken to be in it.
    """
    error = read_error(body)
    reason = f"status {status}: {error_message(body)}"
    if status == 200:
        if not error.codes and words.NO_SUCH_PLACE.search(error.text):
            return Refused(f"{reason}; {HINTS[404]}")
        status = _status_inside(error)
    if error.codes & words.MONEY_CODES or status == 402 or words.MONEY.search(error.text):
        return Refused(f"{reason}; {HINTS[402]}")
    if error.codes & words.GENERATION_CODES:
        return Again(reason, "in_doubt", suspect="request", is_generation=True)
    if status == 413 or error.codes & words.SIZE_CODES:
        return Refused(reason, is_about_request=True)
    if status < 500 and (error.is_moderated or error.codes & words.MODERATION_CODES):
        return Refused(reason, is_about_request=True)
    if 300 <= status < 400:
        return Refused(f"{reason}; redirected to another place, which is not followed; set teacher.url to it")
    if status == 429:
        return _throttled(error, reason, retry_after(headers, now))
    if status in RETRIED_STATUSES or status >= 500:
        return _failed(status, error, reason, retry_after(headers, now), sent)
    return _refused(status, error, reason, sent)


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds to wait as the headers say; None if they say nothing, or a time that is over.

    >>> retry_after({"retry-after": "20"}, 0.0), retry_after({"retry-after": "0"}, 0.0)
    (20.0, None)
    """
    milliseconds = _number(headers.get("retry-after-ms", ""))
    delay = milliseconds / 1000 if milliseconds else _number(headers.get("retry-after", ""))
    if delay is None:
        try:
            delay = email.utils.parsedate_to_datetime(headers.get("retry-after", "")).timestamp() - now
        except (TypeError, ValueError, OverflowError):
            return None
    return delay if delay > 0 else None


def is_sent(feature: Feature, body: Mapping[str, Any]) -> bool:
    """Whether a request's body has a feature; `stream` means that it lacks it."""
    if feature == "structured":
        return "response_format" in body
    if feature == "token_parameter":
        return "max_tokens" in body or "max_completion_tokens" in body
    if feature == "system_role":
        return any(message.get("role") == "system" for message in body.get("messages", ()))
    if feature == "stream":
        return "stream" not in body
    return feature in body


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _status_inside(error: ApiError) -> int:
    """The status that the code of an error inside a 200 stands for."""
    numbers = [int(code) for code in error.codes if code.isdecimal() and len(code) == 3 and code[0] in "45"]
    named = [words.STATUS_OF_CODE[code] for code in error.codes if code in words.STATUS_OF_CODE]
    return min(numbers or named or [400])


def _throttled(error: ApiError, reason: str, told_s: float | None) -> Again | Refused:
    if words.TOO_LARGE.search(error.text):
        return Again(reason, "unbilled", suspect="request")
    if error.has_no_quota or words.NO_QUOTA.search(error.text):
        return Refused(f"{reason}; the quota of this key is 0")
    if words.DAY.search(error.text) or any(words.DAY.search(code) for code in error.codes):
        return Refused(f"{reason}; the day's quota of this key is used up: resume when it is renewed")
    return Again(reason, "unbilled", told_s or error.retry_delay_s or None, is_throttle=True)


def _failed(
    status: int, error: ApiError, reason: str, told_s: float | None, sent: Mapping[str, Any] | None
) -> Again | Refused | Unsupported:
    if status == 500:
        feature = _feature_in_words(error, sent)
        if feature in NAMED_IN_500:
            assert feature is not None
            return Unsupported(feature, reason)
        if words.SIZE.search(error.text):
            return Refused(reason, is_about_request=True)
    is_throttle = status in THROTTLES
    suspect: Suspect = "network" if status == 498 else "server or request" if status in (500, 501) else "server"
    return Again(reason, "unbilled", told_s or error.retry_delay_s or None, is_throttle, suspect)


def _refused(
    status: int, error: ApiError, reason: str, sent: Mapping[str, Any] | None
) -> Again | Refused | Unsupported:
    """A status from 400 that is not retried as such: what is at fault, by parameter first, then by words."""
    hinted = f"{reason}; {HINTS[status]}" if status in HINTS else reason
    if status == 401 or error.codes & words.KEY_CODES or words.KEY.search(error.text):
        return Refused(f"{reason}; {HINTS[401]}")
    feature = _feature_in_parameters(error, sent)
    if feature is None and status not in (404, 405):
        if words.CAP.search(error.text):
            return Refused(f"{reason}; lower teacher.max_completion_tokens", is_unclear=True)
        if words.SIZE.search(error.text) or words.MODERATION.search(error.text):
            return Refused(reason, is_about_request=True)
    feature = feature or _feature_in_words(error, sent)
    if feature is not None:
        return Unsupported(feature, reason)
    if error.codes & words.MODEL_CODES or words.MODEL.search(error.text):
        return Refused(f"{reason}; {HINTS[404]}")
    if status == 403 and (error.codes & words.PERMISSION_CODES or words.PERMISSION.search(_all_words(error))):
        return Refused(hinted)
    if status in (404, 405):
        return Refused(hinted)
    if words.TRANSIENT.search(error.text):
        return Again(reason, "unbilled", error.retry_delay_s or None, suspect="server or request")
    return Refused(hinted, is_unclear=True)


def _feature_in_parameters(error: ApiError, sent: Mapping[str, Any] | None) -> Feature | None:
    named = set(error.parameters)
    found = [feature for feature, names in words.NAMES.items() if any(names.fullmatch(name) for name in named)]
    if {"messages", "role"} <= named:
        found.append("system_role")
    return _complained_of(found, error, sent)


def _feature_in_words(error: ApiError, sent: Mapping[str, Any] | None) -> Feature | None:
    """The feature that the words name; none if they are about a parameter that is no feature."""
    named = set(error.parameters)
    if named and not (named <= {"body"} or named & {"messages", "role"}):
        return None
    found = [feature for feature, names in words.NAMES.items() if names.search(error.text)]
    if len(found) > MAX_NAMED:
        return None
    if not found and words.NO_PROVIDER.search(error.text):
        found = ["structured", "temperature"]
    return _complained_of(found, error, sent)


def _complained_of(found: list[Feature], error: ApiError, sent: Mapping[str, Any] | None) -> Feature | None:
    """The first of these that was sent and is refused as such, where another value of it would mean something else."""
    for feature in found:
        if sent is not None and not is_sent(feature, sent):
            continue
        if feature == "token_parameter" and not words.UNKNOWN.search(_all_words(error)):
            continue
        if feature == "reasoning_effort" and (error.codes & words.VALUE_CODES or "one of" in error.text):
            continue
        return feature
    return None


def _all_words(error: ApiError) -> str:
    """The words of an error, and its codes, which may be sentences."""
    return " ".join([error.text, *sorted(error.codes)])
