"""Check the caps on a run's cost before each attempt, with the worst case reserved.

Money is counted in picodollars (1e-12 USD), integers, so that sums are exact. A price that is not known is None, never
0. Takes what the ledger has counted, gives nothing or raises; the ledger calls `check` inside the transaction that
writes the attempt, so threads and processes cannot exceed a cap together.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeelad.config import TeacherConfig
from edgeelad.errors import BudgetError
from edgeelad.teacher.ledger.exchange import Billing

PICO = 10**12
# what chat templates put around a turn, and around the whole, in tokens; generous
TOKENS_AROUND_MESSAGE = 16
TOKENS_AROUND_CHAT = 64


@dataclass(frozen=True, slots=True)
class Prices:
    """Picodollars per token; None if a price is not known. `factor` scales all (a batch API's discount)."""

    prompt: int | None = None
    cached_prompt: int | None = None
    completion: int | None = None
    factor: float = 1.0

    @classmethod
    def from_config(cls, config: TeacherConfig, factor: float = 1.0) -> Prices:
        """Read the prices per million tokens."""
        return cls(
            _pico_per_token(config.usd_per_million_prompt),
            _pico_per_token(config.usd_per_million_cached_prompt),
            _pico_per_token(config.usd_per_million_completion),
            factor,
        )

    def cost(self, billing: Billing) -> int | None:
        """What a bill comes to, in picodollars: the price that was told, else tokens times prices, None if unknown.

        >>> Prices(prompt=150_000, completion=600_000).cost(Billing(1000, 100))
        210000000
        """
        if billing.cost_pico is not None:
            return billing.cost_pico
        if self.prompt is None or self.completion is None:
            return None
        cached_price = self.prompt if self.cached_prompt is None else self.cached_prompt
        cached = min(billing.cached_prompt_tokens, billing.prompt_tokens)
        fresh = billing.prompt_tokens - cached
        total = fresh * self.prompt + cached * cached_price + billing.completion_tokens * self.completion
        return total if self.factor == 1.0 else round(total * self.factor)


def prices_of(config: TeacherConfig) -> Prices:
    """The prices that a run will pay, with the discount if it buys in batches."""
    return Prices.from_config(config, config.batch_discount if config.batch else 1.0)


@dataclass(frozen=True, slots=True)
class Caps:
    """The maximum that a run may cost; None = no cap."""

    cost_pico: int | None = None
    requests: int | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    questions: int | None = None

    @classmethod
    def from_config(cls, config: TeacherConfig) -> Caps:
        """Read the caps."""
        return cls(
            None if config.max_usd is None else round(config.max_usd * PICO),
            config.max_requests,
            config.max_prompt_tokens,
            config.max_completion_tokens_total,
            config.max_questions,
        )


@dataclass(frozen=True, slots=True)
class Spent:
    """What a run has cost so far, attempts that are open or in doubt at what was reserved for them.

    `cost_pico` is None if something was bought at an unknown price.
    """

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_pico: int | None = 0
    questions: int = 0

    def __add__(self, other: Spent) -> Spent:
        is_known = self.cost_pico is not None and other.cost_pico is not None
        return Spent(
            self.requests + other.requests,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            (self.cost_pico or 0) + (other.cost_pico or 0) if is_known else None,
            self.questions + other.questions,
        )


@dataclass(frozen=True, slots=True)
class Reservation:
    """The maximum that one attempt can cost; `cost_pico` is None if prices are unknown."""

    prompt_tokens: int
    completion_tokens: int
    cost_pico: int | None = None


def reserve(num_bytes: int, num_messages: int, completion_cap: int, prices: Prices) -> Reservation:
    """The worst case of a request: every byte of its body a prompt token, the completion up to its cap.

    A token of a byte-level vocabulary covers at least one byte, so no tokenizer makes more of it.
    """
    prompt = num_bytes + TOKENS_AROUND_MESSAGE * num_messages + TOKENS_AROUND_CHAT
    return Reservation(prompt, completion_cap, prices.cost(Billing(prompt, completion_cap)))


def check(spent: Spent, wanted: Reservation, caps: Caps, is_new_question: bool) -> None:
    """Refuse an attempt that could exceed a cap.

    Raises:
        BudgetError: Names the cap, what is spent, and what the attempt might cost.
    """
    _check("max_requests", "requests", spent.requests, 1, caps.requests)
    _check("max_questions", "questions", spent.questions, int(is_new_question), caps.questions)
    _check("max_prompt_tokens", "prompt tokens", spent.prompt_tokens, wanted.prompt_tokens, caps.prompt_tokens)
    _check(
        "max_completion_tokens_total",
        "completion tokens",
        spent.completion_tokens,
        wanted.completion_tokens,
        caps.completion_tokens,
    )
    if caps.cost_pico is None:
        return
    if spent.cost_pico is None or wanted.cost_pico is None:
        raise BudgetError(
            "teacher.max_usd cannot be enforced: the ledger holds replies bought at an unknown price; "
            "set teacher.usd_per_million_prompt and teacher.usd_per_million_completion"
        )
    if spent.cost_pico + wanted.cost_pico > caps.cost_pico:
        raise BudgetError(
            f"teacher.max_usd = {_usd(caps.cost_pico)} would be exceeded: {_usd(spent.cost_pico)} is spent or "
            f"reserved, and the next request could cost {_usd(wanted.cost_pico)}; everything is kept: raise the cap "
            "and resume"
        )


def _check(option: str, unit: str, spent: int, wanted: int, cap: int | None) -> None:
    if cap is not None and wanted and spent + wanted > cap:
        raise BudgetError(
            f"teacher.{option} = {cap} would be exceeded: {spent} {unit} are spent or reserved, and the next request "
            f"could take {wanted}; everything is kept: raise the cap and resume"
        )


def _pico_per_token(usd_per_million: float | None) -> int | None:
    return None if usd_per_million is None else round(usd_per_million * (PICO // 10**6))


def _usd(pico: int) -> str:
    return f"${pico / PICO:.4f}"
