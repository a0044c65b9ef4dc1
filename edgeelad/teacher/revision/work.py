"""The work on one question: what it needs next, what it has cost, and the reference answer (rung L0).

A rung is a generator. It yields what it needs, `AskTeacher` or `AskStudent`, and is sent the reply; so `annotate` can
work on many questions at once, and what comes of each depends on its replies alone.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

from edgeelad.config import TeacherConfig
from edgeelad.errors import TeacherReplyError
from edgeelad.records import (
    Annotation,
    AnnotationStatus,
    Correction,
    Question,
    ReasoningTree,
    TeacherCall,
    TeacherUsage,
)
from edgeelad.teacher.plan.luck import OPEN_KINDS, Luck
from edgeelad.teacher.protocol import Abilities, FullTeacher, UnusableReplyError
from edgeelad.teacher.revision.verify import find_flaw
from edgeelad.text.answers import agree


@dataclass(frozen=True, slots=True)
class AskTeacher:
    """A teacher call is needed; the generator is sent its reply, or a `TeacherReplyError` is thrown into it."""

    call: Callable[[FullTeacher], Any]


@dataclass(frozen=True, slots=True)
class AskStudent:
    """The student should continue after `steps`; the generator is sent the text."""

    question: Question
    steps: tuple[str, ...]


Need = AskTeacher | AskStudent


@dataclass(frozen=True, slots=True)
class Verified:
    """A chain that passed verification, and the rung that brought it."""

    rung: str
    steps: tuple[str, ...]
    answer: str


@dataclass(frozen=True, slots=True)
class Prefix:
    """No verified chain, but these first steps are taken to be right."""

    steps: tuple[str, ...]


Rung = Generator[Need, Any, Verified | Prefix]


class OutOfCallsError(Exception):
    """The question has used up its teacher calls; never leaves this package."""


@dataclass(slots=True)
class Work:
    """The state of the work on one question; `tree` is None if the student's steps are not used."""

    question: Question
    tree: ReasoningTree | None
    config: TeacherConfig
    abilities: Abilities
    luck: Luck | None = None
    num_calls: int = 0
    usage: TeacherUsage = field(default_factory=TeacherUsage)
    calls: list[TeacherCall] = field(default_factory=list)
    corrections: list[Correction] = field(default_factory=list)
    reason: str = ""
    dispute: str | None = None

    def is_lucky(self, reference: str) -> bool:
        """Whether a student that goes on from a corrected step may well reach this answer by luck."""
        return self.luck is not None and self.luck.is_common(self.question, reference)

    def ask(self, prompt: str, call: Callable[[FullTeacher], Any], kept_calls: int = 0) -> Generator[Need, Any, Any]:
        """Call the teacher, leaving at least `kept_calls` calls for later rungs; `prompt` names what it is asked.

        Raises:
            OutOfCallsError: No call is left for this.
            TeacherReplyError: The reply cannot be used.
        """
        if self.num_calls + kept_calls >= self.config.max_calls or self._is_costly():
            raise OutOfCallsError
        self.num_calls += 1
        try:
            reply = yield AskTeacher(call)
        except UnusableReplyError as error:
            self._note(prompt, error.usage)
            raise
        self._note(prompt, reply.usage)
        return reply

    def _note(self, prompt: str, usage: TeacherUsage) -> None:
        self.usage += usage
        self.calls.append(TeacherCall(prompt, usage))

    def _is_costly(self) -> bool:
        limit = self.config.max_tokens_per_question
        return limit is not None and self.usage.prompt_tokens + self.usage.completion_tokens >= limit

    @property
    def limit(self) -> str:
        """The limit that it has reached, as the user would set it."""
        if self._is_costly():
            return f"teacher.max_tokens_per_question = {self.config.max_tokens_per_question}"
        return f"teacher.max_calls = {self.config.max_calls}"

    def annotation(
        self, status: AnnotationStatus, rung: str, steps: tuple[str, ...], reference: str | None
    ) -> Annotation:
        """What came of it."""
        return Annotation(
            question_id=self.question.id,
            status=status,
            rung=rung,
            steps=steps,
            answer=reference,
            student_steps=self.tree.steps if self.tree is not None else (),
            corrections=tuple(self.corrections),
            usage=self.usage,
            calls=tuple(self.calls),
        )

    def set_aside(self, reference: str | None, reason: str) -> Annotation:
        """Nothing usable came of it."""
        if self.dispute is not None:
            reason += f"; the teacher says that the answer is {self.dispute}, not {reference}"
        return Annotation(
            question_id=self.question.id,
            status="set_aside",
            rung="",
            steps=(),
            answer=reference,
            reason=reason,
            student_steps=self.tree.steps if self.tree is not None else (),
            corrections=tuple(self.corrections),
            usage=self.usage,
            calls=tuple(self.calls),
        )


def settle_reference(work: Work) -> Generator[Need, Any, str | None]:
    """Rung L0: the pool's answer, else the teacher's if two of up to three samples agree.

    The student's verified greedy explanation stands for the second sample if it reaches the first one's answer, in
    kinds of questions in which two who err seldom err alike; it costs nothing. Not so its branches: there are so many
    that one soon agrees with a wrong answer (docs/LOG.md). Gives None, with `work.reason` set, if it cannot be
    settled.
    """
    question = work.question
    if question.answer is not None:
        return question.answer
    tree = work.tree if question.kind in OPEN_KINDS else None
    given: list[str] = []
    problem = ""
    for sample in range(3):
        try:
            reply = yield from work.ask("answer", answer_call(question, sample))
        except OutOfCallsError:
            break
        except TeacherReplyError as error:
            problem = str(error)
            continue
        if sample == 0 and tree is not None and find_flaw(tree.steps, tree.answer, reply.answer, question.kind) is None:
            return str(reply.answer)
        if any(agree(reply.answer, earlier) for earlier in given):
            return str(reply.answer)
        given.append(reply.answer)
    if len(given) > 1:
        work.reason = f"the teacher disagrees with itself: {', '.join(given)}"
    else:
        work.reason = f"the teacher's answer cannot be settled: {problem or 'no call is left for a second one'}"
    return None


def answer_call(question: Question, sample: int) -> Callable[[FullTeacher], Any]:
    """The call for one of the teacher's answers."""
    return lambda teacher: teacher.answer(question, sample)
