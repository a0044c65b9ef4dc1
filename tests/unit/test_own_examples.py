"""The student's own right explanations of questions that were not asked: which are drawn to be taught."""

from dataclasses import replace

import numpy as np
import pytest
from fixtures.fake_teacher import make_tree

from edgeelad.records import Question
from edgeelad.teacher.plan.own_examples import own_examples


def explained(num, right=lambda i: True, step=lambda i: f"{i} + {i} = {2 * i}"):
    """Sums and greedy explanations of them, as they were scored."""
    questions = [Question(f"q{i:04d}", f"What is {i} + {i} ?", "number", (), str(2 * i)) for i in range(1, num + 1)]
    trees = {
        question.id: make_tree((step(i),), str(2 * i if right(i) else 2 * i + 1000), [], question=question)
        for i, question in enumerate(questions, start=1)
    }
    return questions, trees


def drawn(questions, trees, risks, weight=1.0, seed=0):
    return own_examples(questions, trees, risks, weight, np.random.default_rng(seed))


def test_only_right_explanations_are_taught():
    questions, trees = explained(60, right=lambda i: i % 3, step=lambda i: f"{i} + {i} = {2 * i + (i % 3 == 2)}")
    found = drawn(questions, trees, dict.fromkeys(trees, 0.5), weight=1000.0)
    # neither a wrong answer nor a false equation
    assert [example.question.id for example in found] == [f"q{i:04d}" for i in range(1, 61) if i % 3 == 1]
    assert all(
        (example.steps, example.answer) == (trees[example.question.id].steps, example.question.answer)
        for example in found
    )


def test_an_explanation_is_drawn_in_proportion_to_its_risk():
    questions, trees = explained(4000)
    risks = {question.id: (0.02, 0.2)[i % 2] for i, question in enumerate(questions)}
    found = drawn(questions, trees, risks)
    by_risk = [sum(risks[example.question.id] == risk for example in found) for risk in (0.02, 0.2)]
    for num, risk in zip(by_risk, (0.02, 0.2), strict=True):
        assert num == pytest.approx(2000 * risk, abs=4 * (2000 * risk) ** 0.5)
    assert len(drawn(questions, trees, risks, weight=2.5)) == pytest.approx(2.5 * len(found), rel=0.3)
    assert drawn(questions, trees, risks) == found != drawn(questions, trees, risks, seed=1)


def test_without_answers_there_is_nothing_to_go_by():
    questions, trees = explained(20)
    bare = [replace(question, answer=None) for question in questions]
    assert drawn(bare, trees, dict.fromkeys(trees, 0.5), weight=1000.0) == []
    half = [*bare[:10], *questions[10:]]
    assert [e.question.id for e in drawn(half, trees, dict.fromkeys(trees, 0.5), weight=1000.0)] == [
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
    assert len(drawn(questions, trees, dict.fromkeys(trees, 0.5), weight=1000.0)) <= 1
    # one who knows nearly all of them is believed
    knowing = {question.id: replace(trees[question.id], answer=question.answer) for question in questions}
    assert len(drawn(questions, knowing, dict.fromkeys(trees, 0.01), weight=1000.0)) > 150
