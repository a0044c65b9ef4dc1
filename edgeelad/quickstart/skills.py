"""The skills of the quickstart's word problems: their wordings, and the steps that solve them.

A wording is a question with slots in braces: the generator fills them, the solver parses questions with them. A chain
is one way to the answer: step texts in which `[x=a*b]` states an equation over earlier numbers and names its result.
Explanations are written with a skill's first chain; the others are accepted as well. The answer is the last result of
a chain.

Numbers are small, and the new skills use only arithmetic of the known ones: a student of a million parameters that has
learned the known skills has to learn how the new ones reason, not how to add.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from numpy.random import Generator

from edgeelad.errors import InputError

Numbers = dict[str, int]


@dataclass(frozen=True, slots=True)
class SkillSpec:
    """One skill.

    Attributes:
        name: Its name.
        is_known: Whether the base student is trained on it.
        wordings: Question templates; slots `a` to `d` and `p` are numbers, the others words.
        chains: Ways to the answer, each a tuple of step templates; the first is the canonical one.
        draw: Draws the numbers, such that every result of every chain is a whole number of at least 2.
        derive: Numbers that a question implies, from those that it states; raises InputError.
    """

    name: str
    is_known: bool
    wordings: tuple[str, ...]
    chains: tuple[tuple[str, ...], ...]
    draw: Callable[[Generator], Numbers]
    derive: Callable[[Mapping[str, int]], Numbers] = lambda stated: {}


def _pick(rng: Generator, low: int, high: int) -> int:
    """An integer from low to high, inclusive."""
    return int(rng.integers(low, high + 1))


def _draw_gain_loss(rng: Generator) -> Numbers:
    a, b = _pick(rng, 4, 25), _pick(rng, 2, 12)
    return {"a": a, "b": b, "c": _pick(rng, 2, min(12, a - 2))}


def _draw_groups_plus(rng: Generator) -> Numbers:
    return {"a": _pick(rng, 2, 8), "b": _pick(rng, 2, 8), "c": _pick(rng, 2, 12)}


def _draw_compare_total(rng: Generator) -> Numbers:
    return {"a": _pick(rng, 3, 20), "b": _pick(rng, 2, 12)}


def _draw_change(rng: Generator) -> Numbers:
    a, b, c = _pick(rng, 2, 8), _pick(rng, 2, 8), _pick(rng, 2, 12)
    return {"a": a, "b": b, "c": c, "d": next(paid for paid in (20, 50, 80) if paid >= a * b + c + 2)}


def _draw_share(rng: Generator) -> Numbers:
    c, each = _pick(rng, 2, 8), _pick(rng, 2, 9)
    b = _pick(rng, 2, min(12, c * each - 2))
    return {"a": c * each - b, "b": b, "c": c}


def _draw_twice(rng: Generator) -> Numbers:
    a = _pick(rng, 3, 8)
    return {"a": a, "c": _pick(rng, 2, min(12, 3 * a - 2))}


def _draw_half(rng: Generator) -> Numbers:
    return {"a": 2 * _pick(rng, 2, 9), "b": _pick(rng, 2, 12)}


def _draw_rate(rng: Generator) -> Numbers:
    b = _pick(rng, 2, 6)
    return {"a": _pick(rng, 2, 8), "b": b, "c": _pick(rng, 2, 8 - b)}


def _draw_percent(rng: Generator) -> Numbers:
    p = int(rng.choice((20, 25, 50)))
    return {"a": (100 // p) * _pick(rng, 2, 8), "p": p}


def _draw_at_first(rng: Generator) -> Numbers:
    b = _pick(rng, 2, 12)
    return {"a": _pick(rng, 2, 12), "b": b, "c": b + _pick(rng, 2, 12)}


def _percent_parts(stated: Mapping[str, int]) -> Numbers:
    percent = stated["p"]
    if percent == 0 or 100 % percent:
        raise InputError(f"{percent} percent: only percentages that divide 100 are supported; use 10, 20, 25 or 50")
    return {"q": 100 // percent, "h": 100}


SPECS = (
    SkillSpec(
        "gain-loss",
        True,
        (
            "{name} has {a} {obj}. {name} gets {b} more and gives {c} away. How many {obj} does {name} have now?",
            "There are {a} {obj} in a box. {name} puts in {b} more and takes out {c}. "
            "How many {obj} are in the box now?",
            "{name} finds {a} {obj} and then {b} more. {name} loses {c} of them. How many {obj} are left?",
            "A shop has {a} {obj}. It buys {b} more and sells {c}. How many {obj} are in the shop now?",
        ),
        (
            ("First there are [x=a+b] {obj}.", "Then there are [y=x-c] {obj}."),
            ("First there are [x=a-c] {obj}.", "Then there are [y=x+b] {obj}."),
        ),
        _draw_gain_loss,
    ),
    SkillSpec(
        "groups-plus",
        True,
        (
            "{name} has {a} boxes of {b} {obj} and {c} more {obj}. How many {obj} does {name} have?",
            "There are {a} bags of {b} {obj} on a table. {name} adds {c} more. How many {obj} are on the table?",
            "{name} has {c} {obj} and buys {a} packs of {b} {obj}. How many {obj} does {name} have now?",
            "A shop sells {a} bags of {b} {obj} and then {c} more {obj}. How many {obj} does it sell?",
        ),
        (("The groups make [x=a*b] {obj}.", "In all there are [y=x+c] {obj}."),),
        _draw_groups_plus,
    ),
    SkillSpec(
        "compare-total",
        True,
        (
            "{name} has {a} {obj}. {other} has {b} more than {name}. How many {obj} do they have together?",
            "{other} has {b} more {obj} than {name}. {name} has {a}. How many {obj} do the two have together?",
            "{name} finds {a} {obj} and {other} finds {b} more than {name}. How many {obj} do they find together?",
        ),
        (
            ("So {other} has [x=a+b] {obj}.", "In all there are [y=x+a] {obj}."),
            ("So twice as many is [x=2*a] {obj}.", "In all there are [y=x+b] {obj}."),
        ),
        _draw_compare_total,
    ),
    SkillSpec(
        "change",
        True,
        (
            "{name} buys {a} {obj} for {b} dollars each and a {thing} for {c} dollars. {name} pays with {d} dollars. "
            "How many dollars does {name} get back?",
            "A {thing} costs {c} dollars and {obj} cost {b} dollars each. {name} buys the {thing} and {a} {obj} with "
            "{d} dollars. How many dollars are left?",
            "{name} has {d} dollars. {name} buys a {thing} for {c} dollars and {a} {obj} for {b} dollars each. "
            "How many dollars are left?",
        ),
        (
            ("The {obj} cost [x=a*b] dollars.", "In all it costs [y=x+c] dollars.", "Then there are [z=d-y] dollars."),
            ("The {obj} cost [x=a*b] dollars.", "Then there are [y=d-x] dollars.", "Then there are [z=y-c] dollars."),
            ("Then there are [y=d-c] dollars.", "The {obj} cost [x=a*b] dollars.", "Then there are [z=y-x] dollars."),
        ),
        _draw_change,
    ),
    SkillSpec(
        "share",
        True,
        (
            "{name} has {a} {obj} and gets {b} more. {name} shares them among {c} friends. "
            "How many {obj} does each friend get?",
            "There are {a} {obj} in a box and {b} in a bag. {c} friends share them all. "
            "How many {obj} does each friend get?",
            "{name} has {a} {obj} and {other} has {b}. They put them all into {c} bags. "
            "How many {obj} are in each bag?",
        ),
        (("In all there are [x=a+b] {obj}.", "Each one gets [y=x/c] {obj}."),),
        _draw_share,
    ),
    SkillSpec(
        "twice",
        False,
        (
            "{name} has {a} {obj} and {other} has twice as many. They give {c} away. How many {obj} do they have left?",
            "{other} has twice as many {obj} as {name}. {name} has {a}. They lose {c}. "
            "How many {obj} do they have left together?",
            "{name} finds {a} {obj}. {other} finds twice as many. They sell {c} of them all. How many {obj} are left?",
        ),
        (
            ("So {other} has [x=2*a] {obj}.", "In all there are [y=x+a] {obj}.", "Then there are [z=y-c] {obj}."),
            ("In all there are [y=3*a] {obj}.", "Then there are [z=y-c] {obj}."),
        ),
        _draw_twice,
    ),
    SkillSpec(
        "half",
        False,
        (
            "{name} has {a} {obj} and gives half of them to {other}. Then {name} gets {b} more. "
            "How many {obj} does {name} have now?",
            "There are {a} {obj} in a box. {name} takes out half of them and then puts in {b} more. "
            "How many {obj} are in the box now?",
            "A shop has {a} {obj}. It sells half of them and then buys {b}. How many {obj} are in the shop now?",
        ),
        (
            ("Half of them is [x=a/2] {obj}.", "Then there are [y=x+b] {obj}."),
            ("Half of them is [x=a/2] {obj}.", "Then there are [w=a-x] {obj}.", "Then there are [y=w+b] {obj}."),
        ),
        _draw_half,
    ),
    SkillSpec(
        "rate",
        False,
        (
            "A machine makes {a} {obj} an hour. It runs {b} hours in May and {c} hours in June. "
            "How many {obj} does it make?",
            "{name} picks {a} {obj} an hour. {name} works {b} hours today and {c} hours tomorrow. "
            "How many {obj} does {name} pick?",
            "A shop sells {a} {obj} an hour. It is open for {b} hours and then for {c} hours more. "
            "How many {obj} does it sell?",
        ),
        (
            ("The time is [x=b+c] hours.", "In all there are [y=a*x] {obj}."),
            ("First there are [x=a*b] {obj}.", "Then there are [w=a*c] {obj}.", "In all there are [y=x+w] {obj}."),
        ),
        _draw_rate,
    ),
    SkillSpec(
        "percent",
        False,
        (
            "A {thing} costs {a} dollars. Today it is {p} percent off. How many dollars does it cost today?",
            "{name} wants a {thing} for {a} dollars and gets {p} percent off. How many dollars does {name} pay?",
            "The price of a {thing} was {a} dollars. It falls by {p} percent. How many dollars is the price now?",
        ),
        (
            ("The part off is [x=a/q] dollars.", "Then it costs [y=a-x] dollars."),
            ("All the parts are [w=a*p].", "The part off is [x=w/h] dollars.", "Then it costs [y=a-x] dollars."),
        ),
        _draw_percent,
        _percent_parts,
    ),
    SkillSpec(
        "at-first",
        False,
        (
            "{name} gave away {a} {obj} and then got {b} more. Now {name} has {c}. "
            "How many {obj} did {name} have at first?",
            "{name} took {a} {obj} out of a box and put in {b} others. Now {c} are in the box. "
            "How many {obj} were in the box at first?",
            "A shop sold {a} {obj} and then bought {b}. Now it has {c}. How many {obj} did it have at first?",
        ),
        (
            ("Before that there were [x=c-b] {obj}.", "At first there were [y=x+a] {obj}."),
            ("Before that there were [x=c+a] {obj}.", "At first there were [y=x-b] {obj}."),
        ),
        _draw_at_first,
    ),
)
