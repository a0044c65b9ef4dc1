"""The exact solver behind the quickstart's teacher: solve questions, judge and correct steps, complete explanations.

Works from texts alone. A step is right if its equations hold and come next on some way to the answer, given the steps
before it; other orders and other words are accepted. Every function raises `InputError` for a question that it cannot
parse.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from edgeelad.quickstart.problems import NAMES, OBJECTS, THINGS
from edgeelad.quickstart.reading import Reading, read_question
from edgeelad.quickstart.steps import Equation, PlannedStep, find_equations, replace_equation

_ANSWER_LINE = re.compile(r"The answer is (-?\d+)\.?")
_PEOPLE = frozenset(NAMES)
_GOODS = frozenset({*OBJECTS, *THINGS, "dollars", "hours"})


@dataclass(frozen=True, slots=True)
class Solution:
    """A question's canonical explanation and answer."""

    steps: tuple[str, ...]
    answer: int


def solve(question: str) -> Solution:
    """Explain and answer a question."""
    reading = read_question(question)
    return Solution(tuple(step.text for step in reading.chains[0]), reading.answer)


def judge_step(question: str, previous_steps: Sequence[str], step: str) -> bool:
    """Whether a step is right after right steps.

    A step that repeats an equation, or comes after the answer, is wrong. A step without an equation is right if it
    states the answer, or only numbers that are known by then.
    """
    reading = read_question(question)
    known = _keys(previous_steps)
    equations = find_equations(step)
    if not equations:
        return _is_restatement(reading, previous_steps, step)
    for equation in equations:
        planned = [candidate for candidate in _next_steps(reading, known) if candidate.equation.key == equation.key]
        if not equation.is_true or not planned or not any(_fits(reading, candidate, step) for candidate in planned):
            return False
        known[equation.key] += 1
    return True


def correct_step(question: str, previous_steps: Sequence[str], step: str) -> str:
    """The correction of a wrong step, in its own words as far as they fit.

    After right steps that reach the answer, it is the answer line.
    """
    reading = read_question(question)
    candidates = _best_next(reading, _keys(previous_steps))
    if not candidates:
        return f"The answer is {reading.answer}"
    equations = find_equations(step)
    wrong = equations[0] if len(equations) == 1 else None
    planned = _meant(candidates, step, wrong)
    if wrong is not None and wrong.operator == planned.equation.operator and _fits(reading, planned, step):
        return replace_equation(step, planned.equation)
    return planned.text


def continue_from(question: str, good_steps: Sequence[str]) -> tuple[str, ...]:
    """The steps that are missing after right ones; empty if they reach the answer."""
    reading = read_question(question)
    known = _keys(good_steps)
    chain = _best_chains(reading, known)[0]
    return tuple(step.text for step in chain[_num_covered(chain, known) :])


def find_first_error(question: str, steps: Sequence[str]) -> int | None:
    """The 0-based index of the first wrong step; the number of steps if more are needed; None if all are right."""
    for index, step in enumerate(steps):
        if not judge_step(question, steps[:index], step):
            return index
    return len(steps) if continue_from(question, steps) else None


def _keys(steps: Sequence[str]) -> Counter[tuple[str, int, int]]:
    return Counter(equation.key for step in steps for equation in find_equations(step) if equation.is_true)


def _num_covered(chain: tuple[PlannedStep, ...], known: Counter[tuple[str, int, int]]) -> int:
    """How many steps at the start of a chain are known; a chain can compute the same twice (3 * 4 on two days)."""
    left = known.copy()
    for index, step in enumerate(chain):
        if left[step.equation.key] == 0:
            return index
        left[step.equation.key] -= 1
    return len(chain)


def _next_steps(reading: Reading, known: Counter[tuple[str, int, int]]) -> list[PlannedStep]:
    """The next steps of all chains; none once a chain is complete."""
    covered = [(chain, _num_covered(chain, known)) for chain in reading.chains]
    if any(num == len(chain) for chain, num in covered):
        return []
    return [chain[num] for chain, num in covered]


def _best_chains(reading: Reading, known: Counter[tuple[str, int, int]]) -> list[tuple[PlannedStep, ...]]:
    """The chains that share the most first steps with the known ones."""
    nums = [_num_covered(chain, known) for chain in reading.chains]
    complete = [chain for chain, num in zip(reading.chains, nums, strict=True) if num == len(chain)]
    return complete or [chain for chain, num in zip(reading.chains, nums, strict=True) if num == max(nums)]


def _best_next(reading: Reading, known: Counter[tuple[str, int, int]]) -> list[PlannedStep]:
    chains = _best_chains(reading, known)
    return [chain[num] for chain in chains if (num := _num_covered(chain, known)) < len(chain)]


def _meant(candidates: Sequence[PlannedStep], step: str, wrong: Equation | None) -> PlannedStep:
    """The step that was meant: the first candidate, so that corrections are uniform, unless the wrong step computes
    what another candidate computes and its words are as close to that one."""
    first = candidates[0]
    for other in candidates[1:]:
        is_computed = wrong is not None and wrong.key == other.equation.key
        if is_computed and len(_words(other.text) & _words(step)) >= len(_words(first.text) & _words(step)):
            return other
    return first


def _fits(reading: Reading, planned: PlannedStep, step: str) -> bool:
    """Whether a step names the right people and goods; other words are free."""
    words, asked, meant = _words(step), _words(reading.question), _words(planned.text)
    people = (meant & _PEOPLE) or (asked & _PEOPLE)
    return words & _PEOPLE <= people and words & _GOODS <= (asked | meant)


def _is_restatement(reading: Reading, previous_steps: Sequence[str], step: str) -> bool:
    answer = _ANSWER_LINE.fullmatch(step.strip())
    if answer is not None:
        return int(answer[1]) == reading.answer
    asked = set(re.findall(r"\d+", reading.question))
    found = {str(equation.result) for previous in previous_steps for equation in find_equations(previous)}
    numbers = set(re.findall(r"\d+", step))
    domain = (_PEOPLE | _GOODS) & _words(step)
    return bool(numbers) and numbers <= asked | found and domain <= _words(reading.question)


def _words(text: str) -> set[str]:
    return set(re.findall(r"[A-Za-z]+", text))
