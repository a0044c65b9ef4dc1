"""Tokens of arithmetic in running text, and their value as an exact fraction.

The lower half of `arithmetic`: what a number, an operator and a unit look like, precedence, and which units do not mix.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

MAX_DIGITS = 40
MAX_EXPONENT = 12
MAX_DEPTH = 50

TokenKind = Literal["number", "op", "(", ")", "=", "word", "variable", "other"]


class UnreadableError(Exception):
    """Not plain arithmetic; never leaves this package."""


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of text; `is_glued`: no space before it and the piece before."""

    kind: TokenKind
    text: str
    is_glued: bool = False
    value: Fraction = Fraction(0)
    num_decimals: int = 0
    is_percent: bool = False


_REWRITES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"[×·⋅∗✕]|\\times|\\cdot", "*"),
        (r"[÷∕]|\\div", "/"),
        (r"[−–—‒]", "-"),
        (r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"((\1)/(\2))"),
        (r"\\(?:text|mathrm|mathbf)\s*\{([^{}]*)\}", r" \1 "),
        (r"\\[()\[\]]|\\left|\\right|\\[,;! ]", " "),
        (r"\\(?=[$%])", ""),
        (r"(?<=\d)\*\*(?=\d)", "^"),
        (r"\*\*|`", ""),
        (r"(?<=[\d%)])\s*percent\b", "%"),
        (r"[≈≅]|==", "="),
        # what looks like an equals sign and is none
        (r"=>|[<>!~]=|=/=|->", " ; "),
    )
)
_PIECE = re.compile(
    r"(?P<clock>\d+:\d+)"
    r"|(?P<number>(?:[$€£]\s?)?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?P<percent>\s?%)?)"
    r"|(?P<word>¢|[^\W\d_]+(?:['’-][^\W\d_]+)*)"
    r"|(?P<op>[-+*/^])|(?P<open>[(\[])|(?P<close>[)\]])|(?P<equals>=)|(?P<other>\S)"
)
_KINDS: dict[str, TokenKind] = {"word": "word", "op": "op", "open": "(", "close": ")", "equals": "="}

_FAMILIES = (
    "second sec minute min hour hr day week month year decade century",
    "mm cm m km millimeter centimeter meter kilometer inch foot ft yard mile",
    "mg g kg gram kilogram ounce oz pound lb ton",
    "ml l milliliter liter litre gallon quart pint cup tablespoon teaspoon",
    "cent dollar ¢ $ dime nickel penny quarter",
)
_FAMILY = {unit: number for number, family in enumerate(_FAMILIES) for unit in family.split()}
_PLURALS = {"feet": "foot", "inches": "inch", "centuries": "century", "pennies": "penny"}
# words that multiply: "2 dozen - 3", "5 million"
_SCALES = frozenset({"dozen", "hundred", "thousand", "million", "billion", "trillion", "pair", "half", "score", "k"})


def tokenize(text: str) -> list[Token]:
    """Cut a text into numbers, operators, parentheses, equals signs, words and the rest."""
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    tokens: list[Token] = []
    end = 0
    for match in _PIECE.finditer(text):
        is_glued = match.start() == end and end > 0
        tokens.append(_token(match, is_glued))
        end = match.end()
    return _operators_in_words(tokens)


def evaluate(tokens: Sequence[Token], percent: Fraction) -> Fraction:
    """The value of an expression with units, each percent sign being worth `percent`.

    Raises:
        UnreadableError: Not an expression, division by zero, or numbers too large.
    """
    plain = [token for token in tokens if token.kind != "word"]
    value, end = _sum(plain, 0, percent, 0)
    if end != len(plain):
        raise UnreadableError
    return value


def units_clash(left: Sequence[Token], right: Sequence[Token]) -> bool:
    """Whether an equation converts between units or scales, so that its bare numbers say nothing.

    Sums over several units of one kind do ("1 hour + 30 minutes"), and so does a result in a unit of the same kind that
    the left side does not have ("20 minutes * 3 = 1 hour").
    """
    left_units, right_units = _units(left), _units(right)
    if (left_units | right_units) & _SCALES:
        return True
    families = {_FAMILY[unit]: unit for unit in left_units if unit in _FAMILY}
    if any(token.text in "+-" for token in left if token.kind == "op"):
        counted = [_FAMILY[unit] for unit in left_units if unit in _FAMILY]
        if len(counted) != len(set(counted)):
            return True
    return any(_FAMILY.get(unit) in families and unit not in left_units for unit in right_units)


def _token(match: re.Match[str], is_glued: bool) -> Token:
    text = match.group()
    if match["number"] is not None:
        digits = re.sub(r"[^\d.]", "", text)
        if len(digits) > MAX_DIGITS:
            return Token("other", text, is_glued)
        num_decimals = len(digits.partition(".")[2])
        return Token("number", text, is_glued, Fraction(digits), num_decimals, match["percent"] is not None)
    return Token(_KINDS.get(match.lastgroup or "", "other"), text, is_glued)


def _operators_in_words(tokens: list[Token]) -> list[Token]:
    """Read "3 x 4", "20% of 50" and "1/2 of 50" as products, "miles/hour" as a unit, and "3x" as a variable."""
    read: list[Token] = []
    for index, token in enumerate(tokens):
        before = read[-1] if read else None
        after = tokens[index + 1] if index + 1 < len(tokens) else None
        if token.kind == "word" and before is not None:
            is_operand = after is not None and after.kind in ("number", "(")
            is_between = before.kind in ("number", ")") and is_operand
            is_times = before.kind in ("number", ")", "word") and is_operand and token.text in ("x", "X")
            if is_times and after is not None and token.is_glued == after.is_glued:
                token = replace(token, kind="op", text="*", is_glued=False)
            elif token.text == "of" and is_between and (before.is_percent or _is_ratio(read)):
                token = replace(token, kind="op", text="*")
            elif (
                len(token.text) == 1
                and token.text.isalpha()
                and (token.text != "a" or token.is_glued)
                and before.kind != "word"
            ):
                token = replace(token, kind="variable")
            elif before.kind == "op" and before.text == "/" and len(read) > 1 and read[-2].kind == "word":
                read.pop()
        read.append(token)
    return read


def _is_ratio(tokens: Sequence[Token]) -> bool:
    return len(tokens) >= 3 and tokens[-2].text == "/" and tokens[-3].kind == "number"


def _units(tokens: Sequence[Token]) -> set[str]:
    words = {token.text.lower().rstrip(".") for token in tokens if token.kind == "word"}
    if any(token.text.startswith("$") for token in tokens if token.kind == "number"):
        words.add("dollar")
    return {_PLURALS.get(word) or _singular(word) for word in words}


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 2 and word.endswith("s") else word


def _sum(tokens: Sequence[Token], start: int, percent: Fraction, depth: int) -> tuple[Fraction, int]:
    value, end = _product(tokens, start, percent, depth)
    while end < len(tokens) and tokens[end].kind == "op" and tokens[end].text in "+-":
        term, after = _product(tokens, end + 1, percent, depth)
        value, end = (value + term if tokens[end].text == "+" else value - term), after
    return value, end


def _product(tokens: Sequence[Token], start: int, percent: Fraction, depth: int) -> tuple[Fraction, int]:
    value, end = _power(tokens, start, percent, depth)
    while end < len(tokens):
        is_division = tokens[end].text == "/"
        if is_division and tokens[end - 2 : end - 1] and tokens[end - 2].text == "/":
            raise UnreadableError  # "3 / 1/4" and "3 / 1 / 4" look alike and are not
        # "2(3 + 4)" is a product as well
        if not (is_division or tokens[end].text == "*" or tokens[end].kind == "("):
            break
        factor, after = _power(tokens, end if tokens[end].kind == "(" else end + 1, percent, depth)
        if is_division and factor == 0:
            raise UnreadableError
        value, end = (value / factor if is_division else value * factor), after
        if max(abs(value.numerator), value.denominator) > 10 ** (4 * MAX_DIGITS):
            raise UnreadableError
    return value, end


def _power(tokens: Sequence[Token], start: int, percent: Fraction, depth: int) -> tuple[Fraction, int]:
    value, end = _atom(tokens, start, percent, depth)
    if end < len(tokens) and tokens[end].text == "^":
        exponent, end = _atom(tokens, end + 1, percent, depth)
        if exponent.denominator != 1 or not 0 <= exponent <= MAX_EXPONENT:
            raise UnreadableError
        value = value ** int(exponent)
    return value, end


def _atom(tokens: Sequence[Token], start: int, percent: Fraction, depth: int) -> tuple[Fraction, int]:
    if start >= len(tokens) or depth > MAX_DEPTH:
        raise UnreadableError
    token = tokens[start]
    if token.kind == "number":
        return token.value * (percent if token.is_percent else 1), start + 1
    if token.kind == "op" and token.text in "+-":
        value, end = _power(tokens, start + 1, percent, depth + 1)
        return (-value if token.text == "-" else value), end
    if token.kind == "(":
        value, end = _sum(tokens, start + 1, percent, depth + 1)
        if end < len(tokens) and tokens[end].kind == ")":
            return value, end + 1
    raise UnreadableError
