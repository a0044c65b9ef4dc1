"""Whether an explanation may be trained on: it reaches the reference answer, and what it calculates is right.

Every chain that is accepted, on whatever rung, has passed `find_flaw`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeelad.records import AnswerKind, Question
from edgeelad.text.answers import agree, canonical
from edgeelad.text.arithmetic import equations, false_equation
from edgeelad.text.digits import format_fraction
from edgeelad.text.numerals import last_number


@dataclass(frozen=True, slots=True)
class Flaw:
    """Why a chain cannot be used; `step` is the 0-based step that is false, None if none can be named."""

    reason: str
    step: int | None = None


def find_flaw(steps: Sequence[str], answer: str | None, reference: str, kind: AnswerKind) -> Flaw | None:
    """The first reason not to use a chain; None if it is verified.

    Args:
        steps: The chain's steps.
        answer: The canonical answer that it states.
        reference: The reference answer a*.
        kind: Stated arithmetic is checked if this is "number".
    """
    if not steps:
        return Flaw("it has no steps")
    step = first_false_step(steps) if kind == "number" else None
    if step is not None:
        return Flaw(f"step {step + 1} states {false_equation(steps[step])}, which is false", step)
    if answer is None:
        return Flaw("it states no answer")
    if not agree(answer, reference):
        return Flaw(f"it reaches {answer}, not {reference}")
    return None


def first_false_step(steps: Sequence[str]) -> int | None:
    """The first step that states a false equation (0-based); None if all hold."""
    return next((index for index, step in enumerate(steps) if false_equation(step) is not None), None)


def calculates(steps: Sequence[str], reference: str) -> bool:
    """Whether the last equation of the last step comes out at the reference answer."""
    found = equations(steps[-1]) if steps else []
    return bool(found) and found[-1].holds and format_fraction(found[-1].value) == reference


def ends_with(steps: Sequence[str], ending: str | None, reference: str, question: Question) -> bool:
    """Whether an explanation may end after `steps`, if the teacher puts the answer line `ending` after them.

    The teacher was told the reference, so its word is not enough: what it calls superfluous might be what is missing.
    The last step has to name the answer itself; yes and no, which any sentence might hold, are never taken to be named.
    """
    if not agree(ending, reference) or find_flaw(steps, ending, reference, question.kind) is not None:
        return False
    last = steps[-1]
    if question.kind == "number":
        return agree(last_number(last), reference)
    if question.kind == "choice":
        return f"({reference})" in last or any(
            _names(last, text) for text in question.choices if canonical(text, "choice", question.choices) == reference
        )
    return question.kind == "text" and _names(last, reference)


def _names(step: str, text: str) -> bool:
    """Whether the words of `text` stand in a step, one after the other."""
    wanted = canonical(text, "text")
    return wanted is not None and f" {wanted} " in f" {canonical(step, 'text')} "
