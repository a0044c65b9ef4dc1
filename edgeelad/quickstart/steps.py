"""Fill the step templates of a chain, and find the equations in a step.

Takes the templates of `skills` and the numbers of a question. Knows no questions, and judges arithmetic only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from edgeelad.errors import InputError

_SLOT = re.compile(r"\[(?P<result>[a-z])=(?P<left>\w+)(?P<operator>[-+*/])(?P<right>\w+)\]")
_EQUATION = re.compile(
    r"(?<![\w.])(?P<left>\d+) *(?P<operator>[-+*/x×÷−]) *(?P<right>\d+) *= *(?P<result>-?\d+)(?!\w|\.\d)"
)
_OPERATORS = {"x": "*", "×": "*", "÷": "/", "−": "-"}


@dataclass(frozen=True, slots=True)
class Equation:
    """`left operator right = result`, as a step states it; the operator is one of + - * /."""

    left: int
    operator: str
    right: int
    result: int

    @property
    def is_true(self) -> bool:
        """Whether it holds; a division must have no remainder."""
        if self.operator == "/":
            return self.right != 0 and self.result * self.right == self.left
        return self.result == compute(self.left, self.operator, self.right)

    @property
    def key(self) -> tuple[str, int, int]:
        """What it computes; the same for `3 + 4` and `4 + 3`."""
        if self.operator in "+*":
            return (self.operator, min(self.left, self.right), max(self.left, self.right))
        return (self.operator, self.left, self.right)

    def __str__(self) -> str:
        return f"{self.left} {self.operator} {self.right} = {self.result}"


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A step that a chain prescribes for a question: its text and its one equation."""

    text: str
    equation: Equation


def compute(left: int, operator: str, right: int) -> int:
    """The value of `left operator right`.

    Raises:
        InputError: A division that does not come out even.
    """
    if operator == "+":
        return left + right
    if operator == "-":
        return left - right
    if operator == "*":
        return left * right
    assert operator == "/", operator
    if right == 0 or left % right:
        raise InputError(f"{left} / {right} is not a whole number; the quickstart's problems have whole numbers only")
    return left // right


def fill_chain(chain: tuple[str, ...], numbers: Mapping[str, int], words: Mapping[str, str]) -> tuple[PlannedStep, ...]:
    """Fill a chain's templates for one question; each result is a number for the later steps.

    Raises:
        InputError: A result is negative or no whole number.
    """
    known = dict(numbers)
    planned = []
    for template in chain:
        slot = _SLOT.search(template)
        assert slot is not None, template
        left, right = (int(name) if name.isdigit() else known[name] for name in slot.group("left", "right"))
        result = compute(left, slot["operator"], right)
        if result < 0:
            raise InputError(f"{left} - {right} is negative; the quickstart's problems have no negative numbers")
        known[slot["result"]] = result
        equation = Equation(left, slot["operator"], right, result)
        text = template[: slot.start()] + str(equation) + template[slot.end() :]
        planned.append(PlannedStep(text.format_map(words), equation))
    return tuple(planned)


def find_equations(step: str) -> tuple[Equation, ...]:
    """The equations that a step states, in order.

    >>> find_equations("So Ann has 3 + 4 = 7 pens.")
    (Equation(left=3, operator='+', right=4, result=7),)
    """
    return tuple(
        Equation(
            int(match["left"]),
            _OPERATORS.get(match["operator"], match["operator"]),
            int(match["right"]),
            int(match["result"]),
        )
        for match in _EQUATION.finditer(step)
    )


def replace_equation(step: str, equation: Equation) -> str:
    """The step with its equation replaced and all other words kept."""
    match = _EQUATION.search(step)
    assert match is not None, step
    return step[: match.start()] + str(equation) + step[match.end() :]
