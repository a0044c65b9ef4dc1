"""Generate word problems with planted errors, to check a teacher without data of one's own.

A quarter of the explanations are right. In the others one step is wrong, in its result or in an operand, and all later
steps follow from it, as a student's would; so the first error is known.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.random import Generator

from edgeelad.errors import InputError
from edgeelad.quickstart.problems import SKILLS, make_problems
from edgeelad.quickstart.steps import Equation, compute, find_equations, replace_equation
from edgeelad.records import Question
from edgeelad.teacher.check.measure import CheckRow

RIGHT_SHARE = 0.25


def planted_rows(num: int, seed: int = 0) -> list[CheckRow]:
    """Draw `num` rows; the same arguments give the same rows."""
    rng = np.random.default_rng(seed)
    problems = make_problems(num, dict.fromkeys(SKILLS, 1.0), rng)
    rows = []
    for index, problem in enumerate(problems):
        question = Question(f"planted-{index}", problem.question, answer=str(problem.answer), skill=problem.skill)
        if rng.random() < RIGHT_SHARE:
            rows.append(CheckRow(question, problem.steps, None, str(problem.answer)))
            continue
        mistake = int(rng.integers(len(problem.steps)))
        steps = plant_error(problem.steps, mistake, rng)
        rows.append(CheckRow(question, steps, mistake, str(find_equations(steps[-1])[-1].result)))
    return rows


def plant_error(steps: tuple[str, ...], mistake: int, rng: Generator) -> tuple[str, ...]:
    """Make one step wrong and derive the later ones from it.

    Args:
        steps: Right steps with one equation each.
        mistake: Index of the step to make wrong, from 0.
        rng: Draws the kind of error: half are a wrong result, half a wrong operand.
    """
    right = find_equations(steps[mistake])[0]
    offset = int(rng.choice((-2, -1, 1, 2, 3, 10)))
    wrong = replace(right, result=max(0, right.result + offset))
    if rng.random() < 0.5:
        wrong = _with_result(replace(right, right=max(1, right.right + offset)), fallback=wrong)
    if wrong.result == right.result:
        wrong = replace(right, result=right.result + 1)
    planted = [*steps[:mistake], replace_equation(steps[mistake], wrong)]
    changed = {right.result: wrong.result}
    for step in steps[mistake + 1 :]:
        before = find_equations(step)[0]
        moved = replace(
            before, left=changed.get(before.left, before.left), right=changed.get(before.right, before.right)
        )
        after = before if moved == before else _with_result(moved, fallback=moved)
        changed[before.result] = after.result
        planted.append(replace_equation(step, after))
    return tuple(planted)


def _with_result(equation: Equation, fallback: Equation) -> Equation:
    """The equation with its true result, if that is a whole number from 0; else `fallback`."""
    try:
        result = compute(equation.left, equation.operator, equation.right)
    except InputError:
        return fallback
    return replace(equation, result=result) if result >= 0 else fallback
