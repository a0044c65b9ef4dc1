"""Summarize the tokens of a greedy explanation step by step: the record that cheap scores and `risk` are made from.

Takes the log-probabilities and entropies that the greedy pass gives for free; needs no branches and no further tokens.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from edgeelad.records import ReasoningTree

WINDOW = 4  # tokens; one unsure token is often a matter of wording, several in a row are not


class StepTrace(NamedTuple):
    """The tokens of one step, or of the answer line. Log-probabilities and entropies are in nats.

    Attributes:
        num_tokens: How many there are.
        mean_logprob: Their mean log-probability.
        lowest_window: The lowest mean log-probability of `WINDOW` tokens in a row (of all, if there are fewer).
        mean_entropy: Their mean entropy.
        max_entropy: Their largest entropy.
        num_symbols: How many of them hold a digit or an operator.
        symbol_entropy: The mean entropy of these: uncertainty about what is calculated, not about how it is worded.
    """

    num_tokens: int
    mean_logprob: float
    lowest_window: float
    mean_entropy: float
    max_entropy: float
    num_symbols: int = 0
    symbol_entropy: float = 0.0


def step_traces(tree: ReasoningTree) -> tuple[StepTrace, ...]:
    """One trace per step, and a last one of the answer line with the end token; empty without token values.

    If it is unknown where the steps end, all tokens are in the last one, and the steps have none.
    """
    num = min(len(tree.token_logprobs), len(tree.token_entropies))
    if num == 0:
        return ()
    ends = tree.step_ends if len(tree.step_ends) == tree.num_steps else (0,) * tree.num_steps
    bounds = [0, *(min(end, num) for end in ends), num]
    return tuple(
        trace_of(tree.token_logprobs[start:end], tree.token_entropies[start:end], tree.is_symbol[start:end])
        for start, end in itertools.pairwise(bounds)
    )


def elad_tokens(traces: Sequence[StepTrace], num_branches: int, num_explanations: int) -> int:
    """The student tokens that `elad` would need for a question, by estimate: a branch is as long as what it replaces.

    Args:
        traces: Of the greedy explanation.
        num_branches: m, branches per step prefix.
        num_explanations: K, explanations sampled from the bare question.

    >>> steps = [StepTrace(num, 0.0, 0.0, 0.0, 0.0) for num in (10, 8, 4)]
    >>> elad_tokens(steps, num_branches=3, num_explanations=2)  # 22 + 2 * 22 + 3 * (12 + 4)
    114
    """
    left = sum(trace.num_tokens for trace in traces)
    total = (1 + num_explanations) * left
    for trace in traces[:-1]:
        left -= trace.num_tokens
        total += num_branches * left
    return total


def trace_of(logprobs: Sequence[float], entropies: Sequence[float], is_symbol: Sequence[bool] = ()) -> StepTrace:
    """Summarize consecutive tokens; of none, all values are 0.

    >>> trace_of([-1.0, -2.0], [0.5, 0.7], [True, False]).symbol_entropy
    0.5
    """
    num = len(logprobs)
    if num == 0:
        return StepTrace(0, 0.0, 0.0, 0.0, 0.0)
    size = min(WINDOW, num)
    windows = (math.fsum(logprobs[start : start + size]) / size for start in range(num - size + 1))
    symbols = [entropy for entropy, is_one in zip(entropies, is_symbol, strict=False) if is_one]
    return StepTrace(
        num,
        math.fsum(logprobs) / num,
        min(windows),
        math.fsum(entropies) / num,
        max(entropies),
        len(symbols),
        math.fsum(symbols) / len(symbols) if symbols else 0.0,
    )
