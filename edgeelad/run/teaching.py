"""Add up what `teacher.mode = "auto"` chose and paid: by way, and against explanations of all questions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from edgeelad.records import Annotation, TeacherUsage, TeachingPlan, TeachingWay
from edgeelad.run.folder import RunFolder
from edgeelad.teacher.plan.costs import COMPLETION_WEIGHT

WAYS: tuple[TeachingWay, ...] = ("own", "answer", "check", "correct", "rationale")


@dataclass(frozen=True, slots=True)
class WayTotals:
    """What came of the questions that were taught in one way.

    Attributes:
        way: The way (`records.TeachingPlan`).
        num: Questions.
        num_verified: Those with a verified explanation.
        expected: What they were expected to cost, in the run's unit.
        paid: What they cost, in the same.
        expected_rationale: What explanations of them all were expected to cost.
        usage: Requests, tokens and dollars.
    """

    way: TeachingWay
    num: int = 0
    num_verified: int = 0
    expected: float = 0.0
    paid: float = 0.0
    expected_rationale: float = 0.0
    usage: TeacherUsage = field(default_factory=TeacherUsage)


@dataclass(frozen=True, slots=True)
class TeachingTotals:
    """What all questions came to.

    Attributes:
        ways: By way.
        is_priced: Whether costs are in dollars; else they are in prompt tokens.
        num_unpriced: Questions planned before the run had prices, whose costs are not among these.
    """

    ways: tuple[WayTotals, ...]
    is_priced: bool
    num_unpriced: int = 0

    @property
    def paid(self) -> float:
        """What was paid for all questions."""
        return sum(way.paid for way in self.ways)

    @property
    def explanations(self) -> float:
        """What explanations of all questions would cost: as expected, corrected by those that were bought."""
        bought = next((way for way in self.ways if way.way == "rationale"), None)
        factor = bought.paid / bought.expected_rationale if bought is not None and bought.expected_rationale else 1.0
        return factor * sum(way.expected_rationale for way in self.ways)

    @property
    def sentence(self) -> str:
        """What the mode chose and saved, in words."""
        ways = ", ".join(f"{way.num:,} by {NAMES[way.way]}" for way in self.ways)
        if not self.explanations:  # the explanations come from a data set
            return f"The teacher settled {ways}, at no cost."
        if any(way.usage.requests for way in self.ways) and not self.paid:
            return f"The teacher settled {ways}; what it cost is unknown, for it counts no tokens."
        saved = round(1.0 - self.paid / self.explanations, 2)
        change = "the same money as" if saved == 0 else f"{abs(saved):.0%} {'less' if saved > 0 else 'more'} money than"
        if self.is_priced:
            costs = f"${self.paid:.4f} instead of about ${self.explanations:.4f}"
        else:
            costs = "a completion token counted as four prompt tokens"
        if self.num_unpriced:
            costs += f", without {self.num_unpriced:,} questions that were planned before there were prices"
        return f"The teacher settled {ways}: {change} explanations of all ({costs})."


NAMES: dict[TeachingWay, str] = {
    "own": "the student's own explanation and the pool's answer",
    "answer": "an answer",
    "check": "an answer with a correction",
    "correct": "a correction",
    "rationale": "an explanation",
}


def teaching_totals(folder: RunFolder) -> TeachingTotals | None:
    """Add up all rounds of a run; None if it had another mode.

    Raises:
        RunError: A file is damaged.
    """
    rounds = list(folder.rounds())
    plans = {(here.number, plan.question_id): plan for here in rounds for plan in here.plan.read_if_there()}
    taught = [
        (plans[here.number, item.question_id], item)
        for here in rounds
        for item in here.annotations.read_if_there()
        if (here.number, item.question_id) in plans
    ]
    is_priced = any(plan.unit == "usd" for plan, _ in taught)
    totals = _add((plan, item) for plan, item in taught if is_priced == (plan.unit == "usd"))
    ways = tuple(totals[way] for way in WAYS if way in totals)
    return TeachingTotals(ways, is_priced, len(taught) - sum(way.num for way in ways)) if ways else None


def _add(taught: Iterable[tuple[TeachingPlan, Annotation]]) -> dict[TeachingWay, WayTotals]:
    totals: dict[TeachingWay, WayTotals] = {}
    for plan, annotation in taught:
        before = totals.get(plan.way, WayTotals(plan.way))
        totals[plan.way] = replace(
            before,
            num=before.num + 1,
            num_verified=before.num_verified + annotation.is_usable,
            expected=before.expected + plan.expected[plan.way],
            paid=before.paid + paid(plan, annotation.usage),
            expected_rationale=before.expected_rationale + plan.expected["rationale"],
            usage=before.usage + annotation.usage,
        )
    return totals


def paid(plan: TeachingPlan, usage: TeacherUsage) -> float:
    """What a question cost, in the unit of its plan."""
    if plan.unit == "usd":
        return usage.cost_usd or 0.0
    return usage.prompt_tokens + COMPLETION_WEIGHT * usage.completion_tokens
