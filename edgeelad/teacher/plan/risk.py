"""How likely the student's answer is wrong: a guess from its branches, corrected by what the teacher has settled."""

from __future__ import annotations

import math

import numpy as np

from edgeelad.logistic import fit_logistic
from edgeelad.records import ReasoningTree
from edgeelad.text.answers import agree

LIMIT = 0.005  # risks are kept this far from 0 and 1
# how strongly the given risk is believed, in questions
PRIOR_WEIGHT = 4.0
MIN_SLOPE, MAX_SLOPE = 0.05, 5.0
_CENTER = np.array([0.0, 1.0])  # shift and slope of a risk that is right
_PRECISION = np.array([PRIOR_WEIGHT * 0.25, PRIOR_WEIGHT])


def risk_of_tree(tree: ReasoningTree) -> float:
    """Share of the branches that end in another answer than the greedy explanation; 1 if that states none."""
    if tree.answer is None:
        return 1.0 - LIMIT
    answers = [branch.answer for group in tree.branches for branch in group]
    num_others = sum(not agree(answer, tree.answer) for answer in answers)
    return (num_others + 0.5) / (len(answers) + 1.0)


class RiskScale:
    """Corrects risks by outcomes: logit p = a + b · logit risk, fitted with a prior at a = 0, b = 1."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, bool]] = []
        self._fitted: tuple[float, float] | None = (0.0, 1.0)

    def note(self, risk: float, is_wrong: bool) -> None:
        """Learn one outcome."""
        self._seen.append((_logit(risk), is_wrong))
        self._fitted = None

    def apply(self, risk: float) -> float:
        """The corrected risk."""
        shift, slope = self._fitted or self._fit()
        return 1.0 / (1.0 + math.exp(-shift - slope * _logit(risk)))

    def _fit(self) -> tuple[float, float]:
        """The slope stays positive, which keeps the order of risks."""
        logits, outcomes = np.array(self._seen, dtype=np.float64).T
        ones = np.ones((len(logits), 1))
        shift, slope = fit_logistic(np.column_stack([ones, logits]), outcomes, _CENTER, _PRECISION).tolist()
        limited = min(MAX_SLOPE, max(MIN_SLOPE, slope))
        if limited != slope:
            (shift,) = fit_logistic(ones, outcomes, _CENTER[:1], _PRECISION[:1], limited * logits).tolist()
        self._fitted = (shift, limited)
        return self._fitted


def _logit(risk: float) -> float:
    risk = min(1.0 - LIMIT, max(LIMIT, risk))
    return math.log(risk / (1.0 - risk))
