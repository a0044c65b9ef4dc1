"""How likely the student's answer is wrong: a guess from its branches, corrected by what the teacher has settled."""

from __future__ import annotations

import math

from edgeelad.records import ReasoningTree
from edgeelad.text.answers import agree

LIMIT = 0.005  # risks are kept this far from 0 and 1
# how strongly the given risk is believed, in questions
PRIOR_WEIGHT = 4.0
NUM_STEPS = 12


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
        return _sigmoid(shift + slope * _logit(risk))

    def _fit(self) -> tuple[float, float]:
        """Newton's method on the penalized log-likelihood; the slope stays positive, which keeps the order of risks."""
        shift, slope = 0.0, 1.0
        for _ in range(NUM_STEPS):
            gradient = [-PRIOR_WEIGHT * 0.25 * shift, -PRIOR_WEIGHT * (slope - 1.0)]
            curve = [PRIOR_WEIGHT * 0.25, 0.0, PRIOR_WEIGHT]
            for x, is_wrong in self._seen:
                p = _sigmoid(shift + slope * x)
                gradient[0] += is_wrong - p
                gradient[1] += (is_wrong - p) * x
                curve[0] += p * (1.0 - p)
                curve[1] += p * (1.0 - p) * x
                curve[2] += p * (1.0 - p) * x * x
            det = curve[0] * curve[2] - curve[1] ** 2
            shift += (curve[2] * gradient[0] - curve[1] * gradient[1]) / det
            slope += (curve[0] * gradient[1] - curve[1] * gradient[0]) / det
            slope = max(0.05, min(5.0, slope))
            shift = max(-10.0, min(10.0, shift))
        self._fitted = (shift, slope)
        return self._fitted


def _logit(risk: float) -> float:
    risk = min(1.0 - LIMIT, max(LIMIT, risk))
    return math.log(risk / (1.0 - risk))


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))
