"""Lay out one question for the page: the student's steps with their uncertainty, the verified steps beside them.

Takes the records of `read`; returns records for the template. Marks the words that differ between a step and its
correction.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from edgeelad.records import Annotation, Correction, TeachingPlan
from edgeelad.report.read import RoundQuestions
from edgeelad.run.records import SelectedRow
from edgeelad.run.scores import ScoreRow
from edgeelad.run.teaching import paid
from edgeelad.text.prompts import CHOICE_LABELS

Origin = Literal["kept", "corrected", "student", "teacher"]
# steps with less in common are shown unmarked: marks on almost every word are hard to read
MIN_SIMILARITY = 0.5
_WORD = re.compile(r"\w+|\s+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of text, and whether a correction changed it."""

    text: str
    is_changed: bool


@dataclass(frozen=True, slots=True)
class StepRow:
    """Step `number` (from 1) of both explanations, side by side.

    Attributes:
        number: Counted from 1.
        before: The student's step; empty if its explanation is shorter.
        score: The uncertainty of the student's step, None if the strategy does not score steps.
        heat: The same scaled to [0, 1], for the color.
        without: Answers of the branches that did not see this step; empty if unknown or all equal to `given`.
        given: Answers of the branches that saw it.
        is_dropped: Whether the student's step is not in the verified explanation.
        after: The verified step; empty if that explanation is shorter.
        origin: The author of the verified step, or None.
        tokens: The step's tokens in figures; "" if unknown.
    """

    number: int
    before: tuple[Part, ...]
    score: float | None
    heat: float | None
    without: tuple[str | None, ...]
    given: tuple[str | None, ...]
    is_dropped: bool
    after: tuple[Part, ...]
    origin: Origin | None
    tokens: str = ""


@dataclass(frozen=True, slots=True)
class QuestionCard:
    """One question as it is shown."""

    id: str
    text: str
    choices: tuple[str, ...]
    reason: str
    score: float | None
    status: str
    rung: str
    set_aside_because: str
    rows: tuple[StepRow, ...]
    student_answer: str | None
    answer: str | None
    abandoned: tuple[Correction, ...]
    num_tokens: int
    risk: float | None = None
    plan: str = ""

    @property
    def is_student_right(self) -> bool:
        """Whether the student's own answer is the verified one."""
        return self.answer is not None and self.student_answer == self.answer


def make_cards(
    questions: Sequence[SelectedRow], round_questions: RoundQuestions, heat_scale: float
) -> list[QuestionCard]:
    """Make the cards of a round's questions; a step score of `heat_scale` gets the strongest color."""
    return [
        make_card(
            question,
            round_questions.annotations[question.id],
            round_questions.explanations.get(question.id),
            heat_scale,
            round_questions.plans.get(question.id),
        )
        for question in questions
    ]


def make_card(
    question: SelectedRow,
    annotation: Annotation,
    explanation: ScoreRow | None,
    heat_scale: float,
    plan: TeachingPlan | None = None,
) -> QuestionCard:
    """Make the card of one question."""
    student_steps = annotation.student_steps or (explanation.steps if explanation is not None else ())
    # scores belong to the steps that were scored: with any other explanation they are not shown
    scored = explanation if explanation is not None and explanation.steps == student_steps else None
    rows = _rows(student_steps, annotation, scored, heat_scale)
    used = {(row.number - 1, "".join(part.text for part in row.after)) for row in rows if row.origin == "corrected"}
    return QuestionCard(
        id=question.id,
        text=question.question,
        choices=tuple(f"({label}) {text}" for label, text in zip(CHOICE_LABELS, question.choices, strict=False)),
        reason=question.reason,
        score=question.score,
        status=annotation.status,
        rung=annotation.rung,
        set_aside_because=annotation.reason,
        rows=rows,
        student_answer=explanation.answer if explanation is not None else None,
        answer=annotation.answer,
        abandoned=tuple(item for item in annotation.corrections if (item.step, item.after) not in used),
        num_tokens=annotation.usage.prompt_tokens + annotation.usage.completion_tokens,
        risk=explanation.risk if explanation is not None else None,
        plan="" if plan is None else _explained(plan, annotation),
    )


def _explained(plan: TeachingPlan, annotation: Annotation) -> str:
    """How a question was taught, what each way was expected to cost (the cheapest first), and what it cost."""

    def money(cost: float) -> str:
        return f"${cost:.5f}" if plan.unit == "usd" else f"{cost:,.0f}"

    costs = sorted(plan.expected.items(), key=lambda item: item[1])
    expected = ", ".join(f"{way} {money(cost)}" for way, cost in costs)
    trial = " (a trial)" if plan.is_trial else ""
    unit = "" if plan.unit == "usd" else " in prompt tokens"
    return f"way: {plan.way}{trial} · expected{unit}: {expected} · paid: {money(paid(plan, annotation.usage))}"


def _rows(
    student_steps: tuple[str, ...], annotation: Annotation, scored: ScoreRow | None, heat_scale: float
) -> tuple[StepRow, ...]:
    final = annotation.steps
    corrections = {(item.step, item.after): item for item in annotation.corrections}
    rows = []
    for index in range(max(len(student_steps), len(final))):
        before = student_steps[index] if index < len(student_steps) else ""
        after = final[index] if index < len(final) else ""
        is_anew = annotation.status == "rationale"  # all steps are the teacher's, even equal ones
        is_kept = before == after and not is_anew  # an unchanged step
        correction = None if is_kept or is_anew else corrections.get((index, after))
        is_of_greedy = correction is not None and correction.before == before
        is_marked = is_of_greedy and _similarity(before, after) >= MIN_SIMILARITY
        before_parts, after_parts = diff(before, after) if is_marked else (_plain(before), _plain(after))
        score = scored.step_scores[index] if scored is not None and index < len(scored.step_scores) else None
        without, given = _branches(scored, index)
        rows.append(
            StepRow(
                number=index + 1,
                before=before_parts,
                score=score,
                heat=None if score is None else min(1.0, max(0.0, score / heat_scale)),
                without=without,
                given=given,
                is_dropped=bool(final) and bool(before) and before != after,
                after=after_parts,
                origin=_origin(is_kept, correction is not None, annotation.status) if after else None,
                tokens=_tokens(scored, index),
            )
        )
    return tuple(rows)


def _tokens(scored: ScoreRow | None, index: int) -> str:
    if scored is None or index >= len(scored.traces) - 1:  # the last trace is of the answer line
        return ""
    trace = scored.traces[index]
    return (
        f"{trace.num_tokens} tokens; entropy {trace.mean_entropy:.2f} nats on average, {trace.max_entropy:.2f} at "
        f"most; lowest window of log-probabilities {trace.lowest_window:.2f}"
    )


def _origin(is_kept: bool, is_corrected: bool, status: str) -> Origin:
    if is_kept:
        return "kept"
    if is_corrected:
        return "corrected"
    return "teacher" if status in ("completed", "rationale") else "student"


def _branches(scored: ScoreRow | None, index: int) -> tuple[tuple[str | None, ...], tuple[str | None, ...]]:
    if scored is None or index + 1 >= len(scored.branch_answers):
        return (), ()
    without, given = scored.branch_answers[index], scored.branch_answers[index + 1]
    return ((), ()) if len(set(without) | set(given)) <= 1 else (without, given)


def diff(before: str, after: str) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    """Which words of two texts differ: the parts of each, in order.

    >>> diff("3 + 4 = 8", "3 + 4 = 7")[1]
    (Part(text='3 + 4 = ', is_changed=False), Part(text='7', is_changed=True))
    """
    old, new = _WORD.findall(before), _WORD.findall(after)
    before_parts: list[Part] = []
    after_parts: list[Part] = []
    for tag, i1, i2, j1, j2 in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        for parts, text in ((before_parts, "".join(old[i1:i2])), (after_parts, "".join(new[j1:j2]))):
            if text:
                parts.append(Part(text, tag != "equal"))
    return tuple(before_parts), tuple(after_parts)


def _similarity(before: str, after: str) -> float:
    """Share of words that two steps have in common, in order."""
    return difflib.SequenceMatcher(None, before.split(), after.split(), autojunk=False).ratio()


def _plain(text: str) -> tuple[Part, ...]:
    return (Part(text, False),) if text else ()
