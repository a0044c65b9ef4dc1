"""Have the teacher work on a batch of questions, or answer them.

Both work on many questions side by side and give each result as soon as its turn comes, in the order of the questions.
Nothing is written here: the ledger keeps what was paid for, the caller keeps the results.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeelad.config import TeacherConfig
from edgeelad.errors import ConfigError, TeacherReplyError
from edgeelad.records import Annotation, Question, ReasoningTree
from edgeelad.teacher.protocol import Teacher, abilities_of
from edgeelad.teacher.revision.concurrent import Continue, work_side_by_side
from edgeelad.teacher.revision.revise import revise
from edgeelad.teacher.revision.work import AskTeacher, Need


def annotate(
    questions: Sequence[Question],
    trees: Mapping[str, ReasoningTree],
    teacher: Teacher,
    continue_from: Continue,
    config: TeacherConfig,
) -> Iterator[Annotation]:
    """Annotate questions, in their order.

    When a cap is reached, or the teacher refuses or fails for good, no further question is begun, those in progress are
    finished if possible, what is complete is yielded, and only then the error is raised.

    Args:
        questions: The batch.
        trees: The student's reasoning on each, by question id; one without is explained by the teacher from scratch.
        teacher: Whom to ask.
        continue_from: Gives the student's greedy text after the given steps, for many questions at once; called from
            the caller's thread only.
        config: The mode, the walk, limits, and how many calls may be in progress.

    Raises:
        ConfigError: The teacher cannot do what `config.walk` asks for.
        BudgetError, TeacherRefusedError, TeacherUnavailableError, StorageError: Why not all are annotated.
    """
    abilities = abilities_of(teacher)
    if config.mode == "revise" and config.walk == "per_step" and abilities.finds_errors and not abilities.judges_steps:
        raise ConfigError(
            'teacher.walk = "per_step" needs a teacher with a method judge_step, which this one has not; set it to '
            '"single"'
        )
    ladders = (revise(question, trees.get(question.id), config, abilities) for question in questions)
    return work_side_by_side(ladders, teacher, continue_from, config.max_concurrency)


@dataclass(frozen=True, slots=True)
class GivenAnswer:
    """The teacher's canonical answer to one question; None, with the reason, if it gave none that can be used."""

    question_id: str
    sample: int
    answer: str | None
    reason: str = ""


def answer_all(asked: Iterable[tuple[Question, int]], teacher: Teacher, config: TeacherConfig) -> Iterator[GivenAnswer]:
    """Have the teacher answer questions (each with a sample number), in their order.

    Raises:
        BudgetError, TeacherRefusedError, TeacherUnavailableError, StorageError: Why not all are answered; those that
            are have been yielded before.
    """
    works = (_answer(question, sample) for question, sample in asked)
    return work_side_by_side(works, teacher, _no_student, config.max_concurrency)


def _answer(question: Question, sample: int) -> Generator[Need, Any, GivenAnswer]:
    try:
        reply = yield AskTeacher(lambda teacher: teacher.answer(question, sample))
    except TeacherReplyError as error:
        return GivenAnswer(question.id, sample, None, str(error))
    return GivenAnswer(question.id, sample, reply.answer)


def _no_student(items: Sequence[tuple[Question, tuple[str, ...]]]) -> list[str]:
    raise AssertionError("answering needs no student")
