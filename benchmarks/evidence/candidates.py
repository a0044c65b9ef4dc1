"""Scores that were tried and are not in the product, since they tell wrong answers no better than chance somewhere."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

from edgeelad.records import ReasoningTree, Score
from edgeelad.uncertainty import ScoreOptions, Strategy
from edgeelad.uncertainty.traces import step_traces


def probe(tree: ReasoningTree, _: ScoreOptions) -> Score:
    """Share of steps after which the forced answer flips, plus the entropy of the last forced answer (nats).

    A strategy of edgeelad until 2026-11. A forced answer that was not found counts as a flip.
    """
    answers = [forced.answer for forced in tree.probes]
    flips = [float(before is None or before != after) for before, after in pairwise(answers)]
    value = (sum(flips) / len(flips) if flips else 0.0) + tree.probes[-1].entropy
    return Score(tree.question.id, "probe", value, tuple(flips), tree.tokens.explanation + tree.tokens.probe)


def entropy_drop(tree: ReasoningTree) -> float:
    """Mean token entropy of the last step less that of the first, plus ln 2 (nats): high if uncertainty does not fall.

    The constant keeps ordinary values positive: selection draws in proportion to scores. Values below 0 count as 0.
    """
    *steps, last = step_traces(tree)
    parts = steps or [last]
    rise = parts[-1].mean_entropy - parts[0].mean_entropy
    return max(0.0, math.log(2.0) + rise)


def peak_entropy(tree: ReasoningTree) -> float:
    """Largest entropy of a token of the greedy explanation (nats)."""
    *steps, last = step_traces(tree)
    return max(trace.max_entropy for trace in (*steps, last))


def _cheap(name: str, function: Callable[[ReasoningTree], float], description: str) -> Strategy:
    """A strategy of the greedy explanation alone."""
    return Strategy(
        name,
        lambda tree, _: Score(tree.question.id, name, function(tree), (), tree.tokens.explanation),
        description,
    )


CANDIDATES = (
    Strategy("probe", probe, "flips of forced answers", needs_probe=True),
    _cheap("entropy-drop", entropy_drop, "mean token entropy of the last step less that of the first"),
    _cheap("peak-entropy", peak_entropy, "largest entropy of a token"),
)
