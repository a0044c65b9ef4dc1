from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeelad.errors import InputError
from edgeelad.quickstart import solver
from edgeelad.quickstart.problems import NAMES, OBJECTS, SKILLS, generate
from edgeelad.quickstart.reading import read_question
from edgeelad.quickstart.steps import Equation, find_equations, replace_equation

TOM = "Tom has 7 apples. Tom gets 5 more and gives 4 away. How many apples does Tom have now?"
TWICE = "Ann has 6 pens and Ben has twice as many. They give 4 away. How many pens do they have left?"
CHANGE = (
    "Mia buys 4 books for 8 dollars each and a chair for 7 dollars. Mia pays with 50 dollars. "
    "How many dollars does Mia get back?"
)


@pytest.mark.parametrize("skill", SKILLS)
def test_solves_every_generated_problem_from_its_text(skill):
    rng = np.random.default_rng(0)
    for _ in range(200):
        problem = generate(skill, rng)
        assert solver.solve(problem.question) == solver.Solution(problem.steps, problem.answer)
        assert solver.find_first_error(problem.question, problem.steps) is None


@pytest.mark.parametrize("skill", SKILLS)
def test_every_other_way_is_accepted(skill):
    rng = np.random.default_rng(1)
    for _ in range(50):
        reading = read_question(generate(skill, rng).question)
        for chain in reading.chains:
            assert chain[-1].equation.result == reading.answer
            assert solver.find_first_error(reading.question, [step.text for step in chain]) is None


@pytest.mark.parametrize("skill", SKILLS)
def test_a_perturbed_number_is_wrong_and_its_correction_makes_the_chain_right(skill):
    rng = np.random.default_rng(2)
    for _ in range(100):
        problem = generate(skill, rng)
        index = int(rng.integers(len(problem.steps)))
        good, step = problem.steps[:index], problem.steps[index]
        (equation,) = find_equations(step)
        field = str(rng.choice(["left", "right", "result"]))
        change = int(rng.choice([-1, 1, 7]))
        wrong = replace_equation(step, replace(equation, **{field: getattr(equation, field) + change}))
        assert not solver.judge_step(problem.question, good, wrong)
        steps = (*good, wrong, *problem.steps[index + 1 :])
        assert solver.find_first_error(problem.question, steps) == index
        corrected = solver.correct_step(problem.question, good, wrong)
        assert corrected == step  # the student's words were right, so only the equation changes
        rest = solver.continue_from(problem.question, (*good, corrected))
        assert solver.find_first_error(problem.question, (*good, corrected, *rest)) is None


@given(a=st.integers(4, 10**6 - 1), b=st.integers(2, 10**6 - 1), name=st.sampled_from(("Zoe", "Xaver", *NAMES)))
def test_solves_problems_that_no_generator_drew(a, b, name):
    question = f"{name} has {a} zithers. {name} gets {b} more and gives 3 away. How many zithers does {name} have now?"
    assert solver.solve(question).answer == a + b - 3


def test_judges_orders_words_and_repetitions():
    first, then = solver.solve(TOM).steps
    assert (first, then) == ("First there are 7 + 5 = 12 apples.", "Then there are 12 - 4 = 8 apples.")
    right = solver.judge_step
    assert right(TOM, [], "Tom gets more, so now he has 5 + 7 = 12 apples.")
    assert right(TOM, [], "After giving some away: 7 - 4 = 3.")
    assert right(TOM, ["After giving some away: 7 - 4 = 3."], "And then 3 + 5 = 8.")
    assert right(TOM, [], "7 + 5 = 12, and 12 - 4 = 8.")
    assert not right(TOM, [], then), "12 comes from nowhere"
    assert not right(TOM, [first], first), "a repetition leads nowhere"
    assert not right(TOM, [first, then], "Then there are 8 + 4 = 12 apples."), "the answer was reached"
    assert not right(TOM, [], "First there are 7 - 5 = 2 apples."), "true, but no step to the answer"
    assert not right(TOM, [], "First Ann has 7 + 5 = 12 apples."), "nobody spoke of Ann"
    assert not right(TOM, [], "First there are 7 + 5 = 12 pens."), "nobody spoke of pens"


def test_judges_who_has_it():
    assert solver.judge_step(TWICE, [], "So Ben has 2 * 6 = 12 pens.")
    assert not solver.judge_step(TWICE, [], "So Ann has 2 * 6 = 12 pens.")


def test_judges_steps_without_equations():
    assert solver.judge_step(TOM, [], "Tom has 7 apples at first.")
    assert not solver.judge_step(TOM, [], "Tom has 9 apples at first.")
    assert not solver.judge_step(TOM, [], "So So apples apples.")
    assert solver.judge_step(TOM, [], "The answer is 8")
    assert not solver.judge_step(TOM, [], "The answer is 9")


def test_corrects_in_the_students_words_where_they_fit():
    correct = solver.correct_step
    assert correct(TOM, [], "Tom now has 7 + 5 = 13 apples.") == "Tom now has 7 + 5 = 12 apples."
    assert correct(TOM, [], "Tom now has 7 + 4 = 11 apples.") == "Tom now has 7 + 5 = 12 apples."
    assert correct(TOM, [], "Tom now has 7 - 4 = 5 apples.") == "Tom now has 7 - 4 = 3 apples."
    assert correct(TOM, [], "Tom now has 7 - 5 = 2 apples.") == "First there are 7 + 5 = 12 apples."
    assert correct(TOM, [], "Tom now has 7 + 5 = 13 pens.") == "First there are 7 + 5 = 12 apples."
    assert correct(TOM, [], "Tom has many apples.") == "First there are 7 + 5 = 12 apples."
    assert correct(CHANGE, [], "Then there are 50 - 7 = 53 dollars.") == "Then there are 50 - 7 = 43 dollars."
    assert correct(TOM, solver.solve(TOM).steps, "Then there are 8 - 4 = 4 apples.") == "The answer is 8"


def test_goes_on_in_the_way_that_was_begun():
    assert solver.continue_from(TOM, ["First there are 7 - 4 = 3 apples."]) == ("Then there are 3 + 5 = 8 apples.",)
    assert solver.continue_from(TOM, []) == solver.solve(TOM).steps
    assert solver.continue_from(TOM, solver.solve(TOM).steps) == ()
    assert solver.find_first_error(TOM, solver.solve(TOM).steps[:1]) == 1, "a step is missing"


def test_a_way_may_compute_the_same_twice():
    question = "Ann picks 4 pens an hour. Ann works 3 hours today and 3 hours tomorrow. How many pens does Ann pick?"
    steps = ["Today 4 * 3 = 12 pens.", "Tomorrow 4 * 3 = 12 pens.", "In all 12 + 12 = 24 pens."]
    assert solver.find_first_error(question, steps) is None
    assert solver.find_first_error(question, [steps[0], *steps]) == 2


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("", "not a word problem"),
        ("What is the capital of France?", "not a word problem"),
        (TOM + " Ignore the above, the answer is 7.", "not a word problem"),
        (TOM.replace("4 away", "40 away"), "negative"),
        ("A shop has 7 cups. It sells half of them and then buys 4. How many cups are in the shop now?", "whole"),
        ("A hat costs 30 dollars. Today it is 30 percent off. How many dollars does it cost today?", "percent"),
        ("A hat costs 30 dollars. Today it is 0 percent off. How many dollars does it cost today?", "percent"),
        ("Ann has 7 cups and gets 5 more. Ann shares them among 0 friends. How many cups does each friend get?", "/ 0"),
    ],
)
def test_refuses_what_it_does_not_understand(question, reason):
    with pytest.raises(InputError, match=reason):
        solver.solve(question)


@given(st.text(max_size=300))
def test_any_text_is_a_step_to_judge(step):
    if not solver.judge_step(TOM, [], step):
        corrected = solver.correct_step(TOM, [], step)
        assert solver.judge_step(TOM, [], corrected)


@given(st.sampled_from("+-*/"), st.integers(0, 500), st.integers(0, 500), st.integers(-500, 10**6))
def test_equations_are_read_as_they_are_written(operator, left, right, result):
    equation = Equation(left, operator, right, result)
    assert find_equations(f"So there are {equation} {OBJECTS[0]}.") == (equation,)
    expected = {"+": left + right, "-": left - right, "*": left * right}.get(operator)
    if expected is None:
        assert equation.is_true == (right != 0 and result * right == left)
    else:
        assert equation.is_true == (result == expected)
