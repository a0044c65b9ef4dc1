"""Read what a reply was billed, under any of the names in use, and estimate what the endpoint does not tell.

OpenAI's names, Anthropic's, Google's and their kin are read alike; a count of zero is one that was not told. Hidden
reasoning is billed as completion, and endpoints count it in different places: the completion is the larger of the two
figures that can be made of what they tell.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeelad.teacher.ledger.budget import PICO, Reservation
from edgeelad.teacher.ledger.exchange import Billing
from edgeelad.teacher.prompts.messages import Message

# a usage that is further off than this is not believed
MAX_USAGE_FACTOR = 10
MAX_USAGE_SLACK = 10_000
# nobody charges more for one reply; what does is in another unit
MAX_COST_USD = 1_000.0
TOKENS_PER_MESSAGE = 4  # what a chat template adds to a message, for estimates

# where a body holds its usage, and what the counts are called there; camelCase is read as snake_case
_PLACES = ("usage", "usage_metadata", "x_groq.usage", "meta.billed_units", "usage.billed_units", "")
_PROMPT = ("prompt_tokens", "input_tokens", "prompt_token_count", "input_token_count", "prompt_eval_count")
_COMPLETION = ("completion_tokens", "output_tokens", "candidates_token_count", "output_token_count", "eval_count")
_TOTAL = ("total_tokens", "total_token_count")
_CACHED = (
    "prompt_tokens_details.cached_tokens",
    "input_tokens_details.cached_tokens",
    "cached_content_token_count",
    "cache_read_input_tokens",
    "prompt_cache_hit_tokens",
)
_REASONING = (
    "completion_tokens_details.reasoning_tokens",
    "output_tokens_details.reasoning_tokens",
    "thoughts_token_count",
    "reasoning_tokens",
)
# Anthropic's `input_tokens` leave these out
_CACHE = ("cache_read_input_tokens", "cache_creation_input_tokens")
_COST = ("cost", "total_cost", "cost.total_cost", "cost_usd", "total_cost_usd", "estimated_cost")
_COST_HEADER = re.compile(r"(x-)?([a-z-]+-)?(response|request|total)-cost(-usd)?")


@dataclass(frozen=True, slots=True)
class Told:
    """What an endpoint tells of a reply's bill; None if it does not tell. `cost_pico` is the price that it charged."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    cached_prompt_tokens: int = 0
    reasoning_tokens: int = 0
    cost_pico: int | None = None


def read_usage(data: Mapping[str, Any], headers: Mapping[str, str]) -> Told:
    """What a reply was billed, as its body or a header (names in lower case) tells."""
    body = _snake(data)
    for place in _PLACES:
        found = _at(body, place) if place else body
        told = _read_tokens(found) if isinstance(found, dict) else None
        if told is not None:
            break
    else:
        told = {}
    return Told(**told, cost_pico=_read_cost(body, headers))


def bill(
    told: Told,
    content: str,
    messages: Sequence[Message],
    wanted: Reservation,
    count_tokens: Callable[[str], int] | None,
) -> Billing:
    """The bill of a reply: what was told, if it can be true of the request, and estimates of the rest.

    Args:
        told: What the endpoint tells.
        content: The reply's text.
        messages: The request's chat.
        wanted: What was reserved for the request.
        count_tokens: The tokens of a text, for estimates; without it the worst case is taken.
    """
    prompt = _believed(told.prompt_tokens, wanted.prompt_tokens)
    completion = _believed(told.completion_tokens, wanted.completion_tokens)
    total = _believed(told.total_tokens, wanted.prompt_tokens + wanted.completion_tokens)
    if completion == 0 and content.strip():
        completion = None
    if total is not None and prompt is not None and total > prompt:
        completion = max(completion or 0, total - prompt)
    elif total is not None and completion is not None and total > completion:
        prompt = total - completion
    is_estimated = prompt is None or completion is None
    if count_tokens is None:
        guess = wanted.prompt_tokens, min(len(content.encode()) + 1, wanted.completion_tokens)
    else:
        written = count_tokens(content) if content else wanted.completion_tokens
        guess = sum(count_tokens(message.content) + TOKENS_PER_MESSAGE for message in messages), written
    if total is not None and prompt is None and completion is None:
        completion = min(total, max(guess[1], total - guess[0]))
        prompt = total - completion
    prompt = guess[0] if prompt is None else prompt
    completion = guess[1] if completion is None else completion
    cached, reasoning = min(told.cached_prompt_tokens, prompt), min(told.reasoning_tokens, completion)
    return Billing(prompt, completion, cached, reasoning, is_estimated, told.cost_pico)


def _believed(tokens: int | None, reserved: int) -> int | None:
    """A count, unless it is far beyond what the request can have taken."""
    return tokens if tokens is not None and tokens <= MAX_USAGE_FACTOR * reserved + MAX_USAGE_SLACK else None


def _read_tokens(usage: Mapping[str, Any]) -> dict[str, Any] | None:
    prompt, completion, total = (_first(usage, names) for names in (_PROMPT, _COMPLETION, _TOTAL))
    if not (prompt or completion or total):
        return None
    reasoning, cache = _first(usage, _REASONING) or 0, sum(_first(usage, (name,)) or 0 for name in _CACHE)
    if completion is not None and (reasoning > completion or "thoughts_token_count" in usage):
        # counted apart: nothing can have more reasoning than it has tokens
        completion += reasoning
    if prompt is not None and cache:
        is_apart = "prompt_tokens" not in usage or total == prompt + cache + (completion or 0)
        prompt += cache if is_apart else 0
    if completion == 0 and not (prompt and total == prompt):
        completion = None
    return {
        "prompt_tokens": prompt or None,
        "completion_tokens": completion,
        "total_tokens": total or None,
        "cached_prompt_tokens": _first(usage, _CACHED) or 0,
        "reasoning_tokens": reasoning,
    }


def _read_cost(body: Mapping[str, Any], headers: Mapping[str, str]) -> int | None:
    usage = body.get("usage")
    ticks = _number(_at(body, "usage.cost_in_usd_ticks"))  # xAI's, of 1e-10 dollars
    told = [_number(_at(usage, name)) for name in _COST] if isinstance(usage, dict) else []
    upstream = _number(_at(body, "usage.cost_details.upstream_inference_cost")) or 0.0
    if _at(body, "usage.is_byok") is True and upstream:
        # OpenRouter with a provider key of the user's own: its fee, and what the provider charges
        told = [(told[0] or 0.0) + upstream]
    told += [
        None if ticks is None else ticks * 1e-10,
        _number(_at(body, "provider_metadata.gateway.cost")),
        *(_number(value) for name, value in sorted(headers.items()) if _COST_HEADER.fullmatch(name)),
    ]
    # zero is what a proxy says that does not know the model's price
    return next((round(cost * PICO) for cost in told if cost is not None and 0 < cost <= MAX_COST_USD), None)


def _first(usage: Mapping[str, Any], names: Sequence[str]) -> int | None:
    """The largest of the counts that go by these names, so that a zero beside a figure says nothing."""
    counts = [count for count in (_count(_at(usage, name)) for name in names) if count is not None]
    return max(counts, default=None)


def _count(value: Any) -> int | None:
    """A count of tokens; below 2**53: a number that a database, a sum and JSON all keep."""
    number = _number(value)
    return math.ceil(number) if number is not None and number < 2**53 else None


def _number(value: Any) -> float | None:
    """A number that is not negative, also if it is written as text."""
    if isinstance(value, str):
        try:
            value = float(value.strip().removeprefix("$"))
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if value >= 0 and value < 1e300 else None


def _at(data: Any, path: str) -> Any:
    for name in path.split("."):
        data = data.get(name) if isinstance(data, dict) else None
    return data


def _snake(value: Any, depth: int = 0) -> Any:
    """A body whose fields are named in snake_case; what is nested deeper than any usage is left out."""
    if not isinstance(value, dict) or depth > 4:
        return value
    return {
        re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower(): _snake(item, depth + 1) for name, item in value.items()
    }
