"""Account for one run at one endpoint: what is reserved, what was billed, what a reply without usage costs.

Sits between the ledger, which only stores, and the clients, which only send.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from edgeelad.config import TeacherConfig
from edgeelad.teacher.client.outcomes import Answered
from edgeelad.teacher.client.refusals import Again, Refused, Unsupported
from edgeelad.teacher.client.usage import bill
from edgeelad.teacher.ledger.budget import Caps, Prices, Reservation, reserve
from edgeelad.teacher.ledger.exchange import Billing, StoredReply, TeacherRequest, canonical_json
from edgeelad.teacher.ledger.ledger import Begun, Ledger

# besides the cap, what decides whether a reply to the same request can be used
OUTCOME_SETTINGS = ("reasoning_effort", "structured", "token_parameter")


class Accounts:
    """The account of one run; thread-safe.

    Args:
        config: Caps and prices.
        ledger: Where exchanges are kept.
        run: Whose budget is counted.
        count_tokens: Counts a text's tokens, for replies without usage; default: the worst case.
        price_factor: Scales all prices (a batch API's discount).
    """

    def __init__(
        self,
        config: TeacherConfig,
        ledger: Ledger,
        run: str,
        count_tokens: Callable[[str], int] | None,
        price_factor: float = 1.0,
    ) -> None:
        self.ledger = ledger
        self.run = run
        self.prices = Prices.from_config(config, price_factor)
        self._caps = Caps.from_config(config)
        self._settings = canonical_json({name: getattr(config, name) for name in OUTCOME_SETTINGS})
        self._count_tokens = count_tokens
        self._excess = ledger.overruns(run)
        self._lock = threading.Lock()

    def find(self, key: str, completion_cap: int) -> StoredReply | None:
        """The reply to a request, unless it is an unusable one that other settings, or a higher cap, may better."""
        return self.ledger.find(key, completion_cap, self._settings)

    def reserve(self, body: dict[str, Any]) -> Reservation:
        """The worst case of a request's body."""
        prompt, completion, factor = self._excess
        num_bytes = len(json.dumps(body, ensure_ascii=False).encode()) + prompt
        cap = body["max_tokens"] if "max_tokens" in body else body["max_completion_tokens"]
        wanted = reserve(num_bytes, len(body["messages"]), cap + completion, self.prices)
        cost = None if wanted.cost_pico is None else round(wanted.cost_pico * factor)
        return replace(wanted, cost_pico=cost)

    def begin(
        self,
        request: TeacherRequest,
        wanted: Reservation,
        *,
        question_id: str,
        completion_cap: int,
        batch: str | None = None,
    ) -> Begun:
        """Write the row of an attempt; see `Ledger.begin`."""
        return self.ledger.begin(
            request,
            wanted,
            self._caps,
            self.prices,
            run=self.run,
            question_id=question_id,
            completion_cap=completion_cap,
            settings=self._settings,
            batch=batch,
        )

    def keep(
        self, attempt_id: int, request: TeacherRequest, outcome: Answered, completion_cap: int, wanted: Reservation
    ) -> StoredReply:
        """Complete an attempt's row with its reply, as it was billed."""
        billing = bill(outcome.told, outcome.content, request.messages, wanted, self._count_tokens)
        if not billing.is_estimated:
            self._learn(billing, wanted)
        reply = StoredReply(
            request.key, outcome.content, outcome.finish_reason, outcome.problem, completion_cap, billing
        )
        self.ledger.answer(attempt_id, reply, self.prices.cost(billing), model=outcome.model)
        return reply

    def fail(self, attempt_id: int, outcome: Again | Refused | Unsupported) -> None:
        """Complete the row of an attempt that brought no reply."""
        self.ledger.fail(attempt_id, outcome.outcome if isinstance(outcome, Again) else "unbilled", outcome.reason)

    def _learn(self, billing: Billing, wanted: Reservation) -> None:
        """Reserve more from now on, if a reply exceeded what was reserved for it.

        Endpoints add to prompts, think beyond the cap, and charge other prices than the configured ones.
        """
        cost = self.prices.cost(billing)
        factor = cost / wanted.cost_pico if cost and wanted.cost_pico else 0.0
        with self._lock:
            prompt, completion, cost_factor = self._excess
            self._excess = (
                prompt + max(0, billing.prompt_tokens - wanted.prompt_tokens),
                completion + max(0, billing.completion_tokens - wanted.completion_tokens),
                cost_factor * max(1.0, factor),
            )
