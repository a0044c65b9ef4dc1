"""The long chains of the cost benchmark: their solver knows every right order and the first wrong step."""

import sys
from pathlib import Path

import numpy as np
import pytest

from edgeelad.errors import InputError
from edgeelad.quickstart.planted import plant_error
from edgeelad.text.arithmetic import equations

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import long_chains

del sys.path[0]

QUESTION = "d = b - 4. c = 7. e = a + 9. b = c + a. a = 5. f = d * b. What is f?"
STEPS = ("b: 7 + 5 = 12", "d: 12 - 4 = 8", "f: 8 * 12 = 96")


def test_a_chain_is_solved_in_an_order_that_works() -> None:
    assert long_chains.solve(QUESTION).steps == STEPS
    assert long_chains.solve(QUESTION).answer == 96
    assert long_chains.find_first_error(QUESTION, STEPS) is None
    assert long_chains.continue_from(QUESTION, STEPS[:1]) == STEPS[1:]


def test_what_is_wrong_is_found_and_corrected() -> None:
    assert long_chains.find_first_error(QUESTION, STEPS[:2]) == 2, "a step is missing"
    assert long_chains.find_first_error(QUESTION, STEPS[1:]) == 0, "it rests on what is not there yet"
    assert long_chains.find_first_error(QUESTION, (STEPS[0], STEPS[0])) == 1, "it repeats"
    assert long_chains.find_first_error(QUESTION, ("e: 5 + 9 = 14",)) == 0, "the answer does not need it"
    assert long_chains.correct_step(QUESTION, STEPS[:1], "d: 12 - 4 = 9") == STEPS[1]
    assert long_chains.correct_step(QUESTION, STEPS[:1], "Hm.") == STEPS[1]
    assert long_chains.correct_step(QUESTION, STEPS, "e: 5 + 9 = 14") == "The answer is 96"
    with pytest.raises(InputError, match="not a chain"):
        long_chains.solve("What is 2 + 2?")


def test_drawn_chains_have_the_lengths_that_they_should() -> None:
    problems = long_chains.make_chains(60, np.random.default_rng(0))
    assert problems == long_chains.make_chains(60, np.random.default_rng(0))
    assert {len(problem.steps) for problem in problems} == set(range(4, 11))
    for problem in problems:
        assert long_chains.find_first_error(problem.question, problem.steps) is None
        assert all(equation.holds for step in problem.steps for equation in equations(step))
        middle = len(problem.steps) // 2
        planted = plant_error(problem.steps, middle, np.random.default_rng(1))
        assert long_chains.find_first_error(problem.question, planted) == middle
