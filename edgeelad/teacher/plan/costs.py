"""What a call to the teacher will cost: from the length of its prompt, corrected by the calls so far.

A prompt is counted as it would be sent, at four bytes per token; a completion is guessed from the length of the
student's steps. The guesses are corrected by what calls were billed: prompts and money in proportion, completions by
what each kind of call took besides, hidden reasoning included; a kind without calls is taken to be like the others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from edgeelad.config import TeacherConfig
from edgeelad.records import Question, TeacherCall
from edgeelad.teacher.ledger.budget import PICO, prices_of
from edgeelad.teacher.ledger.exchange import Billing
from edgeelad.teacher.prompts.messages import render_judge_messages, render_messages

BYTES_PER_TOKEN = 4
TOKENS_AROUND_MESSAGE = 8
# how much the guesses weigh beside what was billed: in prompt tokens, and in calls
PRIOR_TOKENS = 500
PRIOR_CALLS = 2
# without prices, a completion token counts as this many prompt tokens, as it does in most price lists
COMPLETION_WEIGHT = 4
# steps of an explanation that is not there
GUESSED_STEPS = ("One sentence of an explanation, about as long as this.",) * 4


@dataclass(frozen=True, slots=True)
class Guess:
    """Tokens of one call, before any experience."""

    prompt_tokens: int
    completion_tokens: float


def guess(prompt: str, question: Question, steps: Sequence[str], style: str) -> Guess:
    """The tokens of one call about a question, whose explanation is about as long as the student's."""
    steps = tuple(steps) or GUESSED_STEPS
    length = float(sum(_tokens(step) + 1 for step in steps))
    step = length / len(steps)
    completion = {
        "answer": 12 + length / 2,
        "check": 25 + length / 2 + step,
        "find_first_error": 20 + step,
        "judge_step": 12 + step / 3,
        "complete": 12 + length / 2,
        "rationale": 12 + length,
    }
    return Guess(_prompt_tokens(prompt, question, steps, style), completion[prompt])


class CallCosts:
    """What calls have cost so far, and what the next ones will.

    Args:
        config: Prices, and the style that is part of the prompts.
    """

    def __init__(self, config: TeacherConfig) -> None:
        self._prices = prices_of(config)
        self._style = config.style
        self._guessed_prompt = self._billed_prompt = float(PRIOR_TOKENS)
        self._excess: dict[str, float] = defaultdict(float)
        self._num_calls: dict[str, int] = defaultdict(int)
        self._listed_cost = self._billed_cost = 0.0

    @property
    def unit(self) -> Literal["usd", "tokens"]:
        """What costs are in: dollars, or prompt tokens if prices are unknown or nothing has one."""
        is_unknown = self._prices.prompt is None or self._prices.completion is None
        return "tokens" if is_unknown or not (self._prices.prompt or self._prices.completion) else "usd"

    def note(self, question: Question, steps: Sequence[str], call: TeacherCall) -> None:
        """Learn from a call that was billed; one without tokens, as of a teacher that counts none, tells nothing."""
        usage = call.usage
        num = max(1, usage.requests)
        if not usage.prompt_tokens and not usage.completion_tokens:
            return
        expected = guess(call.prompt, question, steps, self._style)
        self._guessed_prompt += expected.prompt_tokens * num
        self._billed_prompt += usage.prompt_tokens
        self._excess[call.prompt] += usage.completion_tokens - expected.completion_tokens * num
        self._num_calls[call.prompt] += num
        listed = self._listed(usage.prompt_tokens, usage.completion_tokens)
        if self.unit == "usd" and usage.cost_usd is not None and listed:
            self._listed_cost += listed
            self._billed_cost += usage.cost_usd

    def expect(self, prompt: str, question: Question, steps: Sequence[str]) -> float:
        """The expected cost of a call, in `unit`."""
        expected = guess(prompt, question, steps, self._style)
        prompt_tokens = expected.prompt_tokens * self._billed_prompt / self._guessed_prompt
        completion_tokens = max(1.0, expected.completion_tokens + self._typical_excess(prompt))
        # endpoints give discounts for cached prompts, and have prices of their own
        factor = self._billed_cost / self._listed_cost if self._listed_cost else 1.0
        return self._listed(prompt_tokens, completion_tokens) * factor

    def _typical_excess(self, prompt: str) -> float:
        """Completion tokens of a call beyond the guess."""
        num_calls = sum(self._num_calls.values())
        others = sum(self._excess.values()) / num_calls if num_calls else 0.0
        return (self._excess[prompt] + PRIOR_CALLS * others) / (self._num_calls[prompt] + PRIOR_CALLS)

    def _listed(self, prompt_tokens: float, completion_tokens: float) -> float:
        """The cost by the price list, in `unit`."""
        if self.unit == "tokens":
            return prompt_tokens + COMPLETION_WEIGHT * completion_tokens
        million = 10**6  # of each, so that rounding to whole tokens changes nothing
        cost = self._prices.cost(Billing(round(prompt_tokens * million), round(completion_tokens * million)))
        assert cost is not None, "prices are known"
        return cost / million / PICO


def _prompt_tokens(prompt: str, question: Question, steps: tuple[str, ...], style: str) -> int:
    reference = question.answer
    if prompt == "judge_step":
        half = steps[: len(steps) // 2]
        messages = render_judge_messages(question, steps[-1], style=style, reference=reference, steps=half)
    else:
        messages = render_messages(
            prompt, question, style=style, reference=reference, steps=steps, student_answer=reference
        )
    return sum(_tokens(message.content) + TOKENS_AROUND_MESSAGE for message in messages)


def _tokens(text: str) -> int:
    return -(-len(text.encode("utf-8", "replace")) // BYTES_PER_TOKEN)
