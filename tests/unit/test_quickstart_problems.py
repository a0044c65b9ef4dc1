import re
from collections import Counter

import numpy as np
import pytest

from edgeelad.quickstart.problems import KNOWN_SKILLS, NEW_SKILLS, SKILLS, generate, make_problems, make_split
from edgeelad.quickstart.reading import read_question
from edgeelad.quickstart.skills import SPECS
from edgeelad.quickstart.steps import find_equations

COMMON = {word for spec in SPECS for wording in spec.wordings for word in re.findall(r"[A-Z]?[a-z]+", wording)}
COMMON -= {"bag", "cup", "box"}  # words that fill slots as well


@pytest.mark.parametrize("skill", SKILLS)
def test_steps_are_true_and_lead_to_the_answer(skill):
    rng = np.random.default_rng(1)
    for _ in range(200):
        problem = generate(skill, rng)
        equations = [find_equations(step) for step in problem.steps]
        assert all(len(found) == 1 and found[0].is_true for found in equations)
        assert equations[-1][0].result == problem.answer
        assert all(found[0].result >= 2 for found in equations), "one object would need a singular"


@pytest.mark.parametrize("skill", SKILLS)
def test_steps_speak_of_what_the_question_states(skill):
    rng = np.random.default_rng(2)
    for _ in range(50):
        problem = generate(skill, rng)
        known = {int(word) for word in problem.question.replace(".", " ").split() if word.isdecimal()}
        known |= {2} | ({100 // number for number in known if number} if skill == "percent" else set())
        for step in problem.steps:
            equation = find_equations(step)[0]
            assert {equation.left, equation.right} <= known, (problem, step)
            known.add(equation.result)


def test_skills_have_two_and_three_steps_and_several_wordings():
    lengths = {len(spec.chains[0]) for spec in SPECS}
    assert lengths == {2, 3}
    assert len(SKILLS) >= 8
    assert all(len(spec.wordings) >= 3 for spec in SPECS)
    assert set(KNOWN_SKILLS) | set(NEW_SKILLS) == set(SKILLS)
    assert not set(KNOWN_SKILLS) & set(NEW_SKILLS)


def test_every_wording_is_drawn_and_read_as_its_skill():
    rng = np.random.default_rng(3)
    for spec in SPECS:
        questions = [generate(spec.name, rng).question for _ in range(100)]
        assert {read_question(question).skill for question in questions} == {spec.name}
        # what a question says besides its slots tells its wording
        shapes = {re.sub(r"[A-Z]?[a-z]+|\d+", lambda m: m[0] if m[0] in COMMON else "_", text) for text in questions}
        assert len(shapes) == len(spec.wordings)


def test_make_problems_keeps_shares_and_repeats_nothing():
    weights = {"gain-loss": 3.0, "percent": 1.0}
    problems = make_problems(401, weights, np.random.default_rng(4))
    assert Counter(problem.skill for problem in problems) == {"gain-loss": 301, "percent": 100}
    assert len({problem.question for problem in problems}) == 401


def test_make_problems_leaves_out_taken_questions():
    taken = frozenset(p.question for p in make_problems(300, {"percent": 1.0}, np.random.default_rng(5)))
    fresh = make_problems(300, {"percent": 1.0}, np.random.default_rng(5), taken)
    assert not taken & {problem.question for problem in fresh}


def test_split():
    data = make_split(7, num_seed_examples=500, num_pool=1000, num_test=200)
    parts = (data.seed_examples, data.pool, data.test)
    assert [len(part) for part in parts] == [500, 1000, 200]
    texts = [problem.question for part in parts for problem in part]
    assert len(set(texts)) == len(texts)
    assert {problem.skill for problem in data.seed_examples} == set(KNOWN_SKILLS)
    share = sum(problem.skill in NEW_SKILLS for problem in data.pool) / 1000
    assert 0.25 <= share <= 0.30
    assert {problem.skill for problem in data.pool} == set(SKILLS)
    assert set(Counter(problem.skill for problem in data.test).values()) == {200 // len(SKILLS)}


def test_split_depends_on_the_seed_alone():
    assert make_split(3, 50, 60, 40) == make_split(3, 50, 60, 40)
    assert make_split(3, 50, 60, 40) != make_split(4, 50, 60, 40)
