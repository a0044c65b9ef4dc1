"""Long chains: shuffled assignments with distractors, of which 4 to 10 lead to the answer; with an exact solver.

    c = 7. b = c + a. a = 5. d = b - 4. e = a + 9. What is d?

The functions are those of `edgeelad.quickstart.solver`, for these questions: a step is right if it calculates a
variable that the answer needs, for the first time and after all that it rests on.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from numpy.random import Generator

from edgeelad.errors import InputError
from edgeelad.quickstart.problems import Problem
from edgeelad.quickstart.solver import Solution
from edgeelad.quickstart.steps import compute

MIN_STEPS, MAX_STEPS, NUM_DISTRACTORS = 4, 10, 3
MAX_VALUE = 99
_ASSIGNED = re.compile(r"([a-z]) = (\w+)(?: ([-+*]) (\w+))?\.")


@dataclass(frozen=True, slots=True)
class Chain:
    """A parsed question: its calculations by variable, its given values, and the variables in an order that works."""

    text: dict[str, str]
    needs: dict[str, frozenset[str]]
    order: tuple[str, ...]
    answer: int


def make_chains(num: int, rng: Generator) -> list[Problem]:
    """Draw questions; the same generator gives the same ones."""
    return [_make(rng) for _ in range(num)]


def solve(question: str) -> Solution:
    """Explain and answer a question."""
    chain = _read(question)
    return Solution(tuple(chain.text[name] for name in chain.order), chain.answer)


def judge_step(question: str, previous_steps: Sequence[str], step: str) -> bool:
    """Whether a step is right after right steps."""
    chain, name = _read(question), step[:1]
    done = {previous[:1] for previous in previous_steps}
    return chain.text.get(name) == step and name not in done and chain.needs[name] <= done


def find_first_error(question: str, steps: Sequence[str]) -> int | None:
    """The first wrong step; the number of steps if more are needed; None if all are right."""
    for index, step in enumerate(steps):
        if not judge_step(question, steps[:index], step):
            return index
    return len(steps) if continue_from(question, steps) else None


def continue_from(question: str, good_steps: Sequence[str]) -> tuple[str, ...]:
    """The steps that are missing after right ones."""
    chain, done = _read(question), {step[:1] for step in good_steps}
    return tuple(chain.text[name] for name in chain.order if name not in done)


def correct_step(question: str, previous_steps: Sequence[str], step: str) -> str:
    """The step that was meant, calculated rightly; else the next one, or the answer line after the last."""
    chain, done = _read(question), {previous[:1] for previous in previous_steps}
    possible = [name for name in chain.order if name not in done and chain.needs[name] <= done]
    if not possible:
        return f"The answer is {chain.answer}"
    return chain.text[step[:1] if step[:1] in possible else possible[0]]


def _make(rng: Generator) -> Problem:
    num_steps = int(rng.integers(MIN_STEPS, MAX_STEPS + 1))
    names = [str(name) for name in rng.permutation(list(string.ascii_lowercase))]
    values = {names.pop(): int(rng.integers(2, 20))}
    last = next(iter(values))
    lines = [f"{last} = {values[last]}."]
    for index in range(num_steps + NUM_DISTRACTORS):
        is_distractor = index >= num_steps
        left = str(rng.choice(list(values))) if is_distractor else last
        name, (right, shown) = names.pop(), _operand(values, names, lines, rng)
        # left + right or left - right always fits
        operator = next(o for o in map(str, rng.permutation(["+", "-", "*"])) if _fits(values[left], o, right))
        values[name] = compute(values[left], operator, right)
        lines.append(f"{name} = {left} {operator} {shown}.")
        last = last if is_distractor else name
    text = " ".join(str(line) for line in rng.permutation(lines)) + f" What is {last}?"
    solution = solve(text)
    return Problem(text, solution.steps, solution.answer, "chain")


def _operand(values: dict[str, int], names: list[str], lines: list[str], rng: Generator) -> tuple[int, str]:
    """A number, or a new variable that is given."""
    value = int(rng.integers(2, 10))
    if rng.random() < 0.5:
        return value, str(value)
    name = names.pop()
    values[name] = value
    lines.append(f"{name} = {value}.")
    return value, name


def _fits(left: int, operator: str, right: int) -> bool:
    return 0 < compute(left, operator, right) <= MAX_VALUE


@lru_cache(maxsize=4096)
def _read(question: str) -> Chain:
    asked = re.search(r"What is ([a-z])\?", question)
    assigned = {name: (left, operator, right) for name, left, operator, right in _ASSIGNED.findall(question)}
    if asked is None or asked[1] not in assigned:
        raise InputError(f"not a chain of assignments: {question[:120]!r}")
    text: dict[str, str] = {}
    needs: dict[str, frozenset[str]] = {}
    values: dict[str, int] = {}

    def value(name: str) -> int:
        if name.isdigit():
            return int(name)
        if name not in values:
            left, operator, right = assigned[name]
            if not operator:
                values[name] = int(left)
            else:
                numbers = value(left), value(right)
                values[name] = compute(numbers[0], operator, numbers[1])
                needs[name] = frozenset(used for used in (left, right) if used in text)
                text[name] = f"{name}: {numbers[0]} {operator} {numbers[1]} = {values[name]}"
        return values[name]

    answer = value(asked[1])
    return Chain(text, needs, tuple(text), answer)
