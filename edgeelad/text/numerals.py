"""Read numbers as people and models write them, exactly, and write them in one canonical form.

Takes text; gives a plain decimal where the value has one ("1200", "-0.5"), else a reduced fraction ("1/3"); None where
there is no number. Arithmetic is on digits and fractions, never on floats, so nothing is rounded and any length works.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

MAX_EXPONENT = 300  # of scientific notation; "1e999999999" is not worth its zeros
MAX_FRACTION_DIGITS = 300  # of a numerator or denominator: exact arithmetic on longer ones is a trap, not an answer

_DECIMAL = r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
_EXPONENT = r"(?:[eE](?P<e>[-+]?[0-9]{1,9})(?![0-9])|\s*[x×*]\s*10\s*\^\s*\{?\s*(?P<power>[-+]?[0-9]{1,9})\s*\}?)"
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_NUMBER = re.compile(
    r"(?<![0-9A-Za-z_.^])(?<!\^[-+])(?P<sign>(?<![0-9)\]}])[-+])?"
    rf"(?:(?P<whole>[0-9]+)\s+(?P<part>[0-9]+\s*/\s*[0-9]+)(?![0-9.])(?!\s*/\s*[0-9])"
    rf"|(?P<ratio>{_DECIMAL}\s*/\s*{_DECIMAL})(?![0-9])(?!\s*/\s*[0-9])"
    rf"|(?P<decimal>{_DECIMAL})(?![0-9])(?:{_EXPONENT}|\s+(?P<scale>{'|'.join(_SCALES)})s?\b)?)"
    r"(?!\.[0-9])(?!\s*\^|[²³])",
    re.ASCII | re.IGNORECASE,
)

_CURRENCY = "$€£¥₹₩₽₺₫¢￥＄"
_PLAIN_CHARACTERS = str.maketrans(
    {
        **dict.fromkeys("−–—‐‑‒﹣－", "-"),
        **{chr(0xFF10 + digit): str(digit) for digit in range(10)},
        "＋": "+", "⁄": "/", "∕": "/", "÷": "/", "％": "%", "＝": "=", "，": ",", "．": ".",
    }
)  # fmt: skip
_VULGAR = {
    "¼": "1/4", "½": "1/2", "¾": "3/4", "⅐": "1/7", "⅑": "1/9", "⅒": "1/10", "⅓": "1/3", "⅔": "2/3", "⅕": "1/5",
    "⅖": "2/5", "⅗": "3/5", "⅘": "4/5", "⅙": "1/6", "⅚": "5/6", "⅛": "1/8", "⅜": "3/8", "⅝": "5/8", "⅞": "7/8",
}  # fmt: skip
_REWRITES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\\[dt]?frac\s*\{\s*([^{}]*?)\s*\}\s*\{\s*([^{}]*?)\s*\}"), r" \1/\2 "),
    (re.compile(r"\\[dt]?frac\s*([0-9])\s*([0-9])"), r" \1/\2 "),
    (re.compile(r"\\(?:text|mathrm|mathbf|textbf|mbox)\s*\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"\\times|\\cdot"), "×"),
    (re.compile(r"(?<=[0-9])(?:\{,\}|\\,|\\!,?|[\u00a0\u2009\u202f'’_])(?=[0-9]{3}(?![0-9]))"), ","),
    (re.compile(r"\^\s*\{?\s*([-+]?[0-9]+)\s*\}?"), r"^\1"),
    (re.compile(r"\\[()\[\]!,;: ]|\\left|\\right"), " "),
    (re.compile(r"\\(?=[$%])"), ""),
    (re.compile(rf"([-+])\s*[{_CURRENCY}]\s*(?=[0-9.])"), r" \1"),
    (re.compile(rf"(?:\b(?:US|CA|AU|A|C|HK)\b)?[{_CURRENCY}]"), " "),
    (re.compile(r"\b(?:Rs\.?|USD|EUR|GBP|INR)(?=\s*[-+]?[0-9.])", re.IGNORECASE), " "),
)
_SENTENCE_END = re.compile(r"[.!?;]\s")
_LONE_SIGN = re.compile(r"\A\s*([-+])\s+(?=[0-9.])")
_PLAIN_UNIT = re.compile(r"\s*(?:%|percent\b|°\s*[CF]?|[a-z][a-z23²³^/-]*(?:\s+[a-z][a-z23²³^/-]*){0,2})?\s*\.?\s*")


@dataclass(frozen=True, slots=True)
class _Found:
    """A number in a text: its canonical form (None: too long to compute, or division by zero), and where it stands."""

    value: str | None
    start: int
    end: int


def canonical_number(value: str) -> str | None:
    """The one number that a bare answer holds; None for none, for several, and for what cannot be computed.

    In "x = 3 + 2 = 5" only what follows the last equals sign counts; in "5 cups. She had 8." only the first sentence
    with a number.
    """
    for sentence in _SENTENCE_END.split(_plain(value)):
        for part in (sentence.rpartition("=")[2], sentence):
            found = list(_find(_LONE_SIGN.sub(r"\1", part)))
            if found:
                return found[0].value if len(found) == 1 else None
    return None


def first_number(text: str) -> str | None:
    """The first number of a text; None where there is none."""
    return next((found.value for found in _find(_plain(text)) if found.value is not None), None)


def last_number(text: str) -> str | None:
    """The last number of a text; None where there is none."""
    last = None
    for found in _find(_plain(text)):
        last = found.value if found.value is not None else last
    return last


def is_plain_number(value: str) -> bool:
    """Whether a value is a number alone, with at most a currency or percent sign or a short unit in lower case."""
    text = _LONE_SIGN.sub(r"\1", _plain(value)).strip()
    found = list(_find(text))
    if len(found) != 1 or found[0].value is None or text[: found[0].start].strip():
        return False
    return _PLAIN_UNIT.fullmatch(text[found[0].end :]) is not None


def _plain(text: str) -> str:
    """Rewrite typography, LaTeX and currency so that a number is digits, signs, points, commas and slashes."""
    text = text.translate(_PLAIN_CHARACTERS)
    for sign, ratio in _VULGAR.items():
        if sign in text:
            text = text.replace(sign, f" {ratio} ")
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    return text


def _find(text: str) -> Iterator[_Found]:
    for match in _NUMBER.finditer(text):
        yield _Found(_value(match), match.start(), match.end())


def _value(match: re.Match[str]) -> str | None:
    is_negative = match["sign"] == "-"
    if match["decimal"] is not None:
        scale = _SCALES[match["scale"].lower()] if match["scale"] else 0
        exponent = int(match["e"] or match["power"] or scale)
        return _decimal(match["decimal"], exponent, is_negative) if abs(exponent) <= MAX_EXPONENT else None
    top, bottom = (match["part"] or match["ratio"]).replace(",", "").split("/")
    if max(len(top), len(bottom), len(match["whole"] or "")) > MAX_FRACTION_DIGITS or not bottom.strip(" \t\n.0"):
        return None
    value = int(match["whole"] or 0) + Fraction(top.strip()) / Fraction(bottom.strip())
    return format_fraction(-value if is_negative else value)


def _decimal(digits: str, exponent: int, is_negative: bool) -> str:
    """Shift the point by `exponent` places and drop idle zeros; on text, so that any number of digits works."""
    whole, _, part = digits.replace(",", "").partition(".")
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
    return _decimal(str(abs(value.numerator) * 10**places // value.denominator), -places, value < 0)
