"""Lay out the risk model of a round for the page: its coefficients, and whether its estimates came true."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeelad.bounds import binomial_lower, binomial_upper
from edgeelad.report.read import CheckedRisk, RoundQuestions
from edgeelad.uncertainty.risk import FEATURES, RiskModel

TAIL = 0.025  # of a 95 % interval, on each side


@dataclass(frozen=True, slots=True)
class Calibration:
    """Checked questions: the share expected to be wrong before the teacher was asked, and the share that was.

    `low` and `high` bound the latter (exact 95 % interval).
    """

    label: str
    num: int
    expected: float
    observed: float
    low: float
    high: float
    is_fair: bool

    @property
    def is_off(self) -> bool:
        """Whether these are a fair sample and the expected share lies outside the interval."""
        return self.is_fair and not self.low <= self.expected <= self.high


@dataclass(frozen=True, slots=True)
class RiskSection:
    """A round's model as it is shown; `coefficients` are by feature, largest first."""

    number: int
    model: RiskModel
    coefficients: tuple[tuple[str, float], ...]
    calibration: tuple[Calibration, ...]


def risk_section(questions: RoundQuestions) -> RiskSection | None:
    """The section of one round; None if nothing in it was given a risk.

    The questions drawn at random are a fair sample of the pool; the others were chosen, mostly because they or those
    nearest to them are risky, so more of them are wrong than their own risk says.
    """
    if questions.risk_model is None or not questions.checked:
        return None
    drawn = [item for item in questions.checked if item.reason == "explore"]
    others = [item for item in questions.checked if item.reason != "explore"]
    groups = (("drawn at random", drawn, True), ("the others", others, False))
    coefficients = zip(FEATURES, questions.risk_model.coefficients, strict=True)
    return RiskSection(
        questions.number,
        questions.risk_model,
        tuple(sorted(coefficients, key=lambda item: -abs(item[1]))),
        tuple(_calibration(label, group, is_fair) for label, group, is_fair in groups if group),
    )


def _calibration(label: str, checked: Sequence[CheckedRisk], is_fair: bool) -> Calibration:
    num, num_wrong = len(checked), sum(item.is_wrong for item in checked)
    expected = sum(item.risk for item in checked) / num
    low, high = binomial_lower(num_wrong, num, TAIL), binomial_upper(num_wrong, num, TAIL)
    return Calibration(label, num, expected, num_wrong / num, low, high, is_fair)
