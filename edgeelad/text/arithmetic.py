"""Find the arithmetic equations that a step states, and say which are false.

Exact: numbers are fractions, nothing is rounded but what a step itself rounds. Careful: what is not plainly arithmetic
(variables, mixed numbers, clock times, remainders, conversions of units) is not judged. Takes text, gives equations;
knows no questions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from edgeelad.text.expressions import Token, UnreadableError, evaluate, tokenize, units_clash

_ABOUT = re.compile(r"≈|≅|\b(?:about|approximately|approx|roughly|rounded|rounds|rounding|around|nearly)\b", re.I)
_LEFT_OVER = re.compile(r"\b(?:remain\w*|left\s?over|full|whole|complete)\b", re.I)
_ANNOTATION = re.compile(r"<<([^<>]*)>>")  # GSM8K's calculator marks
_BULLET = re.compile(r"^\s*(?:[-+*•]\s+|\(?\d+[.):]\s+|step\s+\d+\s*[.:]?\s+)", re.I)
# words after a number that make it less than the whole result
_REMAINDERS = frozenset({"remainder", "rem", "r", "and", "with"})
# words that no unit has: what stands behind the number is a clause
_CLAUSE_WORDS = frozenset(
    {
        "of",
        "than",
        "is",
        "are",
        "was",
        "has",
        "have",
        "gives",
        "get",
        "therefore",
        "then",
        "so",
        "or",
        "because",
        "which",
    }
    | {"less", "more", "we", "you", "he", "she", "they", "it"}
)
MAX_UNIT_WORDS = 3


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

    >>> [str(equation) for equation in equations("So 3 apples + 4 apples = 8 apples.") if not equation.holds]
    ['3 apples + 4 apples = 8 apples']
    """
    found: list[Equation] = []
    for text in (*_ANNOTATION.findall(step), _ANNOTATION.sub("", step)):
        tokens = tokenize(_BULLET.sub("", text))
        signs = [index for index, token in enumerate(tokens) if token.kind == "="]
        is_rounded = _ABOUT.search(text) is not None or _LEFT_OVER.search(text) is not None
        bounds = [-1, *signs, len(tokens)]
        for number, sign in enumerate(signs, start=1):
            before, after = tokens[bounds[number - 1] + 1 : sign], tokens[sign + 1 : bounds[number + 1]]
            equation = _equation(before, after, is_rounded)
            if equation is not None:
                found.append(equation)
    return found


def false_equation(step: str) -> str | None:
    """The first stated equation that does not hold, as written; None where all hold."""
    return next((str(equation) for equation in equations(step) if not equation.holds), None)


def _equation(before: Sequence[Token], after: Sequence[Token], is_rounded: bool) -> Equation | None:
    try:
        left, right = _operand_before(before), _operand_after(after)
        if units_clash(left, right) or not _is_calculation(left, right, is_at_start=len(left) == len(before)):
            return None
        value = evaluate(right, Fraction(1))
        holds = any(
            _same(evaluate(left, left_percent), evaluate(right, right_percent), right, is_rounded)
            for left_percent, right_percent in _percent_readings(left, right)
        )
    except UnreadableError:
        return None
    return Equation(_written(left), _written(right), holds, value)


def _is_calculation(left: Sequence[Token], right: Sequence[Token], is_at_start: bool) -> bool:
    """Whether a side computes something; "14 hours = 14 * 60" says what the hours are turned into, and is none."""
    if any(token.kind == "op" for token in left):
        return True
    return is_at_start and len(left) == 1 and any(token.kind == "op" for token in right)


def _percent_readings(left: Sequence[Token], right: Sequence[Token]) -> list[tuple[Fraction, Fraction]]:
    """What a percent sign may be worth on either side: "1 / 5 = 20%", and "10 / 50 * 100 = 20%", are both right."""
    hundredth, one = Fraction(1, 100), Fraction(1)
    if not any(token.is_percent for token in (*left, *right)):
        return [(one, one)]
    return [(hundredth, hundredth), (one, one), (hundredth, one)]


def _operand_before(tokens: Sequence[Token]) -> Sequence[Token]:
    """The longest run of arithmetic that ends a side, units behind its numbers included."""
    start = len(tokens)
    depth = 0
    while start > 0:
        token = tokens[start - 1]
        if token.kind == "word":
            first = start - 1
            while first > 0 and tokens[first - 1].kind == "word":
                first -= 1
            is_unit = first > 0 and tokens[first - 1].kind in ("number", ")") and start - first <= MAX_UNIT_WORDS
            # words in front of a number belong to the sentence
            if not is_unit or (start < len(tokens) and tokens[start].kind in ("number", "(")):
                break
            start = first
            continue
        if token.kind == "(" and depth == 0:
            break
        if token.kind == "number" and start < len(tokens) and tokens[start].kind == "number":
            raise UnreadableError
        if token.kind not in ("number", "op", "(", ")"):
            break
        depth += (token.kind == ")") - (token.kind == "(")
        start -= 1
    run = tokens[start:]
    if not run or _has_clause(run):
        raise UnreadableError
    if start > 0 and (run[0].kind == "op" or run[0].is_glued or tokens[start - 1].kind == "variable"):
        # what it begins with is not known: "apples + 4 = 9", "sqrt(9) = 3", "y 4 = 8"
        raise UnreadableError
    return run


def _operand_after(tokens: Sequence[Token]) -> Sequence[Token]:
    """The longest run of arithmetic that begins a side."""
    end = 0
    depth = 0
    while end < len(tokens):
        token = tokens[end]
        if token.kind == "word":
            last = end
            while last < len(tokens) and tokens[last].kind == "word":
                last += 1
            if end == 0 or token.text.lower() in _REMAINDERS:
                raise UnreadableError
            goes_on = last < len(tokens) and tokens[last].kind in ("op", ")") and last - end <= MAX_UNIT_WORDS
            if not goes_on or tokens[end - 1].kind not in ("number", ")"):
                end += 1 if tokens[end - 1].kind in ("number", ")") else 0
                break
            end = last
            continue
        if token.kind == "number" and end > 0 and tokens[end - 1].kind in ("number", ")"):
            raise UnreadableError
        if token.kind == ")" and depth == 0:
            break
        if token.kind not in ("number", "op", "(", ")"):
            break
        depth += (token.kind == "(") - (token.kind == ")")
        end += 1
    run = tokens[:end]
    if not run or run[-1].kind == "op" or (end < len(tokens) and tokens[end].kind == "variable"):
        raise UnreadableError
    return run


def _has_clause(tokens: Sequence[Token]) -> bool:
    return any(token.kind == "word" and token.text.lower() in _CLAUSE_WORDS for token in tokens)


def _same(left: Fraction, right: Fraction, right_tokens: Sequence[Token], is_rounded: bool) -> bool:
    if left == right:
        return True
    numbers = [token for token in right_tokens if token.kind == "number"]
    if len(numbers) != 1:
        return False
    # a decimal that is written out to some place may be cut off or rounded there; a whole number only if it says so
    places = numbers[0].num_decimals
    unit = Fraction(1, 10**places)
    if numbers[0].is_percent:
        unit = max(unit, unit / 100)
    return (places > 0 or is_rounded) and abs(left - right) < unit and (left / unit).denominator > 1


def _written(tokens: Sequence[Token]) -> str:
    text = ""
    for token in tokens:
        is_close = token.is_glued or token.kind == ")" or text.endswith("(") or not text
        text += token.text if is_close else f" {token.text}"
    return text
