"""Estimate the probability that the student's answer is wrong: a logistic model over the steps of one greedy pass.

`features` turns an explanation into numbers, `RiskModel` into a probability, `fit` adapts the model to questions that
the teacher has checked. Prediction and fitting are plain numpy, so that a CPU server needs no scikit-learn.

The model is fitted as a maximum a posteriori estimate whose prior is centered at `COLD_START`: without a checked
question the estimate is `COLD_START` itself, and with a few it stays near it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeelad.logistic import Floats, fit_logistic
from edgeelad.records import AnswerKind, ReasoningTree
from edgeelad.text.arithmetic import false_equation
from edgeelad.uncertainty.traces import StepTrace, step_traces

FEATURES = (
    "mean entropy",
    "largest entropy of a token",
    "largest mean entropy of a step",
    "mean entropy of the first step",
    "mean entropy of the last step",
    "mean entropy of the answer line",
    "mean entropy of digits and operators",
    "lowest window of log-probabilities",
    "number of steps",
    "states no answer",
    "states a false equation",
)
"""What the model sees of an explanation; entropies and log-probabilities enter as logarithms."""

# prior standard deviation of a coefficient around the cold start, per unit of a standardized feature; and of the
# intercept, which differs most between students (docs/EVIDENCE.md)
PRIOR_SCALE, PRIOR_SCALE_INTERCEPT = 0.5, 2.0
# a few checked questions of one kind say nothing about the others
MIN_CHECKED, MIN_OF_EACH = 20, 3
_FLOOR = 1e-4  # nats: below it, an entropy is as good as zero


@dataclass(frozen=True, slots=True)
class RiskModel:
    """A logistic model: the log odds of a wrong answer are `intercept` + Σ `coefficients` · standardized features.

    Attributes:
        coefficients: One per name in `FEATURES`, for features standardized by `MEANS` and `SCALES`.
        intercept: Log odds at the mean of every feature.
        num_checked: Questions that it was fitted on; 0 for the cold start.
        num_wrong: Those among them that the student answered wrong.
    """

    coefficients: tuple[float, ...]
    intercept: float
    num_checked: int = 0
    num_wrong: int = 0

    @property
    def is_cold(self) -> bool:
        """Whether it is the default, for want of checked questions."""
        return self.num_checked == 0

    def probability(self, features: Sequence[float]) -> float:
        """The probability in (0, 1) that the answer of an explanation with these features is wrong."""
        standardized = ((x - mean) / scale for x, mean, scale in zip(features, MEANS, SCALES, strict=True))
        odds = self.intercept + math.fsum(c * x for c, x in zip(self.coefficients, standardized, strict=True))
        return 1.0 / (1.0 + math.exp(-odds)) if odds > -30.0 else math.exp(odds)


def risk_of(tree: ReasoningTree, model: RiskModel | None = None) -> float:
    """The probability that the student's answer is wrong, from its greedy explanation alone.

    Args:
        tree: With or without branches; they are not used.
        model: That of a run's round (`rounds/NN/risk.json`); default: the cold start.
    """
    return (model or COLD_START).probability(features(step_traces(tree), tree.steps, tree.answer, tree.question.kind))


def features(
    traces: Sequence[StepTrace], steps: Sequence[str], answer: str | None, kind: AnswerKind
) -> tuple[float, ...]:
    """The features of an explanation, in the order of `FEATURES`.

    Args:
        traces: Those of its steps and of its answer line (`traces.step_traces`); empty if it has no tokens.
        steps: Its steps.
        answer: The answer that it states, or None.
        kind: Equations count if this is "number", as they do for the teacher's explanations.
    """
    *own, last = traces or (StepTrace(0, 0.0, 0.0, 0.0, 0.0),)
    with_tokens = [trace for trace in own if trace.num_tokens] or [last]
    parts = [*with_tokens, last] if last.num_tokens else with_tokens
    num_tokens = max(sum(trace.num_tokens for trace in traces), 1)
    mean = math.fsum(trace.mean_entropy * trace.num_tokens for trace in traces) / num_tokens
    num_symbols = sum(trace.num_symbols for trace in traces)
    symbols = math.fsum(trace.symbol_entropy * trace.num_symbols for trace in traces)
    is_false = kind == "number" and any(false_equation(step) is not None for step in steps)
    return (
        _log(mean),
        _log(max(trace.max_entropy for trace in parts)),
        _log(max(trace.mean_entropy for trace in parts)),
        _log(with_tokens[0].mean_entropy),
        _log(with_tokens[-1].mean_entropy),
        _log(last.mean_entropy),
        # an explanation without numbers is as unsure as its words
        _log(symbols / num_symbols if num_symbols else mean),
        _log(-min(trace.lowest_window for trace in parts)),
        math.log1p(len(steps)),
        float(answer is None),
        float(is_false),
    )


def fit(rows: Sequence[Sequence[float]], is_wrong: Sequence[bool], prior: RiskModel | None = None) -> RiskModel:
    """Fit the model to checked questions by maximum a posteriori; the prior itself if they are too few.

    The prior of each coefficient is normal around the cold start's. There is one solution (`fit_logistic`); the order
    of the rows changes it by rounding only, which the stored digits hide.

    Args:
        rows: The features of each question.
        is_wrong: Whether the student answered it wrong.
        prior: Center of the prior; default: the cold start.
    """
    prior = prior or COLD_START
    num_wrong = sum(is_wrong)
    if len(rows) < MIN_CHECKED or min(num_wrong, len(rows) - num_wrong) < MIN_OF_EACH:
        return prior
    x: Floats = (np.array(rows, dtype=np.float64) - MEANS) / SCALES
    x = np.column_stack([x, np.ones(len(x))])
    y: Floats = np.array(is_wrong, dtype=np.float64)
    center: Floats = np.array([*prior.coefficients, prior.intercept], dtype=np.float64)
    precision: Floats = np.array([PRIOR_SCALE**-2] * len(FEATURES) + [PRIOR_SCALE_INTERCEPT**-2])
    *coefficients, intercept = fit_logistic(x, y, center, precision).tolist()
    return RiskModel(tuple(coefficients), intercept, len(rows), num_wrong)


def _log(value: float) -> float:
    return math.log(max(value, 0.0) + _FLOOR)


# Means and standard deviations of the features, and the cold start's coefficients: fitted by
# benchmarks/evidence/cold_start.py on word problems, the same in varied wording, and MAWPS (seed 0). None of those
# students leaves out its answer, which is wrong by definition: that coefficient is set by hand, to 3 log odds.
MEANS: tuple[float, ...] = (-1.95, 0.12, -1.48, -1.81, -1.74, -5.13, -1.69, -1.96, 1.03, 0.0, 0.4)
SCALES: tuple[float, ...] = (1.45, 1.17, 1.41, 1.74, 1.6, 1.32, 1.25, 1.74, 0.22, 0.2, 0.49)
COLD_START = RiskModel((0.36, 0.05, 0.31, 0.6, 0.13, 0.04, 0.67, 0.27, -0.04, 0.6, 1.0), 0.48)
