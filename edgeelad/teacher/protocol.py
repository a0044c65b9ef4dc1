"""What a teacher can be asked, and the records that it replies with.

`OpenAITeacher` and `DatasetTeacher` are the two that come with edgeelad. Every reply carries what it cost when it was
bought, so that an annotation's cost is the sum over its replies, wherever they came from. A reply that cannot be used
is an `UnusableReplyError`, which carries its cost as well. Step numbers are 0-based here; the prompts count from 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from edgeelad.errors import TeacherReplyError
from edgeelad.records import Question, TeacherUsage
from edgeelad.teacher.prompts.messages import Turn


class UnusableReplyError(TeacherReplyError):
    """A reply that was paid for and cannot be used; `usage` is what it cost."""

    def __init__(self, message: str, usage: TeacherUsage) -> None:
        super().__init__(message)
        self.usage = usage


@dataclass(frozen=True, slots=True)
class AnswerReply:
    """The teacher's canonical answer to a question."""

    answer: str
    usage: TeacherUsage = field(default_factory=TeacherUsage)


@dataclass(frozen=True, slots=True)
class FirstErrorReply:
    """The first flawed step, and that step corrected: the reply to `check` and to `find_first_error`.

    Attributes:
        step: 0-based index of the flawed step; the number of steps if the steps are right but something is missing
            after them; None if the teacher finds no error.
        corrected: The corrected step, one line; None if the teacher gave none.
        answer: The teacher's own canonical answer, if it gave one: always in reply to `check`, else if it disputes the
            reference.
        usage: What the reply cost.
        ending: The canonical answer, if the teacher put an answer line in the step's place: the explanation should end
            there.
    """

    step: int | None
    corrected: str | None = None
    answer: str | None = None
    usage: TeacherUsage = field(default_factory=TeacherUsage)
    ending: str | None = None


@dataclass(frozen=True, slots=True)
class JudgeReply:
    """Whether a step is correct, the corrected step if it is not, and the reply word for word for the next turn.

    `ending` is as in `FirstErrorReply`.
    """

    is_correct: bool
    corrected: str | None = None
    text: str = ""
    usage: TeacherUsage = field(default_factory=TeacherUsage)
    ending: str | None = None


@dataclass(frozen=True, slots=True)
class ChainReply:
    """Steps that the teacher wrote and the canonical answer that they reach (None if it states none)."""

    steps: tuple[str, ...]
    answer: str | None
    usage: TeacherUsage = field(default_factory=TeacherUsage)


class Teacher(Protocol):
    """Whoever corrects the student: an object with these two methods, and more if it can do more.

    A teacher that can find errors has the further methods of `FullTeacher`, or some of them: rungs of the ladder that
    need a missing one are skipped. If it has a method `interrupt()`, that is called when no further reply is wanted.

    Methods may be called from several threads at once. They raise `TeacherReplyError` if this one request has no usable
    reply (the next rung is tried, or the question is set aside), and any other `TeacherError` to end the run.

    >>> class Parrot:
    ...     def answer(self, question, sample=0):
    ...         return AnswerReply("7")
    ...     def rationale(self, question, reference, sample=0):
    ...         return ChainReply(("3 + 4 = 7",), "7")
    >>> abilities_of(Parrot())
    Abilities(finds_errors=False, judges_steps=False, completes=False, checks=False)
    """

    def answer(self, question: Question, sample: int = 0) -> AnswerReply:
        """Answer a question; `sample` numbers the independent answers to one question."""
        ...

    def rationale(self, question: Question, reference: str | None, sample: int = 0) -> ChainReply:
        """Explain a question whose canonical answer is `reference` (None if unknown)."""
        ...


class FullTeacher(Teacher, Protocol):
    """A teacher that can do all that the ladder asks for."""

    def check(self, question: Question, steps: Sequence[str], student_answer: str | None) -> FirstErrorReply:
        """Answer a question, then find the first flawed step of the student's explanation and correct it."""
        ...

    def find_first_error(
        self, question: Question, steps: Sequence[str], reference: str | None, student_answer: str | None
    ) -> FirstErrorReply:
        """Find the first flawed step of an explanation and correct it."""
        ...

    def judge_step(
        self, question: Question, steps: Sequence[str], turns: Sequence[Turn], next_step: str, reference: str | None
    ) -> JudgeReply:
        """Judge one step, after `steps` that are known to be correct and the `turns` judged since then."""
        ...

    def complete(self, question: Question, steps: Sequence[str], reference: str | None) -> ChainReply:
        """Continue from correct steps; the reply holds the further steps only."""
        ...


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a teacher can do besides answering and explaining."""

    finds_errors: bool = True
    judges_steps: bool = True
    completes: bool = True
    checks: bool = True


def abilities_of(teacher: Teacher) -> Abilities:
    """What a teacher can do, by the methods that it has."""
    names = ("find_first_error", "judge_step", "complete", "check")
    return Abilities(*(callable(getattr(teacher, name, None)) for name in names))
