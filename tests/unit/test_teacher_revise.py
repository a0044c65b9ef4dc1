from dataclasses import replace

import pytest
from fixtures.fake_teacher import ONE_CALL, FakeTeacher, answers, make_tree

from edgeelad.config import TeacherConfig
from edgeelad.errors import TeacherReplyError
from edgeelad.records import Correction, Question, TeacherCall, TeacherUsage
from edgeelad.teacher.prompts.messages import Turn
from edgeelad.teacher.protocol import ChainReply, FirstErrorReply, JudgeReply, UnusableReplyError, abilities_of
from edgeelad.teacher.revision.own_chain import is_grounded, own_chain, suspect_step
from edgeelad.teacher.revision.revise import revise
from edgeelad.teacher.revision.walk import MAX_SHOWN_STEPS
from edgeelad.teacher.revision.work import AskStudent

QUESTION = Question("q", "Ann has 3 + 4 pens, Ben twice as many. How many has Ben?", answer="14")
GOOD = ("3 + 4 = 7", "7 * 2 = 14")
BAD = ("3 + 4 = 8", "8 * 2 = 16")
REPLY = {"usage": ONE_CALL}


def climb(teacher, tree, *, question=None, student=(), **config):
    """Run a ladder to its end; `student` are the texts with which the student goes on."""
    question = question or (tree.question if tree is not None else QUESTION)
    ladder = revise(question, tree, TeacherConfig(**config), abilities_of(teacher))
    texts, asked = list(student), []
    reply = None
    try:
        while True:
            need = ladder.throw(reply) if isinstance(reply, Exception) else ladder.send(reply)
            if isinstance(need, AskStudent):
                asked.append(need.steps)
                reply = texts.pop(0)
                continue
            try:
                reply = need.call(teacher)
            except TeacherReplyError as error:
                reply = error
    except StopIteration as stop:
        assert not texts, "the student was not asked for all of its texts"
        return stop.value, asked


# --- L0: the reference answer


def test_the_pools_answer_costs_nothing():
    teacher = FakeTeacher()
    annotation, _ = climb(teacher, make_tree(GOOD, "14"))
    assert (annotation.status, annotation.rung, annotation.steps) == ("accepted", "L1", GOOD)
    assert annotation.usage == TeacherUsage()
    assert teacher.calls == []


@pytest.mark.parametrize(
    ("given", "reference", "num_calls"),
    [
        (("14", "14"), "14", 2),
        (("16", "14", "14"), "14", 3),
        (("14", "16", "14"), "14", 3),
        ((None, "14", "14"), "14", 3),
    ],
)
def test_the_teachers_answer_is_settled_by_two_of_three(given, reference, num_calls):
    teacher = FakeTeacher(answer=answers(*given), rationale=[ChainReply(GOOD, "14", **REPLY)])
    annotation, _ = climb(teacher, make_tree((), "21", question=replace(QUESTION, answer=None)))
    assert (annotation.rung, annotation.answer) == ("L5", reference)
    assert [call[2] for call in teacher.calls if call[0] == "answer"] == list(range(num_calls))


def test_the_students_own_chain_seconds_the_teachers_first_answer():
    bare = replace(QUESTION, answer=None)
    teacher = FakeTeacher(answer=answers("14"))
    annotation, _ = climb(teacher, make_tree(GOOD, "14", question=bare))
    assert (annotation.rung, annotation.answer, annotation.usage.requests) == ("L1", "14", 1)
    # not one of many branches
    branches = [[("3 + 4 = 7\n7 * 2 = 14\nThe answer is 14", "14", -0.9)] * 3]
    teacher = FakeTeacher(answer=answers("14", "14"))
    annotation, _ = climb(teacher, make_tree(BAD, "16", branches, question=bare))
    assert (annotation.rung, annotation.answer, annotation.usage.requests) == ("L1", "14", 2)
    # not one that states false arithmetic
    teacher = FakeTeacher(answer=answers("16", None, None))
    climb(teacher, make_tree(("3 + 4 = 8",), "16", question=bare))
    assert len(teacher.calls) == 3
    # not the second one: a teacher that wavers is asked a third time
    teacher = FakeTeacher(answer=answers("16", "14", "14"))
    climb(teacher, make_tree(GOOD, "14", question=bare))
    assert len(teacher.calls) == 3


@pytest.mark.parametrize(("kind", "right"), [("choice", "B"), ("boolean", "yes")])
def test_it_does_not_where_agreement_by_chance_is_likely(kind, right):
    question = Question("q", "Which?", kind=kind, answer=None)
    teacher = FakeTeacher(answer=answers(right, right))
    annotation, _ = climb(teacher, make_tree(("Think.",), right, question=question))
    assert (annotation.rung, annotation.usage.requests) == ("L1", 2)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (("14", "15", "16"), "the teacher disagrees with itself: 14, 15, 16"),
        ((None, "15", "16"), "the teacher disagrees with itself: 15, 16"),
        ((None, None, "16"), "cannot be settled: no answer"),
        ((None, None, None), "cannot be settled: no answer"),
    ],
)
def test_an_answer_that_cannot_be_settled_sets_aside(given, reason):
    teacher = FakeTeacher(answer=answers(*given))
    annotation, _ = climb(teacher, make_tree(GOOD, "21", question=replace(QUESTION, answer=None)))
    assert annotation.status == "set_aside"
    assert annotation.answer is None
    assert reason in annotation.reason
    assert not annotation.is_usable


# --- L0 and L2 in one call, in a pool without answers

BARE = replace(QUESTION, answer=None)


def checked(step, corrected=None, answer="14"):
    return FirstErrorReply(step, corrected, answer, **REPLY)


def test_one_call_answers_and_confirms_the_students_own_chain():
    teacher = FakeTeacher(check=[checked(None)])
    annotation, _ = climb(teacher, make_tree(GOOD, "14", question=BARE))
    assert (annotation.status, annotation.rung, annotation.steps) == ("accepted", "L1", GOOD)
    assert (annotation.answer, annotation.usage) == ("14", ONE_CALL)
    assert annotation.calls == (TeacherCall("check", ONE_CALL),)
    assert teacher.calls == [("check", "q", GOOD, "14")]


def test_one_call_answers_and_corrects():
    teacher = FakeTeacher(check=[checked(0, "3 + 4 = 7")])
    tree = make_tree(BAD, "16", question=BARE)
    annotation, asked = climb(teacher, tree, student=["7 * 2 = 14\nThe answer is 14"])
    assert (annotation.status, annotation.rung, annotation.steps) == ("revised", "L3", GOOD)
    assert (annotation.answer, annotation.usage, asked) == ("14", ONE_CALL, [("3 + 4 = 7",)])


def test_the_search_after_a_check_is_told_its_answer():
    teacher = FakeTeacher(check=[checked(0, "3 + 4 = 7")], find_first_error=[FirstErrorReply(1, GOOD[1], **REPLY)])
    texts = ["7 * 2 = 15\nThe answer is 15", "The answer is 14"]
    annotation, _ = climb(teacher, make_tree(BAD, "16", question=BARE), student=texts)
    assert (annotation.rung, annotation.steps) == ("L3", GOOD)
    assert teacher.calls[1] == ("find_first_error", "q", ("3 + 4 = 7", "7 * 2 = 15"), "14", "15")
    assert [call.prompt for call in annotation.calls] == ["check", "find_first_error"]


def test_a_check_that_leads_nowhere_is_seconded_by_an_explanation_that_is_not_told_its_answer():
    tree = make_tree(BAD, "16", question=BARE)
    teacher = FakeTeacher(check=[checked(None)], rationale=[ChainReply(GOOD, "14", **REPLY)])
    annotation, _ = climb(teacher, tree)
    assert (annotation.rung, annotation.answer, annotation.steps) == ("L5", "14", GOOD)
    assert teacher.calls[1] == ("rationale", "q", None, 0)
    # a third one decides between two answers
    chains = [ChainReply(("3 * 5 = 15",), "15", **REPLY), ChainReply(GOOD, "14", **REPLY)]
    annotation, _ = climb(FakeTeacher(check=[checked(None)], rationale=chains), tree)
    assert (annotation.rung, annotation.answer, annotation.usage.requests) == ("L5", "14", 3)
    chains[1] = ChainReply(("8 * 2 = 16",), "16", **REPLY)
    annotation, _ = climb(FakeTeacher(check=[checked(None)], rationale=chains), tree)
    assert annotation.status == "set_aside"
    assert annotation.reason == "the teacher disagrees with itself: 14, 15, 16"


def test_a_check_without_a_usable_reply_leads_to_an_explanation():
    unusable = UnusableReplyError("cut off", ONE_CALL)
    teacher = FakeTeacher(check=[unusable], rationale=[ChainReply(GOOD, "14", **REPLY)])
    annotation, _ = climb(teacher, make_tree(BAD, "16", question=BARE))
    assert (annotation.rung, annotation.answer, annotation.usage.requests) == ("L5", "14", 2)
    teacher = FakeTeacher(check=[unusable], rationale=[unusable, unusable])
    annotation, _ = climb(teacher, make_tree(BAD, "16", question=BARE))
    assert (annotation.status, annotation.reason) == ("set_aside", "cut off")


def test_a_wrong_way_that_reaches_the_answer_is_left_at_the_step_that_the_teacher_finds():
    """What follows from the wrong step cannot stay: the student continues from the corrected one."""
    wrong = ("4 * 3 = 12", "12 + 2 = 14")
    teacher = FakeTeacher(check=[checked(0, "3 + 4 = 7")])
    tree = make_tree(wrong, "14", question=BARE)
    annotation, asked = climb(teacher, tree, student=["7 * 2 = 14\nThe answer is 14"])
    assert (annotation.rung, annotation.steps, asked) == ("L3", GOOD, [("3 + 4 = 7",)])


# --- L1: the student's own chains


RIGHT, SHORT = "3 + 4 = 7\n7 * 2 = 14\nThe answer is 14", "7 * 2 = 14\nThe answer is 14"


def test_the_likeliest_verified_branch_is_used():
    likely = ("3 + 4 = 7\n2 * 7 = 14\nThe answer is 14", "14", -0.2)
    false = ("That is 7 pens.\n7 * 2 = 13\nThe answer is 14", "14", -0.01)
    tree = make_tree(BAD, "16", [[(RIGHT, "14", -0.9)] * 2 + [likely], [false]])
    chain = own_chain(tree, "14")
    # the likeliest one states false arithmetic, the next one is right
    assert chain.steps == ("3 + 4 = 7", "2 * 7 = 14")
    assert chain.corrections == (Correction(0, "3 + 4 = 8", "3 + 4 = 7", "student"),)


def test_among_equal_branches_the_one_that_keeps_most():
    steps = ("3 + 4 = 7", "7 * 2 = 15")
    tree = make_tree(steps, "15", [[(RIGHT, "14", -0.5)] * 2, [("7 + 7 = 14\nThe answer is 14", "14", -0.5)]])
    assert own_chain(tree, "14").steps == ("3 + 4 = 7", "7 + 7 = 14")


@pytest.mark.parametrize("num", [1, 2, 3])
def test_a_branch_that_reaches_the_answer_may_do_so_by_chance(num):
    """It is believed if two others calculate the same; those that calculate something else say nothing for it."""
    tree = make_tree(BAD, "16", [[(RIGHT, "14", -0.9)] * num + [(SHORT, "14", -0.1)] * 2])
    assert (own_chain(tree, "14") is not None) == (num == 3)


def test_the_greedy_explanation_is_supported_by_one_branch_that_calculates_the_same():
    wrong = ("4 * 3 = 12", "12 + 2 = 14")
    others = [[("3 + 4 = 7\n7 + 7 = 14\nThe answer is 14", "14", -0.1), ("x", "9", -0.1), ("y", "8", -0.1)]]
    assert own_chain(make_tree(wrong, "14", others), "14") is None
    assert own_chain(make_tree(GOOD, "14", others), "14").steps == GOOD
    # what it writes again after its own steps is no other chain
    again = [[("x", "9", -0.1)], [("y", "8", -0.1)], [("The answer is 14", "14", -0.1)]]
    assert own_chain(make_tree(GOOD, "14", again), "14") is None
    # and the teacher may have the last word
    teacher = FakeTeacher(find_first_error=[FirstErrorReply(None, **REPLY)])
    annotation, _ = climb(teacher, make_tree(GOOD, "14", again))
    assert (annotation.status, annotation.rung, annotation.steps) == ("accepted", "L1", GOOD)


def test_numbers_that_come_from_nowhere_do_not_count():
    """An explanation of another question that happens to have the same answer."""
    steps = ("9 + 5 = 14",)
    branches = [[("9 + 5 = 14\nThe answer is 14", "14", -0.1)] * 3]
    assert own_chain(make_tree(steps, "14", branches), "14") is None
    pens = replace(QUESTION, text="Ann has 9 pens and gets 5. How many has she?")
    assert own_chain(make_tree(steps, "14", branches, question=pens), "14").steps == steps
    for known in ("3 + 4 = 7", "7 * 2 = 14", "14 / 7 = 2", "100 * 7 = 700"):
        assert is_grounded(QUESTION, ("3 + 4 = 7", "7 * 2 = 14", known))
    assert not is_grounded(QUESTION, ("3 + 6 = 9",))
    assert is_grounded(replace(QUESTION, kind="text"), ("3 + 6 = 9",))


@pytest.mark.parametrize("rest", [".", "he.", "here.", "- -"])
def test_the_rest_of_a_sentence_is_no_step(rest):
    assert is_grounded(QUESTION, ("We add them.", "3 + 4 = 7"))
    assert not is_grounded(QUESTION, (rest, "3 + 4 = 7"))
    assert is_grounded(replace(QUESTION, kind="choice"), (rest, "3 + 4 = 7"))
    assert own_chain(make_tree((rest, "3 + 4 = 7"), "7", [], question=QUESTION), "7") is None


def test_no_own_chain_without_steps_or_answer():
    assert own_chain(make_tree((), "14"), "14") is None
    assert own_chain(make_tree(GOOD, None), "14") is None
    assert own_chain(make_tree(("3 + 4 = 8", "7 * 2 = 14"), "14"), "14") is None


def test_the_suspect_step():
    reach, miss = ("x", "14", -1.0), ("x", "16", -1.0)
    assert suspect_step(make_tree(BAD, "16", [[reach, miss], [miss], [miss]]), "14") == 0
    assert suspect_step(make_tree(BAD, "16", [[miss], [reach], [miss]]), "14") == 1
    assert suspect_step(make_tree(BAD, "16", [[miss], [miss], [miss]]), "14") is None
    assert suspect_step(make_tree(BAD, "16"), "14") is None


# --- L2 and L3, single walk


def test_a_corrected_step_from_which_the_student_goes_on():
    teacher = FakeTeacher(find_first_error=[FirstErrorReply(0, "3 + 4 = 7", **REPLY)])
    annotation, asked = climb(teacher, make_tree(BAD, "16"), student=["7 * 2 = 14\nThe answer is 14"])
    assert (annotation.status, annotation.rung, annotation.steps) == ("revised", "L3", GOOD)
    assert annotation.corrections == (Correction(0, "3 + 4 = 8", "3 + 4 = 7", "teacher"),)
    assert annotation.student_steps == BAD
    assert annotation.usage == ONE_CALL
    assert asked == [("3 + 4 = 7",)]
    assert teacher.calls == [("find_first_error", "q", BAD, "14", "16")]


def test_a_corrected_step_after_which_the_rest_stands():
    steps = ("3 + 4 = 8", "7 * 2 = 14")
    teacher = FakeTeacher(find_first_error=[FirstErrorReply(0, "3 + 4 = 7", **REPLY)])
    annotation, asked = climb(teacher, make_tree(steps, "14"))
    assert (annotation.status, annotation.rung, annotation.steps) == ("revised", "L2", GOOD)
    assert asked == []


def test_the_search_goes_on_in_what_remains():
    teacher = FakeTeacher(
        find_first_error=[FirstErrorReply(0, "3 + 4 = 7", **REPLY), FirstErrorReply(1, "7 * 2 = 14", **REPLY)]
    )
    texts = ["7 * 2 = 15\nThe answer is 15", "The answer is 14"]
    annotation, asked = climb(teacher, make_tree(BAD, "16"), student=texts)
    assert (annotation.rung, annotation.steps) == ("L3", GOOD)
    assert [correction.step for correction in annotation.corrections] == [0, 1]
    assert asked == [("3 + 4 = 7",), GOOD]
    assert annotation.usage.requests == 2


def test_a_missing_step_is_appended():
    teacher = FakeTeacher(find_first_error=[FirstErrorReply(1, "7 * 2 = 14", **REPLY)])
    annotation, _ = climb(teacher, make_tree(GOOD[:1], "7"), student=["The answer is 14"])
    assert (annotation.rung, annotation.steps) == ("L3", GOOD)
    assert annotation.corrections == (Correction(1, "", "7 * 2 = 14", "teacher"),)


def test_a_wrong_answer_line_after_right_steps():
    teacher = FakeTeacher(find_first_error=[FirstErrorReply(None, **REPLY)])
    annotation, _ = climb(teacher, make_tree(GOOD, "15"))
    assert (annotation.status, annotation.rung, annotation.steps) == ("revised", "L2", GOOD)
    assert annotation.answer == "14"


@pytest.mark.parametrize("corrected", [None, "3 + 4 = 8", "3 + 4 = 9"])
def test_a_correction_that_is_none_leads_to_completion_from_the_steps_before(corrected):
    steps = ("Ann first.", "3 + 4 = 8", "8 * 2 = 16")
    teacher = FakeTeacher(
        find_first_error=[FirstErrorReply(1, corrected, **REPLY)], complete=[ChainReply(GOOD, "14", **REPLY)]
    )
    annotation, _ = climb(teacher, make_tree(steps, "16"))
    assert (annotation.status, annotation.rung) == ("completed", "L4")
    assert annotation.steps == ("Ann first.", *GOOD)
    assert annotation.corrections == (Correction(1, "3 + 4 = 8", "3 + 4 = 7", "teacher"),)
    assert teacher.calls[1] == ("complete", "q", ("Ann first.",), "14")


def test_a_student_that_does_not_stop_at_the_answer():
    """The corrected steps come out at the answer and the student goes on: the teacher says whether they end there."""
    teacher = FakeTeacher(
        find_first_error=[FirstErrorReply(1, "7 * 2 = 14", **REPLY), FirstErrorReply(2, ending="14", **REPLY)]
    )
    tree = make_tree(("3 + 4 = 7", "7 * 2 = 15"), "15")
    annotation, _ = climb(teacher, tree, student=["14 + 3 = 17\nThe answer is 17"])
    assert (annotation.rung, annotation.steps, annotation.usage.requests) == ("L2", GOOD, 2)
    # the teacher says that the error is what comes after the answer was reached, and has no step to put there
    for walk, replies in (
        ("single", {"find_first_error": [FirstErrorReply(2, None, **REPLY)]}),
        ("per_step", {"judge_step": [*[JudgeReply(True, None, "yes", ONE_CALL)] * 2, JudgeReply(False, None, "no")]}),
    ):
        annotation, _ = climb(FakeTeacher(**replies), make_tree((*GOOD, "14 + 3 = 17"), "17"), walk=walk)
        assert (annotation.status, annotation.rung, annotation.steps) == ("revised", "L2", GOOD)


def test_a_step_on_the_way_that_has_the_answers_value_by_chance_is_not_the_end():
    """Half of 4 dollars off leaves as much as it takes off; cut there, the explanation would lack its last step."""
    question = Question("q", "A hat costs 4 dollars and is 50 % off. How many dollars is it?", answer="2")
    off, left = "The part off is 4 / 2 = 2 dollars.", "The price is 4 - 2 = 2 dollars."
    tree = make_tree(("The part off is 4 * 50 = 200 dollars.", "200 - 4 = 196"), "196", question=question)
    teacher = FakeTeacher(find_first_error=[FirstErrorReply(0, off, **REPLY), FirstErrorReply(1, left, **REPLY)])
    texts = ["2 + 4 = 6\nThe answer is 6", "The answer is 2"]
    annotation, asked = climb(teacher, tree, student=texts)
    assert (annotation.rung, annotation.steps) == ("L3", (off, left))
    assert asked == [(off,), (off, left)]
    # nor is it when the search ends there
    teacher = FakeTeacher(
        find_first_error=[FirstErrorReply(0, off, **REPLY)], complete=[ChainReply((left,), "2", **REPLY)]
    )
    annotation, _ = climb(teacher, tree, student=texts[:1], max_depth=1)
    assert (annotation.rung, annotation.steps) == ("L4", (off, left))


WHO = Question("q", "Who?", kind="text", answer="ann lee")
WHICH = Question("q", "Who?", kind="choice", choices=("Ann", "Ben"), answer="A")
ENDINGS = [
    # the question, the student's steps, how many of them stay, the teacher's ending, whether the explanation ends there
    (QUESTION, ("3 + 4 = 7, doubled.", "Ben has 14 pens.", "14 + 3 = 17"), 2, "14", True),
    (QUESTION, ("3 + 4 = 7, doubled.", "Ben has 14 pens."), 2, "14", True),
    (QUESTION, ("3 + 4 = 7", "7 * 2 = 15"), 1, "14", False),  # the last calculation would be missing
    (QUESTION, ("3 + 4 = 8, doubled.", "Ben has 14 pens.", "14 + 3 = 17"), 2, "14", False),  # false on the way
    (QUESTION, ("3 + 4 = 7, doubled.", "Ben has 14 pens.", "14 + 3 = 17"), 2, "17", False),
    (QUESTION, ("14 + 3 = 17",), 0, "14", False),
    (WHO, ("Ben is short.", "So Ann Lee.", "Or Ben."), 2, "ann lee", True),
    (WHO, ("Joann Lee is tall.", "So Ben."), 1, "ann lee", False),
    (WHICH, ("Ben is short, and so it is Ann.", "B"), 1, "A", True),
    (WHICH, ("A man is short.", "B"), 1, "A", False),
    (replace(WHICH, choices=(), answer="B"), ("It is tall: (B).", "So (A)."), 1, "B", True),
    (Question("q", "Is it?", kind="boolean", answer="yes"), ("Yes, it is red.", "So no."), 1, "yes", False),
]


@pytest.mark.parametrize("walk", ["single", "per_step"])
@pytest.mark.parametrize(("question", "steps", "num_kept", "ending", "ends"), ENDINGS)
def test_an_answer_line_in_the_place_of_a_step(question, steps, num_kept, ending, ends, walk):
    """What comes after the answer was reached is dropped, and no further call is paid for; a gap is not closed so."""
    right = [JudgeReply(True, None, "yes", ONE_CALL)] * num_kept
    teacher = FakeTeacher(
        find_first_error=[FirstErrorReply(num_kept, ending=ending, **REPLY)],
        judge_step=[*right, JudgeReply(False, None, "no", ONE_CALL, ending)],
        complete=[ChainReply(("So it is.",), None, **REPLY)],
        rationale=[ChainReply(("Thus.",), question.answer, **REPLY)],
    )
    if walk == "per_step" and num_kept == len(steps):
        return  # there is no step to judge there
    annotation, _ = climb(teacher, make_tree(steps, "17", question=question), walk=walk)
    if ends:
        assert (annotation.status, annotation.rung, annotation.steps) == ("revised", "L2", steps[:num_kept])
        assert set(teacher.methods) <= {"find_first_error", "judge_step"}
    else:
        assert annotation.rung == "L5"


def test_a_teacher_that_disputes_the_reference_does_not_end_an_explanation():
    teacher = FakeTeacher(
        find_first_error=[FirstErrorReply(1, None, "15", ending="14", **REPLY)],
        rationale=[ChainReply(GOOD, "14", **REPLY)],
        complete=[ChainReply(("Hm.",), "15", **REPLY)],
    )
    annotation, _ = climb(teacher, make_tree(("Ben has 14 pens.", "14 + 3 = 17"), "17"))
    assert annotation.rung == "L5"


def test_a_completion_may_have_nothing_to_add():
    question = Question("q", "Who?", kind="text", answer="ann")
    teacher = FakeTeacher(
        find_first_error=[FirstErrorReply(1, None, **REPLY)], complete=[ChainReply((), "ann", **REPLY)]
    )
    annotation, _ = climb(teacher, make_tree(("Ben is short.", "So Ben."), "ben", question=question))
    assert (annotation.rung, annotation.steps) == ("L4", ("Ben is short.",))


def test_the_depth_limit_ends_in_completion():
    teacher = FakeTeacher(
        find_first_error=[FirstErrorReply(0, "3 + 4 = 7", **REPLY), FirstErrorReply(1, "Double it.", **REPLY)],
        complete=[ChainReply(("7 * 2 = 14",), "14", **REPLY)],
    )
    texts = ["7 * 2 = 15\nThe answer is 15", "7 * 2 = 16\nThe answer is 16"]
    annotation, _ = climb(teacher, make_tree(BAD, "16"), student=texts, max_depth=2)
    assert (annotation.rung, annotation.steps) == ("L4", ("3 + 4 = 7", "Double it.", "7 * 2 = 14"))
    assert teacher.methods == ["find_first_error", "find_first_error", "complete"]


def test_a_student_that_goes_in_circles_is_not_followed():
    steps = ("Look.", "8 * 2 = 16")
    teacher = FakeTeacher(
        find_first_error=[FirstErrorReply(1, "Think.", **REPLY), FirstErrorReply(1, "8 * 2 = 16", **REPLY)],
        complete=[ChainReply(GOOD, "14", **REPLY)],
    )
    texts = ["8 * 2 = 16\nThe answer is 16", "The answer is 16"]
    annotation, _ = climb(teacher, make_tree(steps, "16"), student=texts, max_depth=9)
    assert annotation.rung == "L4"
    assert teacher.methods == ["find_first_error", "find_first_error", "complete"]


def test_no_error_found_in_an_unfinished_explanation_is_completed_from_all_of_it():
    teacher = FakeTeacher(
        find_first_error=[FirstErrorReply(None, **REPLY)], complete=[ChainReply(GOOD[1:], "14", **REPLY)]
    )
    annotation, _ = climb(teacher, make_tree(GOOD[:1], None))
    assert (annotation.rung, annotation.steps) == ("L4", GOOD)


def test_an_error_that_the_teacher_misses_is_placed_by_the_students_branches():
    steps = ("Ann first.", "She has 8.", "Ben has 16.")
    reach, miss = ("3 + 4 = 6\nThe answer is 14", "14", -1.0), ("x", "16", -1.0)
    tree = make_tree(steps, "16", [[reach], [reach], [miss], [miss]])
    teacher = FakeTeacher(find_first_error=[FirstErrorReply(None, **REPLY)], complete=[ChainReply(GOOD, "14", **REPLY)])
    annotation, _ = climb(teacher, tree)
    assert annotation.steps == ("Ann first.", *GOOD)


def test_a_false_equation_that_the_teacher_misses_is_seen_all_the_same():
    steps = ("Ann first.", "3 + 4 = 8", "8 * 2 = 16")
    teacher = FakeTeacher(find_first_error=[FirstErrorReply(None, **REPLY)], complete=[ChainReply(GOOD, "14", **REPLY)])
    annotation, _ = climb(teacher, make_tree(steps, "16"))
    assert (annotation.rung, annotation.steps) == ("L4", ("Ann first.", *GOOD))
    judged = [JudgeReply(True, None, "yes", ONE_CALL)] * 2 + [JudgeReply(False, None, "no", ONE_CALL)]
    teacher = FakeTeacher(judge_step=judged, complete=[ChainReply(GOOD, "14", **REPLY)])
    annotation, _ = climb(teacher, make_tree(steps, "16"), walk="per_step")
    assert (annotation.rung, annotation.steps) == ("L4", ("Ann first.", *GOOD))


def test_a_missed_error_without_a_hint_is_explained_from_scratch():
    teacher = FakeTeacher(
        find_first_error=[FirstErrorReply(None, **REPLY)], rationale=[ChainReply(GOOD, "14", **REPLY)]
    )
    annotation, _ = climb(teacher, make_tree(("She has 8.",), "16"))
    assert (annotation.status, annotation.rung) == ("rationale", "L5")
    assert teacher.methods == ["find_first_error", "rationale"]


def test_endless_explanations_are_shown_in_part():
    steps = tuple(f"Line {index}." for index in range(100))
    teacher = FakeTeacher(
        find_first_error=[FirstErrorReply(None, **REPLY)], rationale=[ChainReply(GOOD, "14", **REPLY)]
    )
    climb(teacher, make_tree(steps, "16"))
    assert teacher.calls[0][2] == steps[:MAX_SHOWN_STEPS]


def test_a_student_without_steps_is_explained_to():
    teacher = FakeTeacher(rationale=[ChainReply(GOOD, "14", **REPLY)])
    annotation, _ = climb(teacher, make_tree((), None))
    assert annotation.rung == "L5"


def test_text_questions_are_verified_by_their_answer_alone():
    question = Question("q", "Who?", kind="text", answer="ann")
    teacher = FakeTeacher(find_first_error=[FirstErrorReply(0, "It was Ann.", **REPLY)])
    tree = make_tree(("It was Ben.",), "ben", question=question)
    annotation, _ = climb(teacher, tree, student=["The answer is Ann"])
    assert (annotation.rung, annotation.answer) == ("L3", "ann")


# --- the per-step walk


def test_one_step_a_call_in_one_growing_conversation():
    steps = ("3 + 4 = 7", "7 * 2 = 15")
    teacher = FakeTeacher(
        judge_step=[JudgeReply(True, None, "yes", ONE_CALL), JudgeReply(False, GOOD[1], "no", ONE_CALL)]
    )
    annotation, asked = climb(teacher, make_tree(steps, "15"), walk="per_step", student=["The answer is 14"])
    assert (annotation.rung, annotation.steps) == ("L3", GOOD)
    assert asked == [GOOD]
    assert teacher.calls == [
        ("judge_step", "q", (), (), "3 + 4 = 7", "14"),
        ("judge_step", "q", (), (Turn("3 + 4 = 7", "yes"),), "7 * 2 = 15", "14"),
    ]


def test_the_walk_goes_on_in_what_the_student_wrote_after_a_correction():
    teacher = FakeTeacher(
        judge_step=[JudgeReply(False, "3 + 4 = 7", "a", ONE_CALL), JudgeReply(False, "7 * 2 = 14", "b", ONE_CALL)]
    )
    texts = ["7 * 2 = 15\nThe answer is 15", "The answer is 14"]
    annotation, _ = climb(teacher, make_tree(BAD, "16"), walk="per_step", student=texts)
    assert (annotation.rung, annotation.steps) == ("L3", GOOD)
    assert teacher.calls[1][3:5] == ((Turn("3 + 4 = 8", "a"),), "7 * 2 = 15")


def test_the_walk_begins_at_the_suspect_step():
    steps = ("Ann first.", "She has 8.", "Ben has 16.")
    reach, miss = ("3 + 4 = 6\nThe answer is 14", "14", -1.0), ("x", "16", -1.0)
    tree = make_tree(steps, "16", [[reach], [reach], [miss], [miss]])
    teacher = FakeTeacher(judge_step=[JudgeReply(False, "3 + 4 = 7", "a", ONE_CALL)])
    climb(teacher, tree, walk="per_step", student=["7 * 2 = 14\nThe answer is 14"])
    assert teacher.calls == [("judge_step", "q", ("Ann first.",), (), "She has 8.", "14")]


def test_the_walks_depth_limit():
    teacher = FakeTeacher(
        judge_step=[JudgeReply(False, "3 + 4 = 7", "a", ONE_CALL)], complete=[ChainReply(GOOD[1:], "14", **REPLY)]
    )
    texts = ["7 * 2 = 15\nThe answer is 15"]
    annotation, _ = climb(teacher, make_tree(BAD, "16"), walk="per_step", student=texts, max_depth=1)
    assert (annotation.rung, annotation.steps) == ("L4", GOOD)


# --- L4, L5, limits, failures


def test_a_completion_may_repeat_what_was_given():
    teacher = FakeTeacher(
        find_first_error=[FirstErrorReply(1, None, **REPLY)], complete=[ChainReply(GOOD, "14", **REPLY)]
    )
    annotation, _ = climb(teacher, make_tree(("3 + 4 = 7", "Hm."), "16"))
    assert annotation.steps == GOOD


def test_whatever_does_not_verify_is_set_aside_with_the_reason():
    teacher = FakeTeacher(
        find_first_error=[FirstErrorReply(1, None, "16", **REPLY)],
        complete=[ChainReply(("8 * 2 = 16",), "16", **REPLY)],
        rationale=[ChainReply(("3 + 4 = 8",), "14", **REPLY), ChainReply(("8 * 2 = 16",), "16", **REPLY)],
    )
    annotation, _ = climb(teacher, make_tree(("Hm.", "8 * 2 = 16"), "16"))
    assert annotation.status == "set_aside"
    assert annotation.steps == ()
    assert annotation.answer == "14"
    assert annotation.reason.startswith("the teacher's explanation cannot be used: it reaches 16, not 14")
    assert annotation.reason.endswith("; the teacher says that the answer is 16, not 14")
    assert annotation.usage.requests == 4


def test_calls_are_limited_and_the_last_two_are_for_completion_and_rationale():
    texts = ["7 * 2 = 15\nThe answer is 15", "7 * 2 = 16\nThe answer is 16"]
    teacher = FakeTeacher(
        find_first_error=[FirstErrorReply(0, f"Try {index}.", **REPLY) for index in range(2)],
        complete=[ChainReply(("7 * 2 = 15",), "15", **REPLY)],
        rationale=[ChainReply(GOOD, "14", **REPLY)],
    )
    annotation, _ = climb(teacher, make_tree(BAD, "16"), student=texts, max_calls=4, max_depth=9)
    assert annotation.rung == "L5"
    assert teacher.methods == ["find_first_error", "find_first_error", "complete", "rationale"]


def test_tokens_are_limited():
    teacher = FakeTeacher(answer=answers("14", "14"))
    question = replace(QUESTION, answer=None)
    annotation, _ = climb(teacher, make_tree(BAD, "16", question=question), max_tokens_per_question=30)
    assert annotation.status == "set_aside"
    assert annotation.reason == "no teacher call is left: teacher.max_tokens_per_question = 30"
    assert annotation.usage.requests == 2


def test_no_call_is_left():
    teacher = FakeTeacher(answer=answers("14"))
    annotation, _ = climb(teacher, make_tree(BAD, "16", question=replace(QUESTION, answer=None)), max_calls=1)
    assert annotation.reason.endswith("no call is left for a second one")
    teacher = FakeTeacher(answer=answers("14", "14"))
    annotation, _ = climb(teacher, make_tree(BAD, "16", question=replace(QUESTION, answer=None)), max_calls=2)
    assert annotation.reason == "no teacher call is left: teacher.max_calls = 2"


def test_unusable_replies_lead_to_the_next_rung_and_are_paid_for():
    unusable = UnusableReplyError("cut off", TeacherUsage(2, 20, 10, 0.002))
    teacher = FakeTeacher(find_first_error=[unusable], rationale=[ChainReply(GOOD, "14", **REPLY)])
    annotation, _ = climb(teacher, make_tree(BAD, "16"))
    assert annotation.rung == "L5"
    assert annotation.usage == TeacherUsage(3, 30, 15, 0.003)
    teacher = FakeTeacher(find_first_error=[unusable], rationale=[unusable, unusable])
    annotation, _ = climb(teacher, make_tree(BAD, "16"))
    assert (annotation.status, annotation.reason) == ("set_aside", "cut off")


def test_a_teacher_that_cannot_find_errors_goes_straight_to_explanations():
    teacher = FakeTeacher(("find_first_error", "judge_step", "complete"), rationale=[ChainReply(GOOD, "14", **REPLY)])
    assert climb(teacher, make_tree(BAD, "16"))[0].rung == "L5"
    assert climb(teacher, make_tree(GOOD, "14"))[0].rung == "L1"


def test_rationale_mode_is_one_call_a_question():
    teacher = FakeTeacher(rationale=[ChainReply(GOOD, "14", **REPLY)] * 2)
    annotation, _ = climb(teacher, make_tree(GOOD, "14"), mode="rationale")
    assert (annotation.status, annotation.rung, annotation.student_steps) == ("rationale", "L5", ())
    annotation, _ = climb(teacher, None, question=replace(QUESTION, answer=None), mode="rationale")
    assert annotation.answer == "14"
    assert teacher.calls == [("rationale", "q", "14", 0), ("rationale", "q", None, 0)]


def test_rationale_mode_verifies_what_it_can():
    teacher = FakeTeacher(
        rationale=[ChainReply(("3 + 4 = 8",), "8", **REPLY), ChainReply(("3 + 4 = 7",), None, **REPLY)]
    )
    annotation, _ = climb(teacher, None, question=replace(QUESTION, answer=None), mode="rationale")
    assert annotation.status == "set_aside"
    assert annotation.reason == "the teacher's explanation cannot be used: it states no answer"


def test_without_a_tree_the_teacher_explains():
    teacher = FakeTeacher(rationale=[ChainReply(GOOD, "14", **REPLY)])
    assert climb(teacher, None)[0].rung == "L5"
