"""Find the arithmetic equations that a step states, and say which are false.

Takes the text of a step, gives equations; knows no questions. Exact: numbers are fractions, and only what a step itself
rounds is rounded. Careful: an equation is false only if it is false under every way of reading it, and what is not
plainly arithmetic (variables, functions, clock times, remainders, conversions of units) is not judged.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache

from edgeelad.text.expressions import MAX_DEPTH, UnreadableError, evaluate, readings
from edgeelad.text.sides import expression_after, expression_before
from edgeelad.text.tokens import Token, is_ratio, tokenize
from edgeelad.text.units import DATES, UNLIKE_ARITHMETIC, units_clash, units_of

MAX_STEP_CHARS = 20_000
MAX_REMEMBERED = 256  # steps: the branches of a reasoning tree repeat those before them

_ABOUT = re.compile(
    r"≈|≅|\b(?:about|approximately|approx|roughly|rounded|rounds|rounding|around|nearly|almost)\b", re.I
)
_LEFT_OVER = re.compile(r"\b(?:remain\w*|left\s?over|full|whole|complete)\b", re.I)
_SIGN = re.compile(r"[=≈≃≅≒＝]|\b(?:equals|equal to)\b|\\(?:approx|simeq|cong|doteq)")
_ANNOTATION = re.compile(r"<<([^<>]*)>>")  # GSM8K's calculator marks
_FRACTIONAL = re.compile(r"=\s?-?[0-9]*\.[0-9]*[1-9]")
_BULLET = re.compile(r"^\s*(?:[*•]\s+|\(?[0-9]+[.):]\s+|step\s+[0-9]+\s*[.:]?\s+)", re.I)
_SCIENTIFIC = re.compile(r"-? ?[0-9.]+ \* 10 \^ (?:\( )?(-? ?[0-9]{1,2})(?: \))?")
_NOISE = Fraction(1, 10**9)  # relative; of numbers with as many digits as floats have
_NOISY_DECIMALS = 10


@dataclass(frozen=True, slots=True)
class Equation:
    """One stated equation: its two sides as written, whether it holds, and the value of its right side."""

    left: str
    right: str
    holds: bool
    value: Fraction

    def __str__(self) -> str:
        return f"{self.left} = {self.right}"


def equations(step: str) -> list[Equation]:
    """The arithmetic equations that a step states, in order; in "3 + 4 = 7 = 7" the second states nothing.

    Of a text longer than `MAX_STEP_CHARS`, which is no step, none.

    >>> [str(equation) for equation in equations("So 3 apples + 4 apples = 8 apples.") if not equation.holds]
    ['3 apples + 4 apples = 8 apples']
    """
    return list(_equations(step)) if len(step) <= MAX_STEP_CHARS else []


@lru_cache(maxsize=MAX_REMEMBERED)
def _equations(step: str) -> tuple[Equation, ...]:
    is_rounded = _ABOUT.search(step) is not None or _LEFT_OVER.search(step) is not None
    annotations = _ANNOTATION.findall(step)
    found = [equation for text in annotations for equation in _in_text(text, is_rounded)]
    # behind "<<450/70=6.43>>" stands what is made of it: "6 hours"
    is_rounded = is_rounded or any(_FRACTIONAL.search(text) for text in annotations)
    return (*found, *_in_text(_ANNOTATION.sub("", step), is_rounded))


def _in_text(text: str, is_rounded: bool) -> list[Equation]:
    if not _SIGN.search(text):
        return []
    statements = _statements(tokenize(_BULLET.sub("", text)))
    return [equation for statement in statements for equation in _chain(statement, is_rounded)]


def false_equation(step: str) -> str | None:
    """The first stated equation that does not hold, as written; None if all hold."""
    return next((str(equation) for equation in equations(step) if not equation.holds), None)


def _statements(tokens: Sequence[Token]) -> Iterator[list[Token]]:
    """A step's sentences; an equation in parentheses is one of its own: "7 (since 3 + 4 = 7)"."""
    outer: list[Token] = []
    groups: list[list[Token]] = []  # of each open parenthesis, what stands in it
    for token in tokens:
        if token.kind == "(":
            groups.append([token])
            if len(groups) > MAX_DEPTH:
                return
        elif token.kind == ")" and groups:
            group = [*groups.pop(), token]
            target = groups[-1] if groups else outer
            if any(piece.kind == "=" for piece in group):
                yield group[1:-1]
            elif len(group) > 2 and all(piece.kind == "word" for piece in group[1:-1]):
                # "3 (red) + 4 (blue)", and not "2(Losses)"
                target += [replace(group[1], kind="variable")] if group[0].is_glued else group[1:-1]
            else:
                target += group
        else:
            (groups[-1] if groups else outer).append(token)
    outer += (token for group in groups for token in group)
    yield from _sentences(outer)


def _sentences(tokens: Sequence[Token]) -> Iterator[list[Token]]:
    sentence: list[Token] = []
    for index, token in enumerate(tokens):
        after = tokens[index + 1] if index + 1 < len(tokens) else None
        is_end = (
            token.kind == "break" and token.text in ".;?\n→⇒" and (after is None or after.kind not in ("other", "op"))
        )
        if is_end and not (sentence and sentence[-1].kind == "op"):  # not ".8 + . 84"
            yield sentence
            sentence = []
        else:
            sentence.append(token)
    yield sentence


def _chain(tokens: Sequence[Token], is_rounded: bool) -> Iterator[Equation]:
    """The equations of a chain "a = b = c", each of two neighbors."""
    signs = [index for index, token in enumerate(tokens) if token.kind == "="]
    if not signs or not _is_judged(tokens):
        return
    bounds = [-1, *signs, len(tokens)]
    for number, sign in enumerate(signs, start=1):
        before, after = tokens[bounds[number - 1] + 1 : sign], tokens[sign + 1 : bounds[number + 1]]
        is_about = tokens[sign].text == "≈"
        lefts = [*_without_bullet(before), *_variants(before)]
        tried = [_pair(left, right, number == 1, number == len(signs)) for left in lefts for right in _variants(after)]
        pairs = [pair for pair in tried if pair is not None] if tried[0] or len(lefts) == 1 else []
        judged = [equation for pair in pairs if (equation := _judge(*pair, is_rounded, is_about, number < len(signs)))]
        if judged:
            yield next((equation for equation in judged if equation.holds), judged[0])


def _is_judged(tokens: Sequence[Token]) -> bool:
    words = {token.text.lower() for token in tokens if token.kind in ("word", "other")}
    if not UNLIKE_ARITHMETIC.isdisjoint(words):
        return False
    has_sum = any(token.kind == "op" and token.text in "+-" for token in tokens)
    return (
        not has_sum
        or DATES.isdisjoint(words)
        or not any(is_ratio(tokens[index : index + 3]) for index in range(len(tokens)))
    )


def _variants(tokens: Sequence[Token]) -> list[Sequence[Token]]:
    """The tokens of a side, with and without what stands in parentheses behind an operand: "4 (15 minutes)"."""
    kept: list[Token] = []
    remark: list[Token] = []
    depth = 0
    for index, token in enumerate(tokens):
        if depth or (token.kind == "(" and index > 0 and _is_remark(tokens, index)):
            depth += (token.kind == "(") - (token.kind == ")")
            remark.append(token)
        else:
            kept.append(token)
    if not remark or depth or any(token.kind in ("variable", "other") for token in remark):
        return [tokens]
    return [tokens, kept]


def _is_remark(tokens: Sequence[Token], index: int) -> bool:
    """Whether a parenthesis may open a remark: words behind an operand, or numbers a space behind one."""
    has_words = any(token.kind == "word" for token in tokens[index + 1 : index + 4])
    if tokens[index - 1].kind == "word":
        return has_words
    return tokens[index - 1].kind in ("number", ")") and (has_words or not tokens[index].is_glued)


def _without_bullet(tokens: Sequence[Token]) -> list[Sequence[Token]]:
    """The tokens behind a sign that may be a bullet: "- 3 + 4 = 7"."""
    return [tokens[1:]] if len(tokens) > 1 and tokens[0].text in ("-", "+") and not tokens[1].is_glued else []


def _pair(
    before: Sequence[Token], after: Sequence[Token], is_first: bool, is_last: bool
) -> tuple[Sequence[Token], Sequence[Token]] | None:
    """The expressions on both sides of an equals sign; None if they are not to be compared."""
    try:
        left = expression_before(before, is_first=is_first)
        right = expression_after(after, is_last=is_last)
    except UnreadableError:
        return None
    left_units, right_units = _units(left), _units(right)
    is_sum = any(token.kind == "op" and token.text in "+-" for token in left)
    if units_clash(left_units, right_units, is_sum=is_sum):
        return None
    is_conversion = _is_single(left) and _is_single(right) and left_units != right_units
    if is_conversion and ((left_units and right_units) or _power_of_ten(left) is not None):
        return None  # "1/2 cup = 4 ounces", "4.19 * 10^4 = 41.9 kJ"
    if _is_part(left) and right[0].value >= 1 and (right_units or any(token.kind == "op" for token in right)):
        return None  # "3/4 = $15"
    return (left, right) if _is_calculation(left, right, is_at_start=len(left) == len(before)) else None


def _units(tokens: Sequence[Token]) -> frozenset[str]:
    words = [token.text for token in tokens if token.kind == "word"]
    words += ["dollar" for token in tokens if token.kind == "number" and token.text.startswith("$")]
    return units_of(words)


def _is_single(tokens: Sequence[Token]) -> bool:
    """Whether a side is one number or fraction, with a unit behind it."""
    plain = [token for token in tokens if token.kind != "word"]
    if plain[0].text in ("-", "+"):
        plain = plain[1:]
    is_fraction = len(plain) == 3 and is_ratio(tokens[:3]) and not plain[0].text.startswith("$")
    return len(plain) == 1 or is_fraction or _power_of_ten(plain) is not None


def _is_part(tokens: Sequence[Token]) -> bool:
    """Whether a side is a share of something: "3/4"."""
    plain = [token for token in tokens if token.kind not in ("(", ")")]
    return len(plain) == 3 and is_ratio(plain) and plain[0].value < plain[2].value


def _power_of_ten(tokens: Sequence[Token]) -> int | None:
    """The exponent of a number in scientific notation, "4.19 * 10^(4)"; None if the tokens are none."""
    found = _SCIENTIFIC.fullmatch(" ".join(token.text for token in tokens[:8] if token.kind != "word"))
    return int(found[1].replace(" ", "")) if found else None


def _is_calculation(left: Sequence[Token], right: Sequence[Token], *, is_at_start: bool) -> bool:
    """Whether a side computes something; "14 hours = 14 * 60" says what the hours are turned into, and is none."""
    if any(token.kind == "op" or token.is_fraction for token in left) or sum(token.kind == "(" for token in left) > 1:
        return True
    is_mixed = sum(token.kind == "number" for token in left) > 1
    is_worked_out = any(token.kind == "op" for token in right) and not any(token.is_percent for token in right)
    return is_mixed or (is_at_start and len(left) == 1 and is_worked_out)


def _judge(
    left: Sequence[Token], right: Sequence[Token], is_rounded: bool, is_about: bool, has_more: bool
) -> Equation | None:
    """The equation of two expressions; it holds if it does under one reading of each side."""
    rights = [right]
    for is_worded in (False, True):
        end = next((i for i, token in enumerate(right) if token.kind == "op" and token.is_worded >= is_worded), 0)
        if end and (has_more or is_worded):
            rights.append(right[:end])  # "7 * 60 = 420 + 23 = 443", "1/4 + 1/4 = 1/2 of $10"
    is_noisy = any(token.num_decimals >= _NOISY_DECIMALS for token in (*left, *right))
    lefts, values = _values(left), [(side, value) for side in rights for value in _values(side)]
    if not lefts or not values:
        return None
    for side, value in values:
        if any(_same(first, value, side, is_rounded, is_about, is_noisy) for first in lefts):
            return Equation(_written(left), _written(right), True, value)
    return Equation(_written(left), _written(right), False, values[0][1])


def _values(tokens: Sequence[Token]) -> list[Fraction]:
    found: list[Fraction] = []
    for reading in readings(tokens):
        try:
            value = evaluate(tokens, reading)
        except UnreadableError:
            continue
        if value not in found:
            found.append(value)
    return found


def _same(
    left: Fraction, right: Fraction, right_tokens: Sequence[Token], is_rounded: bool, is_about: bool, is_noisy: bool
) -> bool:
    """Whether two values are equal, or the right one is what its digits can say of the left one."""
    if left == right or (is_noisy and abs(left - right) <= _NOISE * (abs(left) + 1)):
        return True
    numbers = [token for token in right_tokens if token.kind == "number"]
    power = _power_of_ten(right_tokens)
    if len(numbers) != 1 and power is None:
        return False
    # a decimal or a share in percent that is written out to some place may be cut off or rounded there; a whole number
    # only if it says so
    is_share = bool(numbers) and numbers[0].is_percent and abs(right) * 100 == abs(numbers[0].value)
    places = numbers[0].num_decimals
    is_rounded = is_rounded or places > 0 or is_share
    places -= power or 0
    unit = Fraction(10) ** -places
    whole = right * 100 if is_share else right
    if is_about and not places and whole and whole.denominator == 1:
        digits = str(abs(whole.numerator))
        unit = Fraction(10 ** (len(digits) - len(digits.rstrip("0"))), 1 if digits == digits.rstrip("0") else 2)
    if is_share:
        unit /= 100
    return (is_rounded or is_about) and abs(left - right) < unit and (left / unit).denominator > 1


def _written(tokens: Sequence[Token]) -> str:
    text = ""
    for token in tokens:
        is_close = token.is_glued or token.kind == ")" or text.endswith("(") or not text
        text += token.text if is_close else f" {token.text}"
    return text
