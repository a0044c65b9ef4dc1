"""The value of an arithmetic expression, as an exact fraction, under each way of reading it.

Takes tokens; gives fractions. A percent sign may be worth a hundredth or nothing, "2 1/2" is a mixed number or a
product, "7!" is a factorial or an exclamation: an equation is false only if it is false under every reading.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise, product
from math import factorial

from edgeelad.text.tokens import MAX_DIGITS, Token

MAX_EXPONENT = 64
MAX_FACTORIAL = 30
MAX_DEPTH = 50
MAX_VALUE = 10 ** (4 * MAX_DIGITS)  # of a numerator or denominator
REPEATING = (3, 6, 7, 9, 11)  # a decimal such as 16.67 may stand for a fraction with one of these denominators

_PI_TEXTS = frozenset({"3.14", "3.142", "3.1416", "3.1415", "3.14159", "3.141593"})
_PI = Fraction(3141592653589793, 10**15)


class UnreadableError(Exception):
    """Not plain arithmetic; never leaves this package."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One way to read an expression.

    Attributes:
        percent: What a percent sign is worth.
        is_relative: Whether "+ 10%" adds ten percent of what stands before it.
        is_mixed: Whether a fraction right behind a whole number is added to it; else it is multiplied.
        is_factorial: Whether an exclamation mark is a factorial; else it is ignored.
        is_rounded: Whether decimals stand for the fractions, or the π, that they round.
        is_tight: Whether what is written close together is read first: "8 / 2(2 + 2)", "-3^2".
    """

    percent: Fraction = Fraction(1, 100)
    is_relative: bool = False
    is_mixed: bool = True
    is_factorial: bool = True
    is_rounded: bool = False
    is_tight: bool = False


def readings(tokens: Sequence[Token]) -> Iterator[Reading]:
    """Every way to read an expression; most have one."""
    hundredth, one = Fraction(1, 100), Fraction(1)
    has_percent = any(token.is_percent for token in tokens)
    percents = [(hundredth, False), (one, False), (hundredth, True)] if has_percent else [(hundredth, False)]
    mixed = [True, False] if any(token.is_fraction for token in tokens) or _has_ratio_after_number(tokens) else [True]
    # "7!" may be an exclamation at the end only
    factorials = (
        [True, False] if [token.text for token in tokens].count("!") == 1 and tokens[-1].text == "!" else [True]
    )
    rounded = [False, True] if any(token.num_decimals >= 2 for token in tokens) else [False]
    tight = [False, True] if any(map(_is_tight, tokens, tokens[1:])) else [False]
    for (percent, is_relative), *rest in product(percents, mixed, factorials, rounded, tight):
        yield Reading(percent, is_relative, *rest)


def evaluate(tokens: Sequence[Token], reading: Reading) -> Fraction:
    """The value of an expression with units.

    Raises:
        UnreadableError: Not an expression, division by zero, or numbers too large.
    """
    plain = [token for token in tokens if token.kind != "word"]
    value, end = _Evaluation(plain, reading).sum(0, 0)
    if end != len(plain):
        raise UnreadableError
    return value


def _has_ratio_after_number(tokens: Sequence[Token]) -> bool:
    return any(first.kind == second.kind == "number" for first, second in pairwise(tokens))


def _is_tight(first: Token, second: Token) -> bool:
    is_product = second.kind == "(" and first.kind in ("number", ")")
    return second.is_glued and (is_product or first.text in ("-", "*", "/"))


@dataclass(frozen=True, slots=True)
class _Evaluation:
    """Recursive descent over tokens; each method takes a position and gives a value and the position after it."""

    tokens: Sequence[Token]
    reading: Reading

    def sum(self, start: int, depth: int) -> tuple[Fraction, int]:
        value, end = self.product(start, depth)
        while self.text(end) in ("+", "-"):
            sign = 1 if self.text(end) == "+" else -1
            first = end + 1
            term, end = self.product(first, depth)
            if self.reading.is_relative and end == first + 1 and self.tokens[first].is_percent:
                term *= value
            value = _bounded(value + sign * term)
        return value, end

    def product(self, start: int, depth: int) -> tuple[Fraction, int]:
        value, end = self.power(start, depth)
        divisor = Fraction(1)
        while end < len(self.tokens):
            token = self.tokens[end]
            is_division = token.text == "/"
            if is_division and end >= 2 and self.text(end - 2) == "/":
                raise UnreadableError  # "3 / 1/4" and "3 / 1 / 4" look alike and are not
            # "2(3 + 4)" and "(2)(3)" are products as well
            is_beside = token.kind == "(" or (token.is_fraction and not self.reading.is_mixed)
            if not (is_division or token.text == "*" or is_beside):
                break
            first = end if is_beside else end + 1
            factor, end = self.power(first, depth)
            if is_division or (self.reading.is_tight and divisor != 1 and self.tokens[first].is_glued):
                divisor = _bounded(divisor * factor)
            else:
                value = _bounded(value * factor)
        if divisor == 0:
            raise UnreadableError
        return _bounded(value / divisor), end

    def power(self, start: int, depth: int) -> tuple[Fraction, int]:
        value, end = self.atom(start, depth)
        while self.text(end) == "!":
            if self.reading.is_factorial:
                if value.denominator != 1 or not 0 <= value <= MAX_FACTORIAL:
                    raise UnreadableError
                value = Fraction(factorial(int(value)))
            end += 1
        if self.text(end) == "^":
            exponent, end = self.atom(end + 1, depth + 1)
            if exponent.denominator != 1 or abs(exponent) > MAX_EXPONENT or (value == 0 and exponent < 0):
                raise UnreadableError
            _bounded(value)
            value = _bounded(value ** int(exponent))
        return value, end

    def atom(self, start: int, depth: int) -> tuple[Fraction, int]:
        if start >= len(self.tokens) or depth > MAX_DEPTH:
            raise UnreadableError
        token = self.tokens[start]
        if token.kind == "number":
            return self.number(start)
        if token.kind == "op" and token.text in "+-":
            is_tight = self.reading.is_tight and start + 1 < len(self.tokens) and self.tokens[start + 1].is_glued
            value, end = (self.atom if is_tight else self.power)(start + 1, depth + 1)
            return (-value if token.text == "-" else value), end
        if token.kind == "(":
            value, end = self.sum(start + 1, depth + 1)
            if end < len(self.tokens) and self.tokens[end].kind == ")":
                return value, end + 1
        raise UnreadableError

    def number(self, start: int) -> tuple[Fraction, int]:
        """A number, and if it is whole, the fraction behind it: "2 1⁄2" or "2 1/2"."""
        token = self.tokens[start]
        value = token.value
        if self.reading.is_rounded and token.num_decimals >= 2:
            value = _unrounded(token)
        value, end = value * (self.reading.percent if token.is_percent else 1), start + 1
        is_whole = value.denominator == 1 and not token.num_decimals and self.reading.is_mixed
        if is_whole and end < len(self.tokens) and self.tokens[end].kind == "number":
            part = self.tokens[end]
            if part.is_fraction:
                return value + part.value, end + 1
            if self.text(end + 1) == "/" and end + 2 < len(self.tokens) and self.tokens[end + 2].kind == "number":
                divisor = self.tokens[end + 2].value
                if 0 < part.value < divisor:
                    return value + part.value / divisor, end + 3
        return value, end

    def text(self, index: int) -> str:
        return self.tokens[index].text if 0 <= index < len(self.tokens) and self.tokens[index].kind == "op" else ""


def _bounded(value: Fraction) -> Fraction:
    if max(abs(value.numerator), value.denominator) > MAX_VALUE:
        raise UnreadableError
    return value


def _unrounded(token: Token) -> Fraction:
    """The fraction, or the π, that a decimal rounds or cuts off; itself if there is none."""
    if token.text in _PI_TEXTS:
        return _PI
    unit = Fraction(1, 10**token.num_decimals)
    for denominator in REPEATING:
        near = Fraction(round(token.value * denominator), denominator)
        if abs(near - token.value) < unit and near.denominator in REPEATING:
            return near
    return token.value
