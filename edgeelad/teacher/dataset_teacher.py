"""The pool's own answers and explanations as a teacher: published data can be distilled offline, at no cost.

It answers and explains what its pool holds. It neither finds errors nor continues from given steps, so the ladder goes
from the student's own chains straight to the pool's explanation.
"""

from __future__ import annotations

from collections.abc import Mapping

from edgeelad.errors import TeacherReplyError
from edgeelad.records import Question, TeacherUsage
from edgeelad.teacher.protocol import AnswerReply, ChainReply

NO_COST = TeacherUsage(0, 0, 0, 0.0)


class DatasetTeacher:
    """A `Teacher` on a pool of questions by id."""

    def __init__(self, pool: Mapping[str, Question]) -> None:
        self._pool = pool

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

    def explains(self, question: Question) -> bool:
        """Whether the pool holds an explanation of a question; without one nobody can judge the student's own."""
        return bool(self._row(question).explanation)

    def _row(self, question: Question) -> Question:
        return self._pool.get(question.id, question)
