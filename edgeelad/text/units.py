"""Words around numbers: which ones calculate, and which units do not mix.

Takes the words of an equation; says whether its bare numbers can be compared.
"""

from __future__ import annotations

from collections.abc import Iterable


def words(text: str) -> frozenset[str]:
    """The words of a list that is written as one text."""
    return frozenset(text.split())


_FAMILIES = tuple(
    words(family)
    for family in (
        "second sec minute min hour hr day week fortnight month year decade century",
        "mm cm m km millimeter millimetre centimeter centimetre meter metre kilometer kilometre inch foot ft yard mile",
        "mg g kg gram kilogram ounce oz pound lb ton tonne stone",
        "ml l milliliter millilitre liter litre gallon quart pint cup tablespoon teaspoon ounce oz",
        "cent dollar ¢ $ dime nickel penny quarter pence buck",
        "degree radian turn revolution",
        "bit byte kb mb gb tb",
    )
)
_PLURALS = {"feet": "foot", "inches": "inch", "centuries": "century", "pennies": "penny", "halves": "half"}
_FUNCTIONS = words("sin cos tan cot arcsin arccos arctan log ln sqrt gcd lcm hcf mod modulo")
_PARTS = words("half third fourth fifth sixth eighth tenth")
_MONTHS = words("january february march april june july august september october november december")

SCALES = _PARTS | words("dozen hundred thousand million billion trillion pair score gross couple k mil")
"""Words that multiply or divide the number before them: "2 dozen - 3", "5 million", "10 halves"."""

CALCULATING = (
    _FUNCTIONS
    | _MONTHS
    | words("root lg sec twice double triple thrice half max min negative abs exp choose factorial pi squared cubed")
    | words("minus plus times subtract")
)
"""Words that calculate with the number behind them, or make it a date."""

CALCULATING_OF = (
    _PARTS
    | words("quarter square squares cube cubes root roots log logarithm digit digits remainder average mean median")
    | words(
        "factorial percent percentage fraction reciprocal multiple multiples power double inverse lcm gcd hcf max min"
    )
    | words("maximum minimum product range variance deviation opposite factors divisors")
)
"""Words that calculate with the number behind their "of": "half of 10"."""

JOINING = words("to from by and than at")
"""Words before a number that may tie it to an earlier one: "add 3 to 4 + 5"."""

COUNTED = words(
    "day week month year step page chapter number part item example question case option room level round game line"
    " grade version type phase stage group row column box no"
)
"""Words before a number that names something: "day 1", "step 2"."""

UNLIKE_ARITHMETIC = _FUNCTIONS | words("am pm binary hexadecimal octal o'clock noon midnight remainder rem ≡ clock")
"""Words whose sentences are not judged: functions, clock times, other bases."""

DATES = _MONTHS | words("date today tomorrow yesterday monday tuesday wednesday thursday friday saturday sunday")
"""Words beside which a fraction may be a date."""


def units_of(names: Iterable[str]) -> frozenset[str]:
    """Words in the singular and in lower case.

    >>> sorted(units_of(["Feet", "dollars", "lb."]))
    ['dollar', 'foot', 'lb']
    """
    return frozenset(_singular(word.lower().rstrip(".")) for word in names)


def units_clash(left: frozenset[str], right: frozenset[str], *, is_sum: bool) -> bool:
    """Whether an equation converts between units or scales, so that its bare numbers say nothing.

    Sums over several units of one kind do ("1 hour + 30 minutes"), and so does a result in a unit of the same kind that
    the left side does not have ("20 minutes * 3 = 1 hour").

    Args:
        left: The units of the left side, as `units_of` gives them.
        right: Those of the right side.
        is_sum: Whether the left side adds or subtracts.
    """
    if (left | right) & SCALES:
        return True
    if is_sum and any(len(left & family) > 1 for family in _FAMILIES):
        return True
    return any(left & family and right & family - left for family in _FAMILIES)


def _singular(word: str) -> str:
    plural = _PLURALS.get(word)
    return plural or (word[:-1] if len(word) > 2 and word.endswith("s") and not word.endswith("ss") else word)
