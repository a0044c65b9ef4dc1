import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeelad.accuracy import agreement, cohens_kappa, evaluate, interval
from edgeelad.errors import PoolError
from edgeelad.records import Question, ReasoningTree

unhurried = settings(deadline=None)  # a shared machine has slow moments


def make_tree(question, text):
    return ReasoningTree(question, text, (), None, "eos", (), (), ())


def make_case(question_id, text, answer="5", skill=None, kind="number", choices=()):
    question = Question(question_id, "How many?", kind, choices, answer, skill=skill)
    return question, make_tree(question, text)


CASES = [
    make_case("a", "2 + 3 = 5\nThe answer is 5", skill="add"),
    make_case("b", "so that makes #### 5", skill="add"),
    make_case("c", "The answer is 6", skill="take away"),
    make_case("d", "no idea", skill="take away"),
    make_case("e", "The answer is (b).", answer="B", kind="choice", choices=("bank", "mall")),
]


def test_strict_and_lenient_are_counted_apart():
    questions, trees = zip(*CASES, strict=True)
    outcome = evaluate(reversed(trees), questions)
    assert (outcome.num_questions, outcome.num_correct, outcome.num_correct_strict) == (5, 3, 2)
    assert outcome.num_unanswered == 1
    assert outcome.accuracy == 0.6
    assert outcome.accuracy_strict == 0.4
    assert outcome.by_skill == {"add": (2, 2), "take away": (0, 2)}


def test_the_interval_is_exact():
    # 3 of 5: the known Clopper-Pearson interval is 14.66 % to 94.73 %
    assert interval(3, 5) == pytest.approx((0.1466, 0.9473), abs=1e-4)
    assert interval(0, 10) == pytest.approx((0.0, 0.3085), abs=1e-4)
    assert interval(0, 0) == (0.0, 1.0)
    questions, trees = zip(*CASES, strict=True)
    outcome = evaluate(trees, questions)
    assert (outcome.low, outcome.high) == interval(3, 5)


def test_only_the_questions_asked_for_count():
    questions, trees = zip(*CASES, strict=True)
    assert evaluate(trees, questions[:1]).num_questions == 1
    empty = evaluate([], [])
    assert (empty.accuracy, empty.accuracy_strict, empty.low, empty.high) == (0.0, 0.0, 0.0, 1.0)


def test_a_question_without_an_answer_is_an_error():
    question, tree = make_case("x", "The answer is 5", answer=None)
    with pytest.raises(PoolError, match="question x: no answer"):
        evaluate([tree], [question])


def test_answers_that_were_not_found_agree_with_nothing():
    outcome = agreement({"a": "5", "b": "6", "c": None, "d": None}, {"d": None, "a": "5", "b": "7", "c": "1"})
    assert (outcome.num_questions, outcome.num_same, outcome.num_both_unanswered) == (4, 1, 1)
    assert outcome.share == 0.25
    assert outcome.share_of_answered == pytest.approx(1 / 3)
    assert (outcome.low, outcome.high) == interval(1, 4)
    assert agreement({}, {}).share == 0.0


def test_kappa_worked_by_hand():
    # observed 35/50; chance 0.5 · 0.6 + 0.5 · 0.4 = 0.5
    first = ["yes"] * 25 + ["no"] * 25
    second = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    assert cohens_kappa(first, second) == pytest.approx((0.7 - 0.5) / 0.5)
    assert cohens_kappa(["1", "2"], ["1", "2"]) == 1.0
    assert cohens_kappa(["1", "1"], ["1", "1"]) == 1.0
    assert cohens_kappa(["1", "2"], ["2", "1"]) == -1.0
    assert cohens_kappa([None, None], [None, None]) == 0.0


@unhurried
@given(st.lists(st.tuples(st.sampled_from(["1", "2", None]), st.sampled_from(["1", "2", None])), min_size=1))
def test_kappa_is_symmetric_and_at_most_one(pairs):
    first, second = zip(*pairs, strict=True)
    assert cohens_kappa(first, second) == pytest.approx(cohens_kappa(second, first))
    assert cohens_kappa(first, second) <= 1.0
