"""A teacher that knows the reference explanations, and counts what its requests and replies would cost.

Tokens are characters divided by four, the usual estimate for English, of the prompts that the product sends and of the
shortest JSON reply. It answers and explains rightly; an error it finds as its task's checker does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tasks import Checker

from edgeelad.records import Question, TeacherUsage
from edgeelad.teacher.prompts.messages import render_messages
from edgeelad.teacher.protocol import AnswerReply, ChainReply, FirstErrorReply

CHARS_PER_TOKEN = 4


class ReferenceTeacher:
    """A `Teacher` on a pool with references, by question id."""

    def __init__(self, pool: Mapping[str, Question], first_flaw: Checker) -> None:
        self._pool, self._first_flaw = pool, first_flaw

    def answer(self, question: Question, sample: int = 0) -> AnswerReply:
        """The reference answer, after the reference work."""
        row = self._pool[question.id]
        reply = {"work": " ".join(row.explanation or ()), "answer": row.answer}
        return AnswerReply(row.answer or "", _usage("answer", question, reply))

    def rationale(self, question: Question, reference: str | None, sample: int = 0) -> ChainReply:
        """The reference explanation."""
        row = self._pool[question.id]
        reply = {"steps": list(row.explanation or ()), "answer": row.answer}
        return ChainReply(row.explanation or (), row.answer, _usage("rationale", question, reply, reference=reference))

    def find_first_error(
        self, question: Question, steps: Sequence[str], reference: str | None, student_answer: str | None
    ) -> FirstErrorReply:
        """The first flawed step, with the reference's step in its place if the steps before are the reference's."""
        row = self._pool[question.id]
        chain = row.explanation or ()
        place = self._first_flaw(row, steps)
        if place is None and len(steps) < len(chain):
            place = len(steps)
        corrected = chain[place] if place is not None and place < len(chain) else None
        number = None if place is None else place + 1
        reply = {"first_error": number, "corrected_step": corrected, "answer": None}
        usage = _usage(
            "find_first_error", question, reply, reference=reference, steps=steps, student_answer=student_answer
        )
        return FirstErrorReply(place, corrected, None, usage)

    def complete(self, question: Question, steps: Sequence[str], reference: str | None) -> ChainReply:
        """The reference's steps from there on."""
        row = self._pool[question.id]
        further = (row.explanation or ())[len(steps) :]
        reply = {"steps": list(further), "answer": row.answer}
        return ChainReply(further, row.answer, _usage("complete", question, reply, reference=reference, steps=steps))


def _usage(prompt_id: str, question: Question, reply: dict[str, Any], **more: Any) -> TeacherUsage:
    prompt = sum(len(message.content) for message in render_messages(prompt_id, question, **more))
    return TeacherUsage(1, -(-prompt // CHARS_PER_TOKEN), -(-len(json.dumps(reply)) // CHARS_PER_TOKEN), 0.0)
