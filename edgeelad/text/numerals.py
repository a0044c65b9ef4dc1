"""Read the number that an answer states, exactly; none rather than another one.

Takes text; gives the number in canonical form (see `digits`); None if there is no number, if there are several, or if
it is part of more: "x + 2", "9π", "3:45", "5 or 6", "2^10". Currency, percent signs and units are dropped ("50 %" is
"50"); thousand, million and the like are multiplied out.
"""

from __future__ import annotations

import re
from fractions import Fraction

from edgeelad.text.clauses import Clause, clauses
from edgeelad.text.digits import GROUP, format_decimal, format_fraction, read_group
from edgeelad.text.notation import FRACTION_SLASH, plain
from edgeelad.text.units import words

MAX_EXPONENT = 300  # of scientific notation; "1e999999999" is not worth its zeros
MAX_FRACTION_DIGITS = 300  # of a numerator or denominator: exact arithmetic on longer ones is a trap, not an answer
WINDOW = 40  # characters beside a number that decide whether it stands alone

_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_MONEY_SCALES = {"k": 3, "m": 6, "mn": 6, "b": 9, "bn": 9, "t": 12, "tn": 12}
_CURRENCY = "$€£¥₹₩₽₺₫¢"
_END = r"(?![.,]?[0-9])"
_POWER = r"\s?\*\s?10\s?(?:\^|\*\*)\s?(?:\(\s?(?P<power>[-+]?[0-9]{1,9})\s?\)|(?P<raised>[-+]?[0-9]{1,9})(?![0-9]))"
_QUANTITY = re.compile(
    r"(?<![\w^])(?<![0-9][.,])(?<![A-Za-z]{2}-)"
    r"(?P<sign>(?<![\w)\]%°])[-+](?=[.0-9])|(?<=[=≈(:])[-+]\s|(?<=[=≈(:]\s)[-+]\s|(?:minus|negative)\s)?"
    rf"(?:(?P<whole>[0-9]+)(?:\s|\sand\s)(?P<part>[0-9]+\s?[/{FRACTION_SLASH}]\s?[0-9]+){_END}(?!\s?/)"
    rf"|(?P<top>(?:(?<![\w.])\.)?{GROUP})\s?[/{FRACTION_SLASH}]\s?(?P<bottom>-?\.?{GROUP}){_END}(?!\s?/)"
    rf"|(?P<group>(?:(?<![\w.])\.)?{GROUP}){_END}"
    rf"(?:[eE](?P<e>[-+]?[0-9]{{1,9}})(?![\w.])|{_POWER}|(?:\s|-)?(?P<scale>{'|'.join(_SCALES)})s?\b)?)",
    re.ASCII | re.IGNORECASE,
)
_MONEY = re.compile(
    rf"([{_CURRENCY}]\s?-?)((?:\.)?{GROUP})\s?({'|'.join(_MONEY_SCALES)})(?![\w$])", re.ASCII | re.IGNORECASE
)
_REWRITES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"!=|=/=", "≠"),
        (r"<=", "≤"),
        (r">=", "≥"),
        (r"(?<![-=])[-=]+>", "→"),
        (r"==+", "="),
        (r"(?<=[(√^])\s|\s(?=[)^])", ""),
        (r"(?<=[$(=≈<>≤≥≠])(\s?[-+])\s(?=[.0-9])", r"\1"),
        (r"\*\*(?![-0-9(])|(?<![0-9)])\*\*|`", ""),
        (r"\b(?:US|CA|AU|NZ|HK|R|C|A|S)(?=\$)", ""),
        (rf"[{_CURRENCY}]|_{{2,}}", ""),
        (r"\b(?:Rs\.?|USD|EUR|GBP|INR)\s?(?=[-+]?[0-9.])", ""),
        (r"(?<=[0-9])\s?/-(?!\s?[0-9(])", ""),  # rupees: "500/-"
        (rf"(?<![\w)^√])\((-?{GROUP}[/{FRACTION_SLASH}]-?{GROUP})\)(?![\w^(])", r"\1"),
        (rf"\((-?{GROUP})\)/\((-?{GROUP})\)", r"\1/\2"),
        (r"(?<=[A-Za-z]{2})\^(?:\(-?[0-9]\)|-?[0-9])|(?<=[0-9] [msgL])\^(?:\([23]\)|[23])", ""),  # "5 cm^2", "5 m^2"
    )
)
_SPACED_GROUPS = re.compile(rf"(?<![0-9.,])[1-9][0-9]{{0,2}}(?: [0-9]{{3}})+{_END}(?! [0-9])")
_LONE_SIGN = re.compile(r"\A\s*([-+])\s(?=[.0-9])")

_GLUED_UNITS = words(
    "km cm mm nm kg mg lb lbs oz ft in yd mi hr hrs min mins sec secs ml cl dl mph kph kmh kw kwh st nd rd th pcs pts"
    " cal gm gms kb mb gb am pm usd eur m g s l v w j n c f"
)
_UNIT_LETTERS = "mgshlLVWNJCFKAI"
_FUNCTIONS = "sqrt|root|log|ln|sin|cos|tan|cot|sec|arcsin|arccos|arctan|gcd|lcm|max|min|mod|exp|pi"
_BAD_BEFORE = re.compile(
    r"(?:[+*/⁄^√∞π±|@\\_≤≥≠∈]\s?|(?<!=)[<>]\s?|[\w)\]√^+*/≠<>≤≥-]\s?[(\[]"
    r"|[∪∩∈]\s?[({\[]?|\\[A-Za-z]+\s?[(\[]*|[0-9)\]]\s|[0-9]\s?:\s?|[0-9π∞)\]]\s?,\s?-?"
    r"|(?:[0-9)\]%°π]|(?<![A-Za-z'’])[A-Za-z])\s?-\s?"  # a difference; a dash stands behind a word
    r"|[0-9]\s(?:or|to|and|by|over|times|plus|minus|and/or|divided by|multiplied by|out of)\s"
    rf"|\b(?:{_FUNCTIONS}|twice|thrice|half|double|triple|between|plus|times|hundred and|thousand and)\s?\(?"
    r"|\b(?:half|third|thirds|quarter|square|squares|cube|root|logarithm|percent|power|factorial|multiple)\sof\s"
    r"|(?<![A-Za-z'’.])[b-zB-HJ-Z]\s)\Z",
    re.ASCII,
)
_BAD_AFTER = re.compile(
    r"\s?[+*⁄^√∞π±|@\\<>≤≥≠_]|\s?/\s?(?![A-Za-z])|\s?-\s?(?:[0-9(.√π\\]|[A-Za-z](?![A-Za-z]))"
    r"|\)+\s?[+*/^-]|\(|\s\((?![^()]*[A-Za-z]{2})|:\s?[0-9]|\s[0-9]|![^\s.]|(?:\.\.|…|\.?‾)"
    rf"|\s?(?-i:[{_UNIT_LETTERS}])\s(?!a\b|I\b)[A-Za-z](?![\w'’])"
    rf"|\s(?!(?-i:[{_UNIT_LETTERS}])\b|a\s[A-Za-z]{{2}})[A-Za-z](?![\w'’])"
    rf"|\s?(?:{_FUNCTIONS}|choose|factorial|squared|cubed|plus|minus|times\s[0-9(]|over\s[0-9(]|divided|multiplied"
    r"|to\sthe\s(?:power|[0-9])|and\sa\s(?:half|third|quarter)|dozens?|hundred|thousand|million|billion"
    r"|(?:ten|hundred|thousand|million|third|fourth|fifth|sixth|seventh|eighth|ninth|twelf)ths?|halves|thirds)\b",
    re.IGNORECASE,
)
_SOLUTIONS = re.compile(r"\b([A-Za-z])\s?=[^=\n]{1,20}(?:,|\bor\b|\band\b)\s?\1\s?=\s?\Z")  # "x = 1 or x = 2"
_GLUED_WORD = re.compile(r"[A-Za-z]+")
_REMARK = re.compile(r"\s\((?=[^()]*\))[^()]*[A-Za-z]{2}[^()]*\)")
_IDENTIFIER = re.compile(r"\b[A-Za-z]{2,}-?[0-9]+[A-Za-z0-9-]*")  # "COVID-19"
_MATHEMATICS = re.compile(r"[0-9+*^√π∞±|\\<>≤≥≠=_]")
_APPLIED = re.compile(r"[A-Za-z]\s?\([^()]*\)|_(?:\([^()]*\)|\w+)")  # "f(2)", "a_5"
_VARIABLE = re.compile(r"(?<![A-Za-z\\])[A-Za-z](?![A-Za-z])")
_PLAIN_UNIT = re.compile(r"\s*(?:%|percent\b|°\s*[CF]?|[a-z][a-z23²³^/-]*(?:\s+[a-z][a-z23²³^/-]*){0,2})?\s*\.?\s*")


def canonical_number(value: str) -> str | None:
    """The one number that a bare answer states.

    >>> canonical_number("676 - 224, which is 452"), canonical_number("5 apples, not 6"), canonical_number("x + 2")
    ('452', '5', None)
    """
    text = _SPACED_GROUPS.sub(lambda found: found.group().replace(" ", ","), _prepared(value))
    without_remarks = _REMARK.sub("", text)
    parts = clauses(without_remarks if _has_digit(without_remarks) else text)
    for index, clause in enumerate(parts):
        if clause.is_reason or clause.says_nothing:
            return None
        if clause.is_denied or not _has_digit(clause.text):
            continue
        found = _only_number(clause.text)
        following = parts[index + 1] if index + 1 < len(parts) else Clause("")
        if found is None and following.is_restated:
            return _only_number(following.text)
        return None if following.is_alternative or _is_open(clause.text) else found
    return None


def last_number(text: str) -> str | None:
    """The number that a text without a stated answer ends with; None if the last one does not stand alone."""
    return find_last_number(text)[0]


def find_last_number(text: str) -> tuple[str | None, int]:
    """The same, and about where it is in the text; -1 if there is none."""
    text = _prepared(text)
    last: re.Match[str] | None = None
    for found in _QUANTITY.finditer(text):
        last = found
    return (None, -1) if last is None else (_read_last(text, last), last.start())


def _read_last(text: str, last: re.Match[str]) -> str | None:
    if not _is_alone(text, last):
        return None
    left = re.split(r"[,;:.\n=]", text[max(0, last.start() - WINDOW) : last.start()].rstrip(" =≈"))[-1]
    if text[: last.start()].rstrip().endswith("=") and _is_equation(left):
        return None
    return None if _SOLUTIONS.search(text[max(0, last.start() - WINDOW) : last.start()]) else _value(last)


def is_plain_number(value: str) -> bool:
    """Whether a value is a number alone, with at most a currency or percent sign or a short unit in lower case."""
    text = _LONE_SIGN.sub(r"\1", _prepared(value)).strip()
    found = _QUANTITY.match(text)
    return found is not None and _PLAIN_UNIT.fullmatch(text[found.end() :]) is not None and _alone(text) is not None


def _prepared(text: str) -> str:
    """Plain mathematical text without currencies, in which a number is digits, signs, points, commas and slashes."""
    text = _MONEY.sub(lambda found: f"{found[1]}{found[2]}e{_MONEY_SCALES[found[3].lower()]}", plain(text))
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    return text


def _only_number(clause: str) -> str | None:
    """The number that a clause states alone; of a chain "x = 3 + 2 = 5", what stands last."""
    sides = re.split(r"[=≈]", clause)
    if len(sides) > 1:
        if any(re.search(r"\b(?:and|or)\b", side) for side in sides[1:-1]) or any(map(_is_equation, sides[:-1])):
            return None
        if not _has_digit(sides[-1]):
            sides = [side for side in sides if _has_digit(side)]
        first = _alone(sides[0]) if "≈" in clause else None
        last = _alone(sides[-1]) if sides else None
        return last if first in (None, last) else None
    return _alone(clause)


def _is_open(clause: str) -> bool:
    """Whether a clause ends within parentheses: "(5, ∞)"."""
    return sum(map(clause.count, "([")) > sum(map(clause.count, ")]"))


def _alone(side: str) -> str | None:
    side = _LONE_SIGN.sub(r"\1", side)
    side = _IDENTIFIER.sub("word", side)
    found = list(_QUANTITY.finditer(side))
    values = {_value(quantity) for quantity in found}
    rest = _QUANTITY.sub("", side) if found else ""
    if len(values) != 1 or _MATHEMATICS.search(rest) or not all(_is_alone(side, quantity) for quantity in found):
        return None
    return values.pop()


def _is_alone(text: str, found: re.Match[str]) -> bool:
    """Whether a number is no part of an expression, a range, a clock time or a name."""
    before, after = text[max(0, found.start() - WINDOW) : found.start()], text[found.end() : found.end() + WINDOW]
    if _BAD_BEFORE.search(before) or _BAD_AFTER.match(after):
        return False
    if after.startswith("!") and not re.search(r"[A-Za-z]{2}", before):
        return False  # a factorial, or an exclamation
    glued = _GLUED_WORD.match(after)
    return glued is None or len(glued.group()) > 3 or glued.group().lower() in _GLUED_UNITS


def _is_equation(side: str) -> bool:
    """Whether the left side of an equals sign is an equation's ("3x", "x + 2"), and not what is asked for ("x")."""
    side = re.sub(r"(?<=[0-9])\s?x\s?(?=[0-9])", "*", _APPLIED.sub("", side))
    return _has_digit(side) and _VARIABLE.search(side) is not None


def _has_digit(text: str) -> bool:
    return re.search(r"[0-9]", text) is not None


def _value(found: re.Match[str]) -> str | None:
    """The canonical form of a number that was found; None if it is too long, divides by zero or is not one number."""
    is_negative = (found["sign"] or "").strip().lower() in ("-", "minus", "negative")
    if found["group"] is not None:
        digits = read_group(found["group"])
        exponent = int(
            found["e"] or found["power"] or found["raised"] or _SCALES.get((found["scale"] or "").lower(), 0)
        )
        if digits is None or abs(exponent) > MAX_EXPONENT:
            return None
        return format_decimal(digits, exponent, is_negative=is_negative)
    ratio = found["part"] or f"{found['top']}/{found['bottom']}"
    top, bottom = (read_group(group.strip(" -")) for group in ratio.replace(FRACTION_SLASH, "/").split("/"))
    if top is None or bottom is None or max(map(len, (top, bottom, found["whole"] or ""))) > MAX_FRACTION_DIGITS:
        return None
    if not Fraction(bottom) or (found["whole"] and Fraction(top) >= Fraction(bottom)):
        return None
    value = int(found["whole"] or 0) + Fraction(top) / Fraction(bottom)
    return format_fraction(-value if is_negative != ("-" in ratio) else value)
