"""The pool's own answers and explanations as a teacher: published data can be distilled offline, for nothing.

It answers and explains what its pool holds; it can neither find errors nor go on from given steps, so the ladder goes
from the student's own chains straight to the pool's explanation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgeelad.errors import TeacherReplyError
from edgeelad.records import Question, TeacherUsage
from edgeelad.teacher.prompts.messages import Turn
from edgeelad.teacher.protocol import Abilities, AnswerReply, ChainReply, FirstErrorReply, JudgeReply, Pending

NO_COST = TeacherUsage(0, 0, 0, 0.0)


class DatasetTeacher:
    """A `Teacher` on a pool of questions by id."""

    def __init__(self, pool: Mapping[str, Question]) -> None:
        self._pool = pool

    @property
    def abilities(self) -> Abilities:
        """It answers and explains only."""
        return Abilities(finds_errors=False, completes=False)

    def answer(self, question: Question, sample: int = 0) -> AnswerReply:
        """The pool's answer."""
        answer = self._row(question).answer
        if answer is None:
            raise TeacherReplyError("the pool holds no answer to this question, and the dataset teacher knows no other")
        return AnswerReply(answer, NO_COST)

    def rationale(self, question: Question, reference: str | None, sample: int = 0) -> ChainReply:
        """The pool's explanation."""
        row = self._row(question)
        if not row.explanation:
            raise TeacherReplyError(
                "the pool holds no explanation of this question, and the dataset teacher can write none"
            )
        return ChainReply(row.explanation, row.answer, NO_COST)

    def find_first_error(
        self, question: Question, steps: Sequence[str], reference: str | None, student_answer: str | None
    ) -> FirstErrorReply:
        """It cannot: see `abilities`."""
        raise TeacherReplyError("the dataset teacher cannot find errors")

    def judge_step(
        self, question: Question, steps: Sequence[str], turns: Sequence[Turn], next_step: str, reference: str | None
    ) -> JudgeReply:
        """It cannot: see `abilities`."""
        raise TeacherReplyError("the dataset teacher cannot judge steps")

    def complete(self, question: Question, steps: Sequence[str], reference: str | None) -> ChainReply:
        """It cannot: see `abilities`."""
        raise TeacherReplyError("the dataset teacher cannot go on from given steps")

    def fetch(self, pending: Sequence[Pending]) -> None:
        """Nothing is ever pending."""

    def usage(self) -> TeacherUsage:
        """Nothing."""
        return NO_COST

    def interrupt(self) -> None:
        """Nothing is under way."""

    def _row(self, question: Question) -> Question:
        return self._pool.get(question.id, question)
