"""Cut running text into the tokens of arithmetic: numbers, operators, parentheses, words, variables.

Takes the text of a step; gives tokens. Operators in words ("3 times 4", "20% of 50", "5 squared") become signs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

from edgeelad.text.digits import GROUP, read_group
from edgeelad.text.notation import FRACTION_SLASH, plain
from edgeelad.text.units import words

MAX_DIGITS = 40

TokenKind = Literal["number", "op", "(", ")", "=", "word", "variable", "break", "other"]


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of text.

    Attributes:
        kind: "break" ends a statement; "other" is mathematics that is not read (functions, constants, clock times).
        text: As written; operators in words are written as signs.
        is_glued: No space before it and the piece before.
        value: Of a number.
        num_decimals: Of a number; 0 of a fraction.
        is_percent: Whether a percent sign follows the number.
        is_fraction: Whether the number is two, with a fraction slash between them.
        is_worded: Whether an operator was written as a word.
    """

    kind: TokenKind
    text: str
    is_glued: bool = False
    value: Fraction = Fraction(0)
    num_decimals: int = 0
    is_percent: bool = False
    is_fraction: bool = False
    is_worded: bool = False


_REWRITES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"=>|[<>!~:]=|=/=|->|(?<!=)==+>", " ; "),  # looks like an equals sign and is none
        (r"==+", "="),
        (r"(?<=[0-9])\*\*(?=[-0-9(])", "^"),
        (r"\*\*|`", ""),
        (r"(?<=[0-9])[xX](?=[0-9])", "*"),
        (r"(?<=[0-9%])-(?=[A-Za-z]{2})", " "),  # "a 250-page book"
        (r"\b([rR])(?=[0-9])", r"\1 "),  # "17 / 5 = 3 r2"
        (r"(?<=[A-Za-z]{2})\^(?:\(-?[0-9]\)|-?[0-9])", ""),  # "500 cm^3"
        (r"(?<=[0-9])\s?/-(?!\s?[0-9(])", ""),  # rupees: "500/-"
        (r"(?<=[0-9%)])\s?(?:percent|per cent)\b", "%"),
        (r"(?<=[0-9)])\s?(?:squared)\b", "^2"),
        (r"(?<=[0-9)])\s?(?:cubed)\b", "^3"),
        (r"\b(?:is equal to|equals)\b", "="),
        (r"\bdivided by\b", " ÷ "),
        (r"\bmultiplied by\b", " × "),
        (r"(?<=[A-Za-z])\.(?=\s?[-+*/=()])", ""),  # "5 ft. + 3 ft."
        (r"\b(approx|Rs|No|vs)\.", r"\1"),
    )
)
_PIECE = re.compile(
    r"(?P<clock>[0-9]+:[0-9]+)"
    rf"|(?P<number>(?:[$€£]\s?)?(?:(?<![\w.])\.)?{GROUP}(?:{FRACTION_SLASH}-?{GROUP})?(?P<percent>\s?%)?)"
    r"|(?P<variable>[^\W\d_]+_(?:\([^()]*\)|\w+))"
    r"|(?P<word>¢|[^\W\d_]{2,}(?:-[^\W\d_]{2,})+|[^\W_]+(?:['’][^\W\d_]+)*)"
    r"|(?P<op>[-+*/^!÷×])|(?P<open>[(\[])|(?P<close>[)\]])|(?P<equals>[=≈])"
    r"|(?P<ellipsis>…|\.\.\.+)|(?P<break>[.,;:?\n→⇒<>≤≥≠\"“”])|(?P<currency>[$€£¥₹])|(?P<other>\\[A-Za-z]+|\S)"
)
_KINDS: dict[str, TokenKind] = {
    "variable": "variable", "word": "word", "op": "op", "open": "(", "close": ")", "equals": "=", "break": "break",
}  # fmt: skip
_WORDED = {"times": "*", "x": "*", "X": "*", "×": "*", "÷": "/", "plus": "+", "minus": "-"}
# what may stand behind a number without a space, and is a unit
_GLUED_UNITS = words(
    "km cm mm nm kg mg lb lbs oz ft in yd mi hr hrs h min mins sec secs s ml cl dl mph kph kmph kmh kw kwh st nd rd th"
    " pcs pts cal gm gms kb mb gb usd eur"
)


def tokenize(text: str) -> list[Token]:
    """Cut a text into tokens, from left to right."""
    text = plain(text)
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    tokens: list[Token] = []
    end = 0
    for found in _PIECE.finditer(text):
        is_glued = found.start() == end and end > 0
        if found.lastgroup != "currency":
            tokens.append(_token(found, is_glued=is_glued))
        if found.lastgroup != "currency" or is_glued:
            end = found.end()
    return _read_words(tokens)


def _token(found: re.Match[str], *, is_glued: bool) -> Token:
    text = found.group()
    if found["number"] is None:
        return Token(_KINDS.get(found.lastgroup or "", "other"), text, is_glued)
    top, _, bottom = re.sub(r"[$€£%\s]", "", text).partition(FRACTION_SLASH)
    digits, divisor = read_group(top), read_group(bottom.lstrip("-") or "1")
    is_clock = len(top) > 1 and top[0] == "0" and top.isdigit()  # "0900"
    if digits is None or divisor is None or is_clock or len(digits) + len(divisor) > MAX_DIGITS:
        return Token("other", text, is_glued)
    if not Fraction(divisor):
        return Token("other", text, is_glued)
    value = Fraction(digits) / Fraction(divisor) * (-1 if bottom.startswith("-") else 1)
    num_decimals = 0 if bottom else len(digits.partition(".")[2])
    is_percent = found["percent"] is not None
    return Token("number", text, is_glued, value, num_decimals, is_percent, is_fraction=bool(bottom))


def _read_words(tokens: Sequence[Token]) -> list[Token]:
    """Read "3 x 4", "20% of 50" and "1/2 of 50" as operators, "miles/hour" as a unit, "3x" as a variable."""
    read: list[Token] = []
    for index, token in enumerate(tokens):
        before = read[-1] if read else None
        after = tokens[index + 1] if index + 1 < len(tokens) else None
        if token.text in "×÷" and token.kind == "op":
            token = replace(token, text=_WORDED[token.text], is_worded=True)
        elif token.kind == "word":
            token = _read_word(token, before, after, read)
            if token.kind == "word" and before is not None and before.text == "/" and is_word(read, -2):
                read.pop()
        read.append(token)
    return read


def _read_word(token: Token, before: Token | None, after: Token | None, read: Sequence[Token]) -> Token:
    is_operand = after is not None and after.kind in ("number", "(")
    if before is not None and before.kind in ("number", ")", "word") and is_operand and token.text in _WORDED:
        is_apart = after is not None and token.is_glued == after.is_glued and not (token.is_glued and after.kind == "(")
        if token.text not in "xX" or is_apart:
            return replace(token, kind="op", text=_WORDED[token.text], is_glued=False, is_worded=True)
    is_share = before is not None and (before.is_percent or before.is_fraction or is_ratio(read))
    if token.text == "of" and is_share and is_operand:
        return replace(token, kind="op", text="*", is_worded=True)
    if before is not None and before.kind == "number" and token.is_glued:
        is_short = len(token.text) < 4 or any(map(str.isdigit, token.text))
        if is_short and token.text.lower() not in _GLUED_UNITS:
            return replace(token, kind="variable")
    if len(token.text) == 1 and token.text.isalpha():
        is_operand = before is not None and before.kind in ("op", "=", "(")
        if token.text not in "aAI" or is_operand or after is None or after.kind in ("op", "=", "(", ")"):
            return replace(token, kind="variable")
    return token


def is_word(tokens: Sequence[Token], index: int) -> bool:
    """Whether there is a word at an index from the end."""
    return len(tokens) >= -index and tokens[index].kind == "word"


def is_ratio(tokens: Sequence[Token]) -> bool:
    """Whether tokens end in one number divided by another."""
    return len(tokens) >= 3 and tokens[-2].text == "/" and tokens[-3].kind == "number" and tokens[-1].kind == "number"
