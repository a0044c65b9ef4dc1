"""Keep the books of one run with one endpoint: what is reserved, what was billed, what a reply without usage costs.

Between the ledger, which only stores, and the clients, which only send.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

from edgeelad.config import TeacherConfig
from edgeelad.teacher.client.outcomes import Answered
from edgeelad.teacher.client.refusals import Again, Refused, Unsupported
from edgeelad.teacher.client.usage import believable
from edgeelad.teacher.ledger.budget import Caps, Prices, Reservation, reserve
from edgeelad.teacher.ledger.exchange import Billing, StoredReply, TeacherRequest
from edgeelad.teacher.ledger.ledger import Begun, Ledger


class Accounts:
    """The books of one run; thread-safe.

    Args:
        config: Caps and prices.
        ledger: Where exchanges are kept.
        run: Whose budget is counted.
        count_tokens: For replies that do not tell their usage; without it the worst case is counted.
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
        self._count_tokens = count_tokens
        self._extra_prompt_tokens = 0
        self._lock = threading.Lock()

    def find(self, key: str, completion_cap: int) -> StoredReply | None:
        """The reply to a request, unless it is an unusable one bought under a lower cap."""
        found = self.ledger.find(key)
        return found if found is not None and (not found.problem or found.completion_cap >= completion_cap) else None

    def reserve(self, body: dict[str, Any]) -> Reservation:
        """The worst case of a request's body."""
        num_bytes = len(json.dumps(body, ensure_ascii=False).encode()) + self._extra_prompt_tokens
        cap = body["max_tokens"] if "max_tokens" in body else body["max_completion_tokens"]
        return reserve(num_bytes, len(body["messages"]), cap, self.prices)

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
            batch=batch,
        )

    def keep(
        self, attempt_id: int, request: TeacherRequest, outcome: Answered, completion_cap: int, wanted: Reservation
    ) -> StoredReply:
        """Complete an attempt's row with its reply, as it was billed."""
        billing = outcome.billing
        if billing is None or not believable(billing, wanted.prompt_tokens, wanted.completion_tokens):
            billing = self._estimate(request, outcome, wanted)
        else:
            with self._lock:
                # an endpoint that adds to prompts: reserve for that as well from now on
                self._extra_prompt_tokens += max(0, billing.prompt_tokens - wanted.prompt_tokens)
        reply = StoredReply(
            request.key, outcome.content, outcome.finish_reason, outcome.problem, completion_cap, billing
        )
        self.ledger.answer(attempt_id, reply, self.prices.cost(billing), model=outcome.model)
        return reply

    def fail(self, attempt_id: int, outcome: Again | Refused | Unsupported) -> None:
        """Complete the row of an attempt that brought no reply."""
        self.ledger.fail(attempt_id, outcome.outcome if isinstance(outcome, Again) else "unbilled", outcome.reason)

    def _estimate(self, request: TeacherRequest, outcome: Answered, wanted: Reservation) -> Billing:
        """Count a reply that does not tell its usage; without a tokenizer, at the worst case."""
        if self._count_tokens is None:
            completion = min(len(outcome.content.encode()) + 1, wanted.completion_tokens)
            return Billing(wanted.prompt_tokens, completion, is_estimated=True)
        prompt = sum(self._count_tokens(message.content) + 4 for message in request.messages)
        completion = self._count_tokens(outcome.content) if outcome.content else wanted.completion_tokens
        return Billing(prompt, completion, is_estimated=True)
