"""The student's own right explanations of questions that were not asked: which are drawn to be taught."""

from dataclasses import replace

import numpy as np
import pytest
from fixtures.fake_teacher import make_tree

from edgeelad.records import Example, Question
from edgeelad.teacher.plan.own_examples import (
    FIRST_TRIED,
    MAX_SAMPLED,
    NUM_TRIED,
    in_other_words,
    own_examples,
    room_for_own,
    sampling_params,
)


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


def test_what_is_likely_right_by_luck_takes_no_place():
    # few answers, so that a wrong way reaches one in thirty
    questions, trees = explained(600, step=lambda i: f"We count {2 * i}")
    questions = [replace(q, answer=str(i % 30)) for i, q in enumerate(questions)]
    trees = {q.id: make_tree((f"We count {q.answer}",), q.answer, [], question=q) for q in questions}
    wrong = {q.id for q in questions[:100]}
    trees |= {id_: replace(trees[id_], answer="77") for id_ in wrong}
    by_luck = {q.id for q in questions[100:120]}
    risks = {q.id: 0.9 if q.id in wrong | by_luck else 0.01 for q in questions}
    found = {example.question.id for example in drawn(questions, trees, risks, num=100)}
    # though they are at risk, and would be drawn first
    assert len(found) == 100
    assert not found & (by_luck | wrong)


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


def sampled_tree(question, steps, *sampled):
    """An explanation and explanations that were sampled, each with its answer."""
    branches = [(f"{text}\nThe answer is {answer}", answer, -0.5) for text, answer in sampled]
    return make_tree(steps, question.answer, [branches], question=question)


def in_words(question, steps, *sampled):
    """The further wordings of an example of which the student sampled explanations."""
    example = Example(question, steps, question.answer)
    (found,) = in_other_words([example], lambda questions: (sampled_tree(q, steps, *sampled) for q in questions))
    assert replace(found, others=()) == example
    return found.others


def test_it_is_taught_in_the_wordings_that_calculate_the_same():
    question = Question("q", "Ann has 3 + 4 pens, Ben twice as many. How many has Ben?", answer="14")
    steps = ("3 + 4 = 7", "7 * 2 = 14")
    sampled = [
        ("So 3 + 4 = 7\nand 7 * 2 = 14", "14"),
        ("So 3 + 4 = 7\nand 7 * 2 = 14", "14"),  # the same
        ("3 + 4 = 7\n7 * 2 = 14", "14"),  # as it is already
        ("4 + 3 = 7\n2 * 7 = 14", "14"),
        ("3 + 4 = 7\n7 + 7 = 14\n14 / 1 = 14", "14"),  # another way
        ("3 + 4 = 8\n7 * 2 = 14", "14"),  # a false equation
        ("So 3 + 4 = 7\nand 7 * 2 = 14", "15"),  # another answer
        ("3 + 4 = 7\nAnd 14 / 7 = 2\n7 * 2 = 14", "14"),
    ]
    assert in_words(question, steps, *sampled) == (("So 3 + 4 = 7", "and 7 * 2 = 14"), ("4 + 3 = 7", "2 * 7 = 14"))
    assert in_words(question, steps) == ()


def test_steps_in_the_same_order_are_asked_for_where_the_digits_are_few():
    question = Question("q", "a = 3, b = a + 4, c = a + b, mod 10. What is c?", answer="0")
    steps = ("a : 3", "b : 3 + 4 : 7", "c : 3 + 7 : 0")
    sampled = [("a : 3\nb : 3 + 4 : 7\nc : 7 + 3 : 0", "0"), ("b : 3 + 4 : 7\na : 3\nc : 0", "0")]
    assert in_words(question, steps, *sampled) == (("a : 3", "b : 3 + 4 : 7", "c : 7 + 3 : 0"),)


def test_what_calculates_nothing_has_no_other_wordings():
    question = Question("q", "Does a boat float?", "boolean", (), "yes")
    assert in_words(question, ("Boats float.",), ("Wood floats.", "yes")) == ()


def test_the_wordings_are_sampled_as_the_student_is_likely_to_put_them():
    params = sampling_params(64, 3, num_passes=3.0)
    assert (params.num_root_branches, params.num_branches, params.probe) == (5, 0, False)
    assert (params.temperature, params.top_k, params.top_p, params.max_branch_tokens) == (1.0, 0, 1.0, 64)
    assert params.seed == 3
    # no more than an example is seen, and as few as one
    assert [sampling_params(64, 3, num).num_root_branches for num in (0.1, 8.0, 50.0)] == [1, 12, MAX_SAMPLED]


@pytest.mark.parametrize(
    ("num_others", "num_tried"), [(NUM_TRIED // 4, 150), (NUM_TRIED // 4 - 1, NUM_TRIED), (0, FIRST_TRIED)]
)
def test_a_student_that_says_it_in_one_way_is_not_taught_its_slips(num_others, num_tried):
    questions, trees = explained(150)
    examples = [Example(q, trees[q.id].steps, q.answer) for q in questions]
    asked = []

    def explain_again(some):
        for question in some:
            asked.append(question)
            (step,) = trees[question.id].steps
            place = questions.index(question)
            others = [("So " + step, question.answer)] if place < num_others or place >= NUM_TRIED else []
            yield sampled_tree(question, (step,), *others)

    found = list(in_other_words(examples, explain_again))
    assert [replace(example, others=()) for example in found] == examples
    assert asked == questions[:num_tried]
    num_reworded = sum(bool(example.others) for example in found)
    assert num_reworded == (num_others + 150 - NUM_TRIED if num_tried == 150 else 0)
    # what is known is not given again, and little of it is sampled again: what is tried, and at most as many
    for num_done in (0, 1, NUM_TRIED - 1, NUM_TRIED, NUM_TRIED + 1, 2 * NUM_TRIED + 3, 150):
        asked.clear()
        assert list(in_other_words(examples, explain_again, num_done)) == found[num_done:]
        assert len(asked) <= (NUM_TRIED + 150 - num_done + NUM_TRIED if num_tried == 150 else NUM_TRIED)


def test_a_question_that_cannot_be_explained_again_keeps_its_wording():
    questions, trees = explained(12)
    examples = [Example(q, trees[q.id].steps, q.answer) for q in questions]
    lost = {questions[i].id for i in (0, 5, 6, 11)}

    def explain_again(some):
        for question in some:
            if question.id not in lost:
                (step,) = trees[question.id].steps
                yield sampled_tree(question, (step,), ("So " + step, question.answer))

    found = list(in_other_words(examples, explain_again))
    assert [replace(example, others=()) for example in found] == examples
    assert {example.question.id for example in found if not example.others} == lost
