"""Read a group of digits, points and commas as an exact number, and write exact numbers in one canonical form.

Takes and gives text: a plain decimal where the value has one ("1200", "-0.5"), else a reduced fraction ("1/3"). Works
on digits and fractions, never on floats, so nothing is rounded and any length works.
"""

from __future__ import annotations

import re
from fractions import Fraction

GROUP = r"[0-9]+(?:[.,][0-9]+)*"  # digits with points and commas between them, whether or not they are a number

_PLAIN = re.compile(r"[0-9]*\.?[0-9]+")
_THOUSANDS = re.compile(r"(?!0)[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?")
_LAKHS = re.compile(r"(?!0)[0-9]{1,2}(?:,[0-9]{2})+,[0-9]{3}(?:\.[0-9]+)?")


def read_group(group: str) -> str | None:
    """The digits of a number without its separators; None if the commas or points are not those of one number.

    >>> read_group("1,200.50"), read_group("12,34,567"), read_group(".5"), read_group("0,500"), read_group("1.2.3")
    ('1200.50', '1234567', '.5', None, None)
    """
    if _PLAIN.fullmatch(group):
        return group
    if _THOUSANDS.fullmatch(group) or _LAKHS.fullmatch(group):
        return group.replace(",", "")
    return None


def format_decimal(digits: str, exponent: int = 0, *, is_negative: bool = False) -> str:
    """Shift the point of a decimal by `exponent` places and drop idle zeros.

    >>> format_decimal("1.50", 3), format_decimal("007", -2, is_negative=True)
    ('1500', '-0.07')
    """
    whole, _, part = digits.partition(".")
    point, figures = len(whole) + exponent, whole + part
    figures = "0" * max(-point, 0) + figures + "0" * max(point - len(figures), 0)
    point = max(point, 0)
    whole, part = figures[:point].lstrip("0") or "0", figures[point:].rstrip("0")
    text = f"{whole}.{part}" if part else whole
    return f"-{text}" if is_negative and text != "0" else text


def format_fraction(value: Fraction) -> str:
    """The canonical text of an exact value: a plain decimal where one exists, else the reduced fraction.

    >>> format_fraction(Fraction(7, 4)), format_fraction(Fraction(-2, 6))
    ('1.75', '-1/3')
    """
    rest, twos, fives = value.denominator, 0, 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    if rest != 1:
        return f"{value.numerator}/{value.denominator}"
    places = max(twos, fives)
    return format_decimal(str(abs(value.numerator) * 10**places // value.denominator), -places, is_negative=value < 0)
