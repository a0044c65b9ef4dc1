"""Say what came of one attempt: a reply, a reason to try again, a feature to leave out, or a refusal.

Pure functions from what the transport gives to records; no waiting, no money, no files. Which outcomes are billed is
decided here: a refusal or an error status is not, an answer that broke off may be. Errors are judged in `refusals`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeelad.teacher.client.api_error import error_message
from edgeelad.teacher.client.message import excerpt, read_choice
from edgeelad.teacher.client.refusals import Again, Refused, Unsupported, judge
from edgeelad.teacher.client.transport import HttpReply, Lost
from edgeelad.teacher.client.usage import Told, read_usage
from edgeelad.teacher.prompts.messages import clean_text


@dataclass(frozen=True, slots=True)
class Answered:
    """A reply came, and is billed; `told` is what it tells of its bill. `problem` says why its text cannot be used."""

    content: str
    finish_reason: str
    problem: str
    told: Told
    model: str


# in a 200 without choices: an error all the same
ERROR_KEYS = frozenset({"message", "detail", "error_msg", "error_code", "errors"})

Outcome = Answered | Again | Refused | Unsupported


def classify(reply: HttpReply | Lost, now: float, sent: Mapping[str, Any] | None = None) -> Outcome:
    """Say what came of one attempt.

    Args:
        reply: What the transport gave.
        now: The time of day (seconds since the epoch), for a Retry-After that is a date.
        sent: The body that was sent; without it, every feature is taken to be in it.
    """
    if isinstance(reply, Lost):
        if reply.is_final:
            return Refused(reply.reason)
        return _in_doubt(reply.reason) if reply.was_sent else Again(reply.reason, "unbilled")
    if reply.status != 200:
        return judge(reply.status, reply.headers, reply.body, now, sent)
    if reply.problem:
        return _in_doubt(reply.problem)
    try:
        data = json.loads(reply.body)
    except (ValueError, RecursionError):
        what = "an empty body" if not reply.body.strip() else f"no JSON: {excerpt(reply.body)}"
        return _in_doubt(f"status 200 with {what}")
    if not isinstance(data, dict):
        return _in_doubt(f"status 200 with JSON that is no object: {excerpt(reply.body)}")
    if data.get("error") or (not data.get("choices") and ERROR_KEYS & set(data)):
        return judge(200, reply.headers, reply.body, now, sent)
    broken = _error_of_choice(data)
    if broken is not None:
        return _in_doubt(f"status 200 with a choice that failed: {error_message(json.dumps(broken).encode())}")
    told = read_usage(data, reply.headers)
    model = data.get("model")
    content, finish_reason, problem = read_choice(data, told.reasoning_tokens)
    return Answered(content, finish_reason, problem, told, clean_text(model) if isinstance(model, str) else "")


def _error_of_choice(data: Mapping[str, Any]) -> Any:
    """The error inside the first choice, as gateways put it if a provider fails half-way."""
    choices = data.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    return choice.get("error") or None if isinstance(choice, dict) else None


def _in_doubt(reason: str) -> Again:
    return Again(reason, "in_doubt", suspect="server or request")
