"""Turn an equation in prefix notation over the numbers of a question into steps of one operation each.

From tokens such as `- number0 * number1 number2` and the numbers' values it makes `1500 * 8 = 12000` and
`25000 - 12000 = 13000`. Values are fractions, so results are exact.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from edgeelad.text.digits import format_fraction

OPERATORS: dict[str, Callable[[Fraction, Fraction], Fraction]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}
FLOAT_DIGITS = 12  # a decimal of so many digits is a printed float
MAX_DENOMINATOR = 1000


@dataclass(frozen=True, slots=True)
class Solution:
    """The operations of an equation in order of computation, and its value."""

    steps: tuple[str, ...]
    value: Fraction


def read_value(text: str) -> Fraction:
    """The exact value of a published number; a printed float such as 0.16666666666666666 becomes the fraction 1/6.

    Raises:
        ValueError: It is not a number.
    """
    value = Fraction(text)
    simple = value.limit_denominator(MAX_DENOMINATOR)
    is_float = len(text) >= FLOAT_DIGITS and abs(value - simple) <= abs(value) / 10**12
    return simple if is_float else value


def solve_prefix(tokens: Sequence[str], numbers: Mapping[str, Fraction]) -> Solution:
    """Compute an equation in prefix notation, operation by operation, operands first.

    Raises:
        ValueError: Too few or too many tokens, or an unknown name.
        ZeroDivisionError: It divides by zero.
    """
    stack: list[Solution] = []
    for token in reversed(tokens):  # from the right, operands are met before their operator: no recursion
        if token not in OPERATORS:
            stack.append(Solution((), numbers[token] if token in numbers else read_value(token)))
            continue
        if len(stack) < 2:
            raise ValueError(f"{token} has too few operands")
        left, right = stack.pop(), stack.pop()
        value = OPERATORS[token](left.value, right.value)
        step = f"{format_fraction(left.value)} {token} {_right(right.value, token)} = {format_fraction(value)}"
        stack.append(Solution((*left.steps, *right.steps, step), value))
    if len(stack) != 1:
        raise ValueError("operators and operands do not match")
    return stack[0]


def rounds_to(value: Fraction, stated: str) -> bool:
    """Whether a published decimal is a value rounded to the decimal's own number of places."""
    places = len(stated.rstrip("0").partition(".")[2])
    return abs(value - Fraction(stated)) <= Fraction(1, 2 * 10**places)


def _right(value: Fraction, token: str) -> str:
    text = format_fraction(value)
    return f"({text})" if value < 0 or (token == "/" and "/" in text) else text
