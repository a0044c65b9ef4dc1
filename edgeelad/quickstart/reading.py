"""Parse a word problem: its skill, its numbers and words, and every chain of steps that solves it.

Works on any text with the wording of the problems, not only on generated ones.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from edgeelad.errors import InputError
from edgeelad.quickstart.skills import SPECS, SkillSpec
from edgeelad.quickstart.steps import PlannedStep, fill_chain

_SLOT = re.compile(r"\\\{(\w+)\\\}")
_NUMBER_SLOTS = frozenset("abcdp")
_NAME_SLOTS = frozenset({"name", "other"})


@dataclass(frozen=True, slots=True)
class Reading:
    """A parsed question: its text, its skill, and the chains that solve it, the canonical one first."""

    question: str
    skill: str
    chains: tuple[tuple[PlannedStep, ...], ...]

    @property
    def answer(self) -> int:
        """The answer: the last result of every chain."""
        return self.chains[0][-1].equation.result


@lru_cache(maxsize=4096)
def read_question(question: str) -> Reading:
    """Parse a question.

    Raises:
        InputError: Its wording matches none of the problems, or its results are not whole and positive.
    """
    text = " ".join(question.split())
    for spec, pattern in _PATTERNS:
        match = pattern.fullmatch(text)
        if match is not None:
            slots = match.groupdict()
            stated = {slot: int(value) for slot, value in slots.items() if slot in _NUMBER_SLOTS}
            words = {slot: value for slot, value in slots.items() if slot not in _NUMBER_SLOTS}
            return Reading(text, spec.name, _solve(spec, stated, words))
    shown = text if len(text) <= 120 else text[:120] + "…"
    raise InputError(f"not a word problem of the quickstart: {shown!r}; word it like the questions in its pool")


def _solve(spec: SkillSpec, stated: dict[str, int], words: dict[str, str]) -> tuple[tuple[PlannedStep, ...], ...]:
    numbers = {**stated, **spec.derive(stated)}
    chains = [fill_chain(spec.chains[0], numbers, words)]
    for other in spec.chains[1:]:
        try:
            chains.append(fill_chain(other, numbers, words))
        except InputError:  # with these numbers, this way leads through a negative number or a fraction
            continue
    assert len({chain[-1].equation.result for chain in chains}) == 1, (spec.name, numbers)
    return tuple(chains)


def _compile(wording: str) -> re.Pattern[str]:
    seen: set[str] = set()

    def slot_pattern(match: re.Match[str]) -> str:
        slot = match[1]
        if slot in seen:
            return f"(?P={slot})"
        seen.add(slot)
        if slot in _NUMBER_SLOTS:
            return rf"(?P<{slot}>\d{{1,6}})"
        return rf"(?P<{slot}>[A-Z][a-z]+)" if slot in _NAME_SLOTS else rf"(?P<{slot}>[a-z]+)"

    return re.compile(_SLOT.sub(slot_pattern, re.escape(wording)))


_PATTERNS = tuple((spec, _compile(wording)) for spec in SPECS for wording in spec.wordings)
