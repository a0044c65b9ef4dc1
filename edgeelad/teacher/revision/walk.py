"""L2 and L3 of the ladder: find the first flawed step, correct it, let the student continue, search what remains.

Both walks take the student's explanation and the reference answer; they end with a verified chain, or with the first
steps that are taken to be right.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from edgeelad.errors import TeacherReplyError
from edgeelad.records import Correction, Question, ReasoningTree
from edgeelad.teacher.prompts.messages import Turn
from edgeelad.teacher.protocol import FirstErrorReply, FullTeacher
from edgeelad.teacher.revision.own_chain import suspect_step
from edgeelad.teacher.revision.verify import calculates, ends_with, find_flaw, first_false_step
from edgeelad.teacher.revision.work import AskStudent, Need, OutOfCallsError, Prefix, Rung, Verified, Work
from edgeelad.text import explanation
from edgeelad.text.answers import agree, extract
from edgeelad.text.arithmetic import false_equation

# a student that repeats itself may write hundreds of steps; the first flaw is among the first
MAX_SHOWN_STEPS = 32
# calls that the walk leaves for L4 and L5
KEPT_CALLS = 2


def walk_single(
    work: Work, tree: ReasoningTree, reference: str, max_depth: int, first: FirstErrorReply | None = None
) -> Rung:
    """One call per flaw: the teacher finds the first flawed step and corrects it, up to `max_depth` times.

    `first` is its reply about the student's explanation, if that was bought already.
    """
    question, steps, answer = work.question, tree.steps, tree.answer
    num_good = 0
    seen = {steps}
    # what the student reaches by luck is shown to the teacher again
    for _ in range(max_depth + work.is_lucky(reference)):
        shown = steps[:MAX_SHOWN_STEPS]
        if not shown:
            break
        reply, first = first, None
        if reply is None:
            if not work.abilities.finds_errors:
                break
            ask = _first_error_call(question, shown, reference, answer)
            try:
                reply = yield from work.ask("find_first_error", ask, KEPT_CALLS)
            except (OutOfCallsError, TeacherReplyError):
                break
        if reply.answer is not None and not agree(reply.answer, reference):
            work.dispute = reply.answer
        kept = shown[: reply.step]
        if work.dispute is None and ends_with(kept, reply.ending, reference, question):
            return Verified("L2", kept, reference)
        if reply.step is None:
            return _no_error(work, tree, steps, answer, num_good, reference)
        num_good = reply.step
        corrected = reply.corrected
        if corrected is None and _is_complete(work, steps[:num_good], reference):
            return Verified("L2", steps[:num_good], reference)
        if corrected is None or not _is_correction(work, steps, num_good, corrected):
            break
        found = yield from _correct(work, steps, answer, num_good, corrected, reference)
        if isinstance(found, Verified):
            return found
        steps, answer = found.steps, found.answer
        num_good += 1
        if steps in seen:
            break
        seen.add(steps)
    return Prefix(steps[:num_good])


def walk_per_step(work: Work, tree: ReasoningTree, reference: str, max_depth: int) -> Rung:
    """One call per step, in one conversation that only grows (the paper's figure 3)."""
    question, steps, answer = work.question, tree.steps, tree.answer
    # steps after which the student still reached the answer, and not by luck, need no judge
    start = 0 if work.is_lucky(reference) else suspect_step(tree, reference) or 0
    turns: list[Turn] = []
    depth, index = 0, start
    while index < min(len(steps), MAX_SHOWN_STEPS):
        ask = _judge_call(question, steps[:start], tuple(turns), steps[index], reference)
        try:
            reply = yield from work.ask("judge_step", ask, KEPT_CALLS)
        except (OutOfCallsError, TeacherReplyError):
            return Prefix(steps[:index])
        turns.append(Turn(steps[index], reply.text))
        if ends_with(steps[:index], reply.ending, reference, question):
            return Verified("L2", steps[:index], reference)
        if not reply.is_correct:
            if reply.corrected is None and _is_complete(work, steps[:index], reference):
                return Verified("L2", steps[:index], reference)
            if not _is_correction(work, steps, index, reply.corrected):
                return Prefix(steps[:index])
            found = yield from _correct(work, steps, answer, index, reply.corrected, reference)
            if isinstance(found, Verified):
                return found
            steps, answer = found.steps, found.answer
            depth += 1
            if depth >= max_depth + work.is_lucky(reference):
                return Prefix(steps[: index + 1])
        index += 1
    return _no_error(work, tree, steps, answer, 0, reference)


@dataclass(frozen=True, slots=True)
class _Continued:
    """A chain after a correction that is not verified yet."""

    steps: tuple[str, ...]
    answer: str | None


def _correct(
    work: Work, steps: tuple[str, ...], answer: str | None, index: int, corrected: str, reference: str
) -> Generator[Need, Any, Verified | _Continued]:
    """Put a corrected step in its place; if the rest does not stand, let the student continue from there."""
    question = work.question
    before = steps[index] if index < len(steps) else ""
    work.corrections.append(Correction(index, before, corrected, "teacher"))
    in_place = (*steps[:index], corrected, *steps[index + 1 :])
    # what follows from a step that only the teacher finds wrong does not stand
    is_seen = find_flaw(steps, answer, reference, question.kind) is not None
    if is_seen and find_flaw(in_place, answer, reference, question.kind) is None:
        return Verified("L2", in_place, reference)
    prefix = (*steps[:index], corrected)
    text = yield AskStudent(question, prefix)
    steps = prefix + explanation.split(text).steps
    answer = extract(text, question.kind, question.choices)
    if find_flaw(steps, answer, reference, question.kind) is None and not work.is_lucky(reference):
        return Verified("L3", steps, reference)
    return _Continued(steps, answer)


def _no_error(
    work: Work, tree: ReasoningTree, steps: tuple[str, ...], answer: str | None, num_good: int, reference: str
) -> Verified | Prefix:
    """The teacher finds no error: what can be kept of the chain?"""
    if find_flaw(steps, answer, reference, work.question.kind) is None:
        # it was verified, and only not supported by others, or perhaps by luck
        return Verified("L3" if work.corrections else "L1", steps, reference)
    if _is_complete(work, steps, reference):
        # the steps are right, only the answer line is not
        return Verified("L2", steps, reference)
    false_step = first_false_step(steps) if work.question.kind == "number" else None
    if false_step is not None:
        # here is one, whatever the teacher says
        return Prefix(steps[:false_step])
    if answer is None:
        # right as far as it goes
        return Prefix(steps)
    suspect = suspect_step(tree, reference) if steps == tree.steps and not work.is_lucky(reference) else None
    return Prefix(steps[: num_good if suspect is None else suspect])


def _is_complete(work: Work, steps: tuple[str, ...], reference: str) -> bool:
    """Whether steps come out at the reference answer, if the teacher finds nothing to correct after them.

    Without its word this says nothing: steps on the way have the answer's value by chance (docs/LOG.md).
    """
    kind = work.question.kind
    return kind == "number" and calculates(steps, reference) and find_flaw(steps, reference, reference, kind) is None


def _is_correction(work: Work, steps: tuple[str, ...], index: int, corrected: str | None) -> bool:
    """Whether a corrected step is there, differs from the flawed one, and states no false arithmetic itself."""
    if corrected is None or steps[index : index + 1] == (corrected,):
        return False
    return work.question.kind != "number" or false_equation(corrected) is None


def _first_error_call(
    question: Question, steps: tuple[str, ...], reference: str, answer: str | None
) -> Callable[[FullTeacher], Any]:
    return lambda teacher: teacher.find_first_error(question, steps, reference, answer)


def _judge_call(
    question: Question, steps: tuple[str, ...], turns: tuple[Turn, ...], step: str, reference: str
) -> Callable[[FullTeacher], Any]:
    return lambda teacher: teacher.judge_step(question, steps, turns, step, reference)
