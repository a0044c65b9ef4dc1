"""The student's own right explanations of questions that were not asked: which are drawn to be taught."""

from dataclasses import replace

import numpy as np
import pytest
from fixtures.fake_teacher import make_tree

from edgeelad.records import Question
from edgeelad.teacher.plan.own_examples import own_examples, room_for_own


def explained(num, right=lambda i: True, step=lambda i: f"{i} + {i} = {2 * i}"):
    """Sums and greedy explanations of them, as they were scored."""
    questions = [Question(f"q{i:04d}", f"What is {i} + {i} ?", "number", (), str(2 * i)) for i in range(1, num + 1)]
    trees = {
        question.id: make_tree((step(i),), str(2 * i if right(i) else 2 * i + 1000), [], question=question)
        for i, question in enumerate(questions, start=1)
    }
    return questions, trees


def drawn(questions, trees, risks, num=1000, seed=0):
    return own_examples(questions, trees, risks, num, np.random.default_rng(seed))


def test_only_right_explanations_are_taught():
    questions, trees = explained(60, right=lambda i: i % 3, step=lambda i: f"{i} + {i} = {2 * i + (i % 3 == 2)}")
    found = drawn(questions, trees, dict.fromkeys(trees, 0.5), num=1000)
    # neither a wrong answer nor a false equation
    assert [example.question.id for example in found] == [f"q{i:04d}" for i in range(1, 61) if i % 3 == 1]
    assert all(
        (example.steps, example.answer) == (trees[example.question.id].steps, example.question.answer)
        for example in found
    )


def test_of_too_many_explanations_those_at_risk_are_drawn():
    questions, trees = explained(4000)
    risks = {question.id: (0.02, 0.2)[i % 2] for i, question in enumerate(questions)}
    found = drawn(questions, trees, risks, num=400)
    assert len(found) == 400
    num_risky = sum(risks[example.question.id] == 0.2 for example in found)
    # ten to one, a little less since none is drawn twice
    assert num_risky == pytest.approx(400 * 10 / 11, abs=30)
    assert [example.question.id for example in found] == sorted(example.question.id for example in found)
    assert drawn(questions, trees, risks, num=400) == found != drawn(questions, trees, risks, num=400, seed=1)
    assert drawn(questions, trees, risks, num=0) == []


def test_what_was_taught_is_seen_eight_times():
    # 350 steps of 16 are 5,600: room for 700, of which 660 are there
    assert room_for_own(5600, 660, 360) == 40
    assert room_for_own(5600, 900, 360) == 0
    # five for each that was verified, at most
    assert room_for_own(5600, 360, 60) == 300


def test_without_answers_there_is_nothing_to_go_by():
    questions, trees = explained(20)
    bare = [replace(question, answer=None) for question in questions]
    assert drawn(bare, trees, dict.fromkeys(trees, 0.5), num=1000) == []
    half = [*bare[:10], *questions[10:]]
    assert [e.question.id for e in drawn(half, trees, dict.fromkeys(trees, 0.5), num=1000)] == [
        question.id for question in questions[10:]
    ]


def test_a_guess_of_yes_or_no_is_not_taught():
    questions = [
        Question(f"q{i:03d}", f"Does boat {i} float?", "boolean", (), ("no", "yes")[i % 2]) for i in range(200)
    ]
    steps = ("Boats float on water.", "So this one does.")
    trees = {
        question.id: make_tree(steps, ("no", "yes")[(i // 2) % 2], [], question=question)
        for i, question in enumerate(questions)
    }
    num_right = sum(trees[question.id].answer == question.answer for question in questions)
    assert num_right == 100
    # one accident in a hundred is allowed for
    assert len(drawn(questions, trees, dict.fromkeys(trees, 0.5), num=1000)) <= 1
    # one who knows nearly all of them is believed
    knowing = {question.id: replace(trees[question.id], answer=question.answer) for question in questions}
    assert len(drawn(questions, knowing, dict.fromkeys(trees, 0.01), num=1000)) > 150
