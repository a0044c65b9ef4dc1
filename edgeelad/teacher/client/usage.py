"""Read what a reply was billed: the tokens that the endpoint tells, if it tells any that can be true."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeelad.teacher.ledger.exchange import Billing

# a usage that is further off than this is not believed
MAX_USAGE_FACTOR = 10
MAX_USAGE_SLACK = 10_000


def read_usage(data: Mapping[str, Any], headers: Mapping[str, str]) -> Billing | None:
    """The tokens that a reply was billed, from its body (`headers` in lower case); None where it does not tell."""
    usage = data.get("usage")
    if not isinstance(usage, dict):
        return None
    prompt, completion = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    if prompt is None or completion is None:
        return None
    details = usage.get("prompt_tokens_details")
    cached = _count(details.get("cached_tokens")) if isinstance(details, dict) else None
    details = usage.get("completion_tokens_details")
    reasoning = _count(details.get("reasoning_tokens")) if isinstance(details, dict) else None
    return Billing(prompt, completion, min(cached or 0, prompt), min(reasoning or 0, completion))


def _count(value: Any) -> int | None:
    # below 2**53: a number that a database, a sum and JSON all keep
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else None


def believable(billing: Billing | None, prompt_tokens: int, completion_cap: int) -> bool:
    """Whether a reply's usage can be true of a request of at most so many tokens."""
    if billing is None:
        return False
    max_prompt = MAX_USAGE_FACTOR * prompt_tokens + MAX_USAGE_SLACK
    max_completion = MAX_USAGE_FACTOR * completion_cap + MAX_USAGE_SLACK
    return billing.prompt_tokens <= max_prompt and billing.completion_tokens <= max_completion
