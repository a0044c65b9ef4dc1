import random
import threading
from dataclasses import replace

import pytest
from fixtures.fake_teacher import ONE_CALL, FakeTeacher, make_tree

from edgeelad.config import TeacherConfig
from edgeelad.errors import BudgetError, ConfigError, StorageError, TeacherRefusedError, TeacherReplyError
from edgeelad.records import Question, TeacherUsage
from edgeelad.teacher import open_teacher
from edgeelad.teacher.ledger.totals import run_totals
from edgeelad.teacher.protocol import AnswerReply, ChainReply, FirstErrorReply
from edgeelad.teacher.revision.annotate import annotate, answer_all

QUESTIONS = [Question(f"q{index}", f"What is 2 * {index}?", answer=str(2 * index)) for index in range(40)]
CONFIG = TeacherConfig(mode="revise", max_concurrency=4)


def right(question):
    return f"2 * {question.id[1:]} = {question.answer}"


def trees(questions, is_right=lambda question: False):
    made = {}
    for question in questions:
        steps, answer = ((right(question),), question.answer) if is_right(question) else (("Hm.",), "1001")
        made[question.id] = make_tree(steps, answer, question=question)
    return made


def find(question, steps, reference, student_answer):
    return FirstErrorReply(0, right(question), usage=ONE_CALL)


def go_on(items):
    return [f"The answer is {question.answer}" for question, _ in items]


def test_annotations_come_in_the_order_of_the_questions():
    teacher = FakeTeacher(find_first_error=find)
    made = list(annotate(QUESTIONS, trees(QUESTIONS), teacher, go_on, CONFIG))
    assert [annotation.question_id for annotation in made] == [question.id for question in QUESTIONS]
    assert {annotation.rung for annotation in made} == {"L3"}
    assert not teacher.is_interrupted


def test_timing_does_not_change_what_comes():
    def fickle(seed):
        rng, lock = random.Random(seed), threading.Lock()
        gate = threading.Semaphore(4)

        def reply(question, steps, reference, student_answer):
            with gate, lock:
                order = rng.random()
            for _ in range(int(order * 2000)):
                pass
            return find(question, steps, reference, student_answer)

        return FakeTeacher(find_first_error=reply)

    made = [list(annotate(QUESTIONS, trees(QUESTIONS), fickle(seed), go_on, CONFIG)) for seed in range(3)]
    alone = list(annotate(QUESTIONS, trees(QUESTIONS), fickle(9), go_on, replace_concurrency(1)))
    assert made[0] == made[1] == made[2] == alone


def replace_concurrency(number):
    return CONFIG.model_copy(update={"max_concurrency": number})


def test_calls_go_out_side_by_side_and_never_more_than_allowed():
    barrier = threading.Barrier(4, timeout=30)
    lock, running, most = threading.Lock(), [0], [0]

    def reply(question, steps, reference, student_answer):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        barrier.wait()  # passes only if four calls are under way at once
        with lock:
            running[0] -= 1
        return find(question, steps, reference, student_answer)

    made = list(annotate(QUESTIONS, trees(QUESTIONS), FakeTeacher(find_first_error=reply), go_on, CONFIG))
    assert len(made) == 40
    assert most[0] == 4


def test_the_student_goes_on_in_batches_in_the_callers_thread():
    here, batches = threading.get_ident(), []

    def watched(items):
        assert threading.get_ident() == here
        batches.append([question.id for question, _ in items])
        return go_on(items)

    list(annotate(QUESTIONS, trees(QUESTIONS), FakeTeacher(find_first_error=find), watched, CONFIG))
    assert sum(map(len, batches)) == 40
    assert all(batch == sorted(batch, key=lambda id_: int(id_[1:])) for batch in batches)


def test_each_annotation_is_given_before_all_are_done():
    teacher = FakeTeacher(find_first_error=find)
    stream = annotate(QUESTIONS, trees(QUESTIONS), teacher, go_on, replace_concurrency(1))
    next(stream)
    assert len(teacher.calls) < 40
    stream.close()
    assert teacher.is_interrupted


def test_questions_are_taken_as_they_are_needed():
    teacher = FakeTeacher(find_first_error=find)
    stream = annotate(QUESTIONS, trees(QUESTIONS), teacher, go_on, replace_concurrency(1))
    next(stream)
    assert 0 < len(teacher.calls) < 10 < len(QUESTIONS)
    stream.close()


def test_a_reply_that_cannot_be_used_concerns_its_question_only():
    def reply(question, steps, reference, student_answer):
        return TeacherReplyError("no") if question.id == "q3" else find(question, steps, reference, student_answer)

    teacher = FakeTeacher(find_first_error=reply, rationale=lambda question, *_: TeacherReplyError("no again"))
    made = list(annotate(QUESTIONS, trees(QUESTIONS), teacher, go_on, CONFIG))
    assert [annotation.question_id for annotation in made if not annotation.is_usable] == ["q3"]
    assert made[3].reason == "no again"


def test_a_cap_ends_the_batch_after_what_is_under_way():
    lock, num_left = threading.Lock(), [10]

    def reply(question, steps, reference, student_answer):
        with lock:
            num_left[0] -= 1
            if num_left[0] < 0:
                return BudgetError("teacher.max_requests = 10 would be exceeded")
        return find(question, steps, reference, student_answer)

    # every fourth question needs no call at all
    made = []
    stream = annotate(
        QUESTIONS,
        trees(QUESTIONS, lambda question: int(question.id[1:]) % 4 == 0),
        FakeTeacher(find_first_error=reply),
        go_on,
        CONFIG,
    )
    with pytest.raises(BudgetError, match="max_requests"):
        _collect(stream, made)
    assert sum(annotation.rung == "L3" for annotation in made) == 10
    assert all(annotation.is_usable for annotation in made)
    assert [annotation.question_id for annotation in made] == sorted(
        (annotation.question_id for annotation in made), key=lambda id_: int(id_[1:])
    )


def _collect(stream, made):
    for annotation in stream:
        made.append(annotation)


def test_a_refusal_stops_asking():
    teacher = FakeTeacher(find_first_error=lambda *_: TeacherRefusedError("wrong key"))
    with pytest.raises(TeacherRefusedError, match="wrong key"):
        list(annotate(QUESTIONS, trees(QUESTIONS), teacher, go_on, CONFIG))
    assert len(teacher.calls) <= 4 * CONFIG.max_concurrency


def test_a_refusal_counts_more_than_a_cap():
    errors = iter([BudgetError("cap"), StorageError("disk full")] + [BudgetError("cap")] * 100)
    teacher = FakeTeacher(find_first_error=lambda *_: next(errors))
    with pytest.raises(StorageError):
        list(annotate(QUESTIONS, trees(QUESTIONS), teacher, go_on, replace_concurrency(1)))


def test_an_error_of_ours_is_not_swallowed():
    def broken(items):
        raise ZeroDivisionError

    teacher = FakeTeacher(find_first_error=find)
    with pytest.raises(ZeroDivisionError):
        list(annotate(QUESTIONS, trees(QUESTIONS), teacher, broken, CONFIG))
    assert teacher.is_interrupted


def test_nothing_to_annotate():
    assert list(annotate([], {}, FakeTeacher(), go_on, CONFIG)) == []


def test_an_unsettled_answer_does_not_stop_the_others():
    questions = [replace(question, answer=None) for question in QUESTIONS[:6]]

    def answer(question, sample):
        value = f"{sample}9" if question.id == "q2" else QUESTIONS[int(question.id[1:])].answer
        return AnswerReply(value, ONE_CALL)

    teacher = FakeTeacher(answer=answer, rationale=lambda question, reference, sample: ChainReply(("x",), reference))
    made = list(annotate(questions, {}, teacher, go_on, CONFIG))
    assert [annotation.status for annotation in made] == ["rationale"] * 2 + ["set_aside"] + ["rationale"] * 3


def test_the_dataset_teacher(tmp_path):
    pool = {
        "a": Question("a", "2 + 2?", answer="4", explanation=("2 + 2 = 4",)),
        "b": Question("b", "2 + 3?", answer="5"),
        "c": Question("c", "2 + 4?", explanation=("2 + 4 = 6",)),
        "d": Question("d", "2 + 5?", answer="7", explanation=("2 + 5 = 8",)),
        "e": Question("e", "2 + 6?", answer="8", explanation=("2 + 6 = 8",)),
    }
    config = TeacherConfig(kind="dataset", mode="revise")
    own = {"e": make_tree(("6 + 2 = 8",), "8", question=pool["e"])}
    with open_teacher(config, tmp_path / "none", pool) as teacher:
        made = {item.question_id: item for item in annotate(list(pool.values()), own, teacher, go_on, config)}
    assert run_totals(tmp_path / "none", "r", config).usage == TeacherUsage(cost_usd=0.0)
    assert (made["a"].rung, made["a"].steps) == ("L5", ("2 + 2 = 4",))
    assert made["b"].reason == "the pool holds no explanation of this question, and the dataset teacher can write none"
    assert "the pool holds no answer" in made["c"].reason
    assert made["d"].reason.endswith("step 1 states 2 + 5 = 8, which is false")
    assert (made["e"].rung, made["e"].steps) == ("L1", ("6 + 2 = 8",))
    assert not (tmp_path / "none").exists()


class Small:
    """A teacher of one's own: two methods."""

    def answer(self, question, sample=0):
        return AnswerReply(question.answer or "7")

    def rationale(self, question, reference, sample=0):
        return ChainReply((right(question),), reference)


def test_a_teacher_of_ones_own_is_an_object_with_two_methods():
    made = list(annotate(QUESTIONS, trees(QUESTIONS), Small(), go_on, CONFIG))
    assert {annotation.rung for annotation in made} == {"L5"}
    assert [given.answer for given in answer_all([(QUESTIONS[3], 0)], Small(), CONFIG)] == ["6"]
    stream = annotate(QUESTIONS, trees(QUESTIONS), Small(), go_on, CONFIG)
    assert next(stream).answer == "0"
    stream.close()


def test_a_walk_that_the_teacher_cannot_do_is_said_at_once():
    config = CONFIG.model_copy(update={"walk": "per_step"})
    with pytest.raises(ConfigError, match="judge_step"):
        annotate(QUESTIONS, trees(QUESTIONS), FakeTeacher(["judge_step"]), go_on, config)
    made = list(annotate(QUESTIONS, trees(QUESTIONS), Small(), go_on, config))
    assert {annotation.rung for annotation in made} == {"L5"}
