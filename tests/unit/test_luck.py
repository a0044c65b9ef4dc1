"""Right answers in a wrong way: how likely they are, and what is asked of the teacher because of it."""

from dataclasses import replace

import pytest
from fixtures.fake_teacher import FakeTeacher, make_tree
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeelad.config import TeacherConfig
from edgeelad.records import Question
from edgeelad.teacher.dataset_teacher import DatasetTeacher
from edgeelad.teacher.plan.luck import Luck, doubtful
from edgeelad.teacher.plan.plan import Planner
from edgeelad.teacher.plan.risk import LIMIT
from edgeelad.teacher.protocol import Abilities, ChainReply, FirstErrorReply
from edgeelad.teacher.revision.annotate import annotate
from edgeelad.teacher.revision.own_chain import own_chain

STEPS = ("Boats float on water.", "So this one does.")


def explained(question, answer, steps=STEPS, branch_steps=None):
    """A student that is sure of its explanation: three branches from each step say the same."""
    text = "\n".join((*(branch_steps or steps), f"The answer is {answer}"))
    return make_tree(steps, answer, [[(text, answer, -0.1)] * 3] * len(steps), question=question)


def yes_or_no(num, num_right):
    """Questions answered yes and no in turns, by a student that gets the first of them right."""
    questions = [
        Question(f"q{i:03d}", f"Does boat {i} float?", "boolean", (), ("no", "yes")[i % 2]) for i in range(num)
    ]
    answers = [q.answer if i < num_right else ("yes", "no")[i % 2] for i, q in enumerate(questions)]
    return questions, {q.id: explained(q, answer) for q, answer in zip(questions, answers, strict=True)}


def sums(num, num_right):
    """Questions of different answers, by a student that gets the first of them right."""
    questions = [Question(f"q{i:03d}", f"What is {i} + {i} ?", "number", (), str(2 * i)) for i in range(1, num + 1)]
    trees = {}
    for i, question in enumerate(questions, start=1):
        right = 2 * i if i <= num_right else 2 * i + 1000
        trees[question.id] = explained(question, str(right), (f"{i} and {i} give {right}",))
    return questions, trees


def test_an_accident_worked_by_hand():
    questions, trees = yes_or_no(100, 60)
    luck = Luck(questions, trees)
    # of the 99 others 49 have the same answer; 20 questions more count as half
    assert luck.of_answer(questions[1], "yes") == pytest.approx((49 + 10) / (99 + 20))
    chance = luck.of_tree(trees["q001"])
    assert chance == luck.of_answer(questions[1], "yes"), "all branches say yes"
    # wrong in 0.4: not known in 0.4 / (1 − l), and then right in l of the cases
    unknown = 0.4 / (1 - chance)
    assert luck.accident(trees["q001"], 0.4) == pytest.approx(unknown * chance / (unknown * chance + 1 - unknown))
    assert luck.accident(trees["q001"], 0.0) == 0.0
    assert luck.accident(trees["q001"], 1.0) == 1.0


def test_a_student_that_guesses_yes_or_no_is_not_believed():
    questions, trees = yes_or_no(100, 60)
    doubts = doubtful(questions, trees, dict.fromkeys(trees, 0.4), Luck(questions, trees))
    assert all(own_chain(trees[q.id], q.answer) is not None for q in questions[:60])
    assert set(doubts) == {q.id for q in questions[:60]}
    assert min(doubts.values()) > 0.5


def test_a_student_that_knows_nearly_all_is_believed_where_it_is_surest():
    questions, trees = yes_or_no(100, 98)
    risks = {q.id: 0.001 if i < 50 else 0.2 for i, q in enumerate(questions)}
    doubts = doubtful(questions, trees, risks, Luck(questions, trees))
    believed = [q for q in questions[:98] if q.id not in doubts]
    assert {q.id for q in questions[:50]} <= {q.id for q in believed}
    assert doubts


def test_an_explanation_that_is_likely_wrong_is_doubted_however_sure_the_others_are():
    questions = [Question(f"q{i:03d}", f"Boat {i} has how many oars?", "number", (), str(i % 30)) for i in range(1000)]
    trees = {q.id: explained(q, q.answer if i < 900 else "77", ("We count.",)) for i, q in enumerate(questions)}
    risks = {q.id: 0.002 if i < 900 else 0.9 for i, q in enumerate(questions)} | {"q007": 0.9}
    luck = Luck(questions, trees)
    # of all that is right far less than the one in a hundred that a batch may have
    assert sum(luck.accident(trees[q.id], risks[q.id]) for q in questions[:900]) < 0.001 * 1000
    assert set(doubtful(questions, trees, risks, luck)) == {"q007"}


def test_different_answers_are_not_reached_by_luck():
    questions, trees = sums(100, 70)
    assert doubtful(questions, trees, dict.fromkeys(trees, 0.3), Luck(questions, trees)) == {}


def test_branches_that_reach_many_answers_reach_any_by_luck():
    questions = [Question(f"q{i}", f"Digit {i}?", "number", (), str(i % 10)) for i in range(100)]
    digits = [str(d) for d in range(10)]
    groups = [[(f"We guess {d}\nThe answer is {d}", d, -1.0) for d in digits for _ in range(3)]]
    trees = {q.id: make_tree(("We guess 77",), "77", groups, question=q) for q in questions}
    luck = Luck(questions, trees)
    assert luck.of_tree(trees["q3"]) > 0.8
    assert len(doubtful(questions, trees, {}, luck)) >= 99


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 60), st.data())
def test_what_is_believed_is_expected_to_hold(num, data):
    num_right = data.draw(st.integers(0, num))
    questions, trees = yes_or_no(num, num_right)
    risks = {id_: data.draw(st.floats(0, 1)) for id_ in trees}
    luck = Luck(questions, trees)
    doubts = doubtful(questions, trees, risks, luck)
    assert set(doubts) <= {q.id for q in questions[:num_right]}
    assert all(0.0 < accident <= 1.0 for accident in doubts.values())
    # the surest are believed: nobody who is doubted is surer than whoever is not
    believed = [q.id for q in questions[:num_right] if q.id not in doubts]
    told = {id_: min(max(risk, LIMIT), 1 - LIMIT) for id_, risk in risks.items()}
    for id_ in believed:
        assert all(told[id_] <= told[other] or trees[id_].answer != trees[other].answer for other in doubts)


CONFIG = TeacherConfig(usd_per_million_prompt=1.0, usd_per_million_completion=4.0, mode="auto", max_concurrency=1)


def test_a_doubtful_chain_is_shown_to_the_teacher_or_explained_by_it():
    questions, trees = yes_or_no(40, 24)
    given = {q.id: q.answer for q in questions}
    teacher = FakeTeacher(
        find_first_error=lambda question, *_: FirstErrorReply(None),
        rationale=lambda question, *_: ChainReply(("By design.",), given[question.id]),
    )
    made = list(annotate(questions, trees, teacher, no_student, CONFIG))
    assert all(annotation.is_usable for annotation in made)
    assert all(annotation.calls for annotation in made), "nothing is taken for right without the teacher"
    # a student that knows its sums is believed for nothing
    questions, trees = sums(40, 24)
    made = list(annotate(questions[:24], trees, FakeTeacher(), no_student, CONFIG))
    assert [(annotation.rung, annotation.calls) for annotation in made] == [("L1", ())] * 24


@pytest.mark.parametrize("mode", ["auto", "revise"])
def test_what_the_teacher_confirms_is_the_students_own(mode):
    questions, trees = yes_or_no(40, 24)
    steps = tuple(
        f"Boats float on water, as everybody knows who has seen one, for reason number {i}." for i in range(9)
    )
    trees = {q.id: explained(q, trees[q.id].answer, steps) for q in questions}
    teacher = FakeTeacher(find_first_error=lambda question, *_: FirstErrorReply(None))
    config = CONFIG.model_copy(update={"mode": mode})
    (made,) = list(annotate(questions[:1], trees, teacher, no_student, config, None))
    assert (made.status, made.rung, made.steps) == ("accepted", "L1", steps)
    assert [call.prompt for call in made.calls] == ["find_first_error"]


def test_an_answer_alone_settles_nothing_where_it_may_be_luck():
    bare = replace(Question("q", "Does it float?", "boolean"), answer=None)
    others = [replace(bare, id=f"q{i}") for i in range(40)]
    trees = {q.id: explained(q, ("yes", "no")[i % 2]) for i, q in enumerate(others)}
    planner, luck = Planner(CONFIG, Abilities(checks=False)), Luck(others, trees)
    assert planner.plan(others[0], trees["q0"], 0.1).way == "answer"
    assert planner.plan(others[0], trees["q0"], 0.1, luck).way == "rationale"
    assert planner.plan(others[0], trees["q0"], 0.001, luck).way == "answer"


def test_what_the_student_reaches_by_luck_after_a_correction_is_shown_again():
    questions = [Question(f"q{i}", f"Digit {i}?", "number", (), "7") for i in range(40)]
    wrong, right = ("first a 2", "then a 3"), ("first a 1", "then a 7")
    trees = {q.id: make_tree(wrong, "3", question=q) for q in questions}

    def find(question, steps, *_):
        return FirstErrorReply(0, "first a 1") if steps == wrong else FirstErrorReply(None)

    teacher = FakeTeacher(find_first_error=find)
    config = CONFIG.model_copy(update={"mode": "revise"})
    luck = Luck(questions, trees)
    assert luck.of_answer(questions[0], "7") > 0.5
    made = next(annotate(questions, trees, teacher, lambda items: ["then a 7\nThe answer is 7"] * len(items), config))
    assert (made.status, made.rung, made.steps) == ("revised", "L3", right)
    assert [call.prompt for call in made.calls] == ["find_first_error"] * 2


def test_a_pool_of_answers_alone_teaches_what_it_can():
    questions, trees = yes_or_no(100, 60)
    config = CONFIG.model_copy(update={"kind": "dataset"})
    made = list(annotate(questions, trees, DatasetTeacher({q.id: q for q in questions}), no_student, config))
    assert [annotation.is_usable for annotation in made] == [True] * 60 + [False] * 40
    # with explanations there is a better way than luck
    explained_pool = {q.id: replace(q, explanation=("By design.",)) for q in questions}
    made = list(annotate(questions, trees, DatasetTeacher(explained_pool), no_student, config))
    assert sum(annotation.rung == "L5" for annotation in made) >= 98


@pytest.mark.parametrize("mode", ["auto", "revise"])
def test_a_teacher_that_checks_and_finds_no_errors_is_not_asked_to(mode):
    questions = [Question(f"q{i}", f"Does boat {i} float?", "boolean") for i in range(30)]
    trees = {q.id: explained(q, ("yes", "no")[i % 2]) for i, q in enumerate(questions)}
    teacher = FakeTeacher(
        lacks=("find_first_error", "judge_step", "complete"),
        check=lambda *_: FirstErrorReply(0, "Stones sink.", "no"),
        rationale=lambda question, *_: ChainReply(("By design.",), "no"),
    )
    config = CONFIG.model_copy(update={"mode": mode})
    continued = lambda items: ["So it does not.\nThe answer is no"] * len(items)  # noqa: E731
    made = list(annotate(questions, trees, teacher, continued, config))
    assert {annotation.rung for annotation in made} == {"L5"}


def test_sampled_chains_of_a_bare_pool_are_doubted_as_well():
    questions = [Question(f"q{i}", f"Does boat {i} float?", "boolean") for i in range(40)]
    no = ("Stones sink.\nThe answer is no", "no", -0.1)
    trees = {q.id: make_tree(STEPS, "yes", [[no] * 3], question=q) for q in questions}
    assert set(doubtful(questions, trees, dict.fromkeys(trees, 0.5), Luck(questions, trees))) == set(trees)


def test_what_only_sampled_chains_reach_is_hardly_known():
    questions, trees = sums(100, 70)
    fallen = questions[70:]
    for question in fallen:
        right = (f"it comes to {question.answer}\nThe answer is {question.answer}", question.answer, -0.1)
        trees[question.id] = replace(trees[question.id], branches=make_tree((), None, [[right] * 3]).branches)
    luck = Luck(questions, trees)
    assert luck.accident(trees[fallen[0].id], 0.5) > 5 * luck.accident(trees[fallen[0].id], 0.01)
    doubts = doubtful(questions, trees, dict.fromkeys(trees, 0.01), luck)
    assert set(doubts) <= {question.id for question in fallen}


def test_chains_without_equations_support_each_other_by_their_numbers():
    question = Question("q", "How many?", "number", (), "7")
    same = [(f"there are 2\nso {how} 7\nThe answer is 7", "7", -0.1) for how in ("it is", "we get", "we have")]
    other = [(f"there are {n}\nso it is 7\nThe answer is 7", "7", -0.1) for n in (4, 5, 6)]
    greedy = ("there are 3", "so it is 8")
    assert own_chain(make_tree(greedy, "8", [same], question=question), "7") is not None
    assert own_chain(make_tree(greedy, "8", [other], question=question), "7") is None


def no_student(items):
    raise AssertionError("the student is not asked")
