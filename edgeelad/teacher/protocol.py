"""What a teacher can be asked, and the records that it replies with.

`openai_teacher` and `dataset_teacher` are the two kinds; tests bring scripted ones. Every reply carries what it cost
when it was bought, so that an annotation's cost is the sum over its replies, wherever they came from. A reply that
cannot be used is an `UnusableReplyError`, which carries its cost as well. Step numbers are 0-based here; the prompts
count from 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from edgeelad.errors import TeacherReplyError
from edgeelad.records import Question, TeacherUsage
from edgeelad.teacher.ledger.exchange import TeacherRequest
from edgeelad.teacher.prompts.messages import Turn


class UnusableReplyError(TeacherReplyError):
    """A reply that was paid for and cannot be used; `usage` is what it cost."""

    def __init__(self, message: str, usage: TeacherUsage) -> None:
        super().__init__(message)
        self.usage = usage


@dataclass(frozen=True, slots=True)
class Pending:
    """A request that has to be bought in a batch."""

    request: TeacherRequest
    question_id: str
    completion_cap: int


class NotYetError(Exception):
    """A batched teacher has no reply yet: gather what is pending, `fetch` it, and call again.

    Never leaves this package; `annotate` and `answer_all` see to it.
    """

    def __init__(self, pending: Pending) -> None:
        super().__init__(pending.request.key)
        self.pending = pending


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a kind of teacher can do besides answering and explaining; `is_batched`: its replies have to be fetched."""

    finds_errors: bool = True
    completes: bool = True
    is_batched: bool = False


@dataclass(frozen=True, slots=True)
class AnswerReply:
    """The teacher's canonical answer to a question."""

    answer: str
    usage: TeacherUsage = field(default_factory=TeacherUsage)


@dataclass(frozen=True, slots=True)
class FirstErrorReply:
    """The first flawed step, and that step corrected.

    Attributes:
        step: 0-based index of the flawed step; the number of steps where the steps are right but something is missing
            after them; None where the teacher finds no error.
        corrected: The corrected step, one line; None where the teacher gave none.
        ending: The canonical answer, where the teacher put an answer line in the step's place: the explanation should
            end there.
        answer: The teacher's own canonical answer where it gave one (it does where it disputes the reference).
        usage: What the reply cost.
    """

    step: int | None
    corrected: str | None = None
    answer: str | None = None
    usage: TeacherUsage = field(default_factory=TeacherUsage)
    ending: str | None = None


@dataclass(frozen=True, slots=True)
class JudgeReply:
    """Whether a step is correct, the step corrected where it is not, and the reply word for word for the next turn.

    `ending` is as in `FirstErrorReply`.
    """

    is_correct: bool
    corrected: str | None = None
    text: str = ""
    usage: TeacherUsage = field(default_factory=TeacherUsage)
    ending: str | None = None


@dataclass(frozen=True, slots=True)
class ChainReply:
    """Steps that the teacher wrote and the canonical answer that they reach (None where it states none)."""

    steps: tuple[str, ...]
    answer: str | None
    usage: TeacherUsage = field(default_factory=TeacherUsage)


class Teacher(Protocol):
    """Whoever corrects the student. Methods may be called from several threads at once.

    They raise `TeacherReplyError` where this one request has no usable reply (the question is set aside, or the next
    rung is tried), and any other `TeacherError` where going on makes no sense: refused, unreachable, budget spent.
    """

    @property
    def abilities(self) -> Abilities:
        """What this teacher can do."""
        ...

    def answer(self, question: Question, sample: int = 0) -> AnswerReply:
        """Answer a question; sample 0 at the configured temperature, later ones at the resampling temperature."""
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
        """Go on from correct steps; the reply holds the further steps only."""
        ...

    def rationale(self, question: Question, reference: str | None, sample: int = 0) -> ChainReply:
        """Write a whole explanation."""
        ...

    def fetch(self, pending: Sequence[Pending]) -> None:
        """Buy the replies that a batched teacher does not have yet, all at once, and wait for them."""
        ...

    def usage(self) -> TeacherUsage:
        """What this run's requests have cost so far."""
        ...

    def interrupt(self) -> None:
        """Stop waiting: calls that are between two attempts raise instead of trying again."""
        ...
