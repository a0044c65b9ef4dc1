"""Generate grade-school word problems with their explanations, skills and answers.

The base student's seed examples cover the known skills only, the pool is skewed toward them, and the test set is
balanced over all skills; no question text occurs in two of the three.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from edgeelad.quickstart.skills import SPECS
from edgeelad.quickstart.steps import fill_chain

SKILLS = tuple(spec.name for spec in SPECS)
KNOWN_SKILLS = tuple(spec.name for spec in SPECS if spec.is_known)
NEW_SKILLS = tuple(spec.name for spec in SPECS if not spec.is_known)
NAMES = ("Ann", "Ben", "Carl", "Dana", "Emma", "Finn", "Gina", "Hugo", "Ida", "Jack", "Kate", "Liam", "Mia", "Noah")
OBJECTS = ("apples", "pens", "books", "cards", "stamps", "coins", "shells", "eggs", "balls", "cups", "stones", "cakes")
THINGS = ("bag", "hat", "lamp", "coat", "game", "chair", "ball", "cup")
NEW_SHARE = 0.28  # of the pool: enough to learn the new skills from, so few that random questions mostly miss them

_BY_NAME = {spec.name: spec for spec in SPECS}


@dataclass(frozen=True, slots=True)
class Problem:
    """A word problem with its explanation; `steps` exclude the answer line."""

    question: str
    steps: tuple[str, ...]
    answer: int
    skill: str


@dataclass(frozen=True, slots=True)
class QuickstartData:
    """The quickstart's data; no question text occurs twice."""

    seed_examples: list[Problem]
    pool: list[Problem]
    test: list[Problem]


def generate(skill: str, rng: Generator) -> Problem:
    """Draw one problem of a skill.

    Raises:
        KeyError: `skill` is not in SKILLS.
    """
    spec = _BY_NAME[skill]
    numbers = spec.draw(rng)
    words = _draw_words(rng)
    wording = spec.wordings[rng.integers(len(spec.wordings))]
    planned = fill_chain(spec.chains[0], {**numbers, **spec.derive(numbers)}, words)
    return Problem(
        question=wording.format_map({**numbers, **words}),
        steps=tuple(step.text for step in planned),
        answer=planned[-1].equation.result,
        skill=skill,
    )


def make_problems(
    num: int, weights: Mapping[str, float], rng: Generator, taken: frozenset[str] = frozenset()
) -> list[Problem]:
    """Draw problems of several skills in shuffled order, without duplicates and without texts in `taken`.

    Args:
        num: Number of problems.
        weights: Skill -> weight; shares are proportional, rounded by largest remainder.
        rng: Source of randomness.
        taken: Question texts to exclude.
    """
    seen = set(taken)
    problems = []
    for skill, count in _shares(num, weights).items():
        for _ in range(count):
            problem = generate(skill, rng)
            while problem.question in seen:
                problem = generate(skill, rng)
            seen.add(problem.question)
            problems.append(problem)
    return [problems[index] for index in rng.permutation(len(problems))]


def make_split(seed: int, num_seed_examples: int, num_pool: int, num_test: int) -> QuickstartData:
    """Draw the quickstart's seed examples, pool and test set; the same arguments give the same data."""
    rng = np.random.default_rng(seed)
    known = {skill: 1.0 / len(KNOWN_SKILLS) for skill in KNOWN_SKILLS}
    new = {skill: 1.0 / len(NEW_SKILLS) for skill in NEW_SKILLS}
    skewed = {skill: (1.0 - NEW_SHARE) * weight for skill, weight in known.items()}
    skewed |= {skill: NEW_SHARE * weight for skill, weight in new.items()}
    test = make_problems(num_test, dict.fromkeys(SKILLS, 1.0), rng)
    taken = frozenset(problem.question for problem in test)
    seed_examples = make_problems(num_seed_examples, known, rng, taken)
    taken |= {problem.question for problem in seed_examples}
    return QuickstartData(seed_examples, make_problems(num_pool, skewed, rng, taken), test)


def _draw_words(rng: Generator) -> dict[str, str]:
    name, other = rng.choice(NAMES, size=2, replace=False)
    return {
        "name": str(name),
        "other": str(other),
        "obj": OBJECTS[rng.integers(len(OBJECTS))],
        "thing": THINGS[rng.integers(len(THINGS))],
    }


def _shares(num: int, weights: Mapping[str, float]) -> dict[str, int]:
    total = sum(weights.values())
    exact = {skill: num * weight / total for skill, weight in weights.items()}
    counts = {skill: int(share) for skill, share in exact.items()}
    by_remainder = sorted(exact, key=lambda skill: (counts[skill] - exact[skill], skill))
    for skill in by_remainder[: num - sum(counts.values())]:
        counts[skill] += 1
    return counts
