"""Have the teacher work on a batch of questions, or answer them.

Both work on many questions side by side and give each result as soon as its turn comes, in the order of the questions.
Nothing is written here: the ledger keeps what was paid for, the caller keeps the results.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgeelad.config import TeacherConfig
from edgeelad.errors import ConfigError, TeacherReplyError
from edgeelad.records import Annotation, Question, ReasoningTree, TeacherUsage
from edgeelad.teacher.plan.luck import Luck, doubtful
from edgeelad.teacher.plan.plan import FIRST_BLOCK, Planned, Planner
from edgeelad.teacher.protocol import Teacher, UnusableReplyError, abilities_of
from edgeelad.teacher.revision.concurrent import Continue, work_side_by_side
from edgeelad.teacher.revision.revise import revise
from edgeelad.teacher.revision.work import AskTeacher, Need


def annotate(
    questions: Sequence[Question],
    trees: Mapping[str, ReasoningTree],
    teacher: Teacher,
    continue_from: Continue,
    config: TeacherConfig,
    planned: Planned | None = None,
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
        planned: With the mode "auto", who plans, what is known of the student's risk, and who records the plans.

    Raises:
        ConfigError: The teacher cannot do what `config.walk` asks for.
        BudgetError, TeacherRefusedError, TeacherUnavailableError, StorageError: Why not all are annotated.
    """
    abilities = abilities_of(teacher)
    if (
        config.mode != "rationale"
        and config.walk == "per_step"
        and abilities.finds_errors
        and not abilities.judges_steps
    ):
        raise ConfigError(
            'teacher.walk = "per_step" needs a teacher with a method judge_step, which this one has not; set it to '
            '"single"'
        )
    if config.mode == "auto":
        planned = planned or Planned(Planner(config, abilities))
        return _annotate_as_planned(questions, trees, teacher, continue_from, config, planned)
    luck = Luck(questions, trees)
    doubts = _doubts(questions, trees, {}, luck, teacher) if config.mode == "revise" else {}
    ladders = (
        revise(question, trees.get(question.id), config, abilities, luck=luck, is_doubtful=question.id in doubts)
        for question in questions
    )
    return work_side_by_side(ladders, teacher, continue_from, config.max_concurrency)


def _doubts(
    questions: Sequence[Question],
    trees: Mapping[str, ReasoningTree],
    risks: Mapping[str, float],
    luck: Luck,
    teacher: Teacher,
) -> dict[str, float]:
    """Own chains that the teacher has to look at; one who can neither correct nor explain a question cannot tell."""
    explains = getattr(teacher, "explains", None)
    doubts = doubtful(questions, trees, risks, luck)
    return {q.id: doubts[q.id] for q in questions if q.id in doubts and (explains is None or explains(q))}


def _annotate_as_planned(
    questions: Sequence[Question],
    trees: Mapping[str, ReasoningTree],
    teacher: Teacher,
    continue_from: Continue,
    config: TeacherConfig,
    planned: Planned,
) -> Iterator[Annotation]:
    """Plan a few questions, teach them, learn from it, plan more; each time as many as are known already.

    A teacher that buys in batches gets all questions at once, in a replay too: each batch can take hours.
    """
    abilities, planner = abilities_of(teacher), planned.planner
    luck = Luck(questions, trees)
    doubts = _doubts(questions, trees, planned.risks, luck, teacher)
    num_done = 0
    while num_done < len(questions):
        size = len(questions) if config.kind == "openai" and config.batch else max(FIRST_BLOCK, planner.num_known)
        block = questions[num_done : num_done + size]
        plans = [
            planned.recorded.get(question.id)
            or planner.plan(question, trees.get(question.id), planned.risks.get(question.id), luck, doubts)
            for question in block
        ]
        planned.record(plans)
        ladders = (
            revise(question, trees.get(question.id), config, abilities, plan, luck=luck)
            for question, plan in zip(block, plans, strict=True)
        )
        annotations = work_side_by_side(ladders, teacher, continue_from, config.max_concurrency)
        for question, annotation in zip(block, annotations, strict=True):
            yield annotation
            planner.note(question, trees.get(question.id), annotation, planned.risks.get(question.id))
        num_done += len(block)


@dataclass(frozen=True, slots=True)
class GivenAnswer:
    """The teacher's canonical answer to one question; None, with the reason, if it gave none that can be used."""

    question_id: str
    sample: int
    answer: str | None
    reason: str = ""
    usage: TeacherUsage = field(default_factory=TeacherUsage)


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
    except UnusableReplyError as error:
        return GivenAnswer(question.id, sample, None, str(error), error.usage)
    except TeacherReplyError as error:
        return GivenAnswer(question.id, sample, None, str(error))
    return GivenAnswer(question.id, sample, reply.answer, "", reply.usage)


def _no_student(items: Sequence[tuple[Question, tuple[str, ...]]]) -> list[str]:
    raise AssertionError("answering needs no student")
