"""The ladder (docs/METHOD.md §4): from the student's own right chain to an explanation that the teacher writes.

L1 one of the student's own chains is verified; L2 the teacher corrects a step and the rest stands; L3 the student goes
on from the corrected step, and what remains is searched depth-first; L4 the teacher completes from the last good
prefix; L5 it explains the whole. The first rung that verifies ends the climb. Takes one question and its tree, gives
one annotation; sends nothing itself (see `work`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from edgeelad.config import TeacherConfig
from edgeelad.errors import TeacherReplyError
from edgeelad.records import Annotation, AnnotationStatus, Correction, Question, ReasoningTree
from edgeelad.teacher.prompts.messages import Turn
from edgeelad.teacher.protocol import Abilities, ChainReply, FullTeacher
from edgeelad.teacher.revision.own_chain import own_chain, suspect_step
from edgeelad.teacher.revision.verify import calculates, ends_with, find_flaw, first_false_step
from edgeelad.teacher.revision.work import AskStudent, Need, OutOfCallsError, Work, settle_reference
from edgeelad.text import explanation
from edgeelad.text.answers import agree, extract
from edgeelad.text.arithmetic import false_equation

# a student that repeats itself may write hundreds of steps; the first flaw is among the first
MAX_SHOWN_STEPS = 32
# calls that the walk leaves for L4 and L5
KEPT_CALLS = 2
NUM_RATIONALES = 2

Rung = Generator[Need, Any, "Verified | Prefix"]


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


def revise(
    question: Question, tree: ReasoningTree | None, config: TeacherConfig, abilities: Abilities
) -> Generator[Need, Any, Annotation]:
    """Climb the ladder for one question.

    Args:
        question: The question.
        tree: The student's explanation and branches; without it the teacher explains from scratch. In the mode
            "rationale" it is not looked at, and nothing but the pool's answer is there to verify against.
        config: The walk, limits on depth and calls.
        abilities: What the teacher can do; rungs that it cannot serve are skipped.
    """
    if config.mode == "rationale":
        return (yield from _explain(Work(question, None, config, abilities), question.answer))
    work = Work(question, tree, config, abilities)
    reference = yield from settle_reference(work)
    if reference is None:
        return work.set_aside(None, work.reason)
    if work.tree is not None:
        own = own_chain(work.tree, reference)
        if own is not None:
            work.corrections.extend(own.corrections)
            return work.annotation("accepted", "L1", own.steps, reference)
        is_single = config.walk == "single"
        if abilities.finds_errors if is_single else abilities.judges_steps:
            walk = _walk_single if is_single else _walk_per_step
            found = yield from walk(work, work.tree, reference)
            if isinstance(found, Prefix):
                found = yield from _complete(work, found.steps, reference)
            if isinstance(found, Verified):
                status: AnnotationStatus = "completed" if found.rung == "L4" else "revised"
                return work.annotation(status, found.rung, found.steps, reference)
    return (yield from _explain(work, reference))


def _walk_single(work: Work, tree: ReasoningTree, reference: str) -> Rung:
    """L2 and L3, one call for each flaw: the teacher finds the first flawed step and corrects it."""
    question, steps, answer = work.question, tree.steps, tree.answer
    num_good = 0
    seen = {steps}
    for _ in range(work.config.max_depth):
        shown = steps[:MAX_SHOWN_STEPS]
        if not shown:
            break
        ask = _first_error_call(question, shown, reference, answer)
        try:
            reply = yield from work.ask(ask, KEPT_CALLS)
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
        if not _is_correction(work, steps, num_good, corrected):
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


def _walk_per_step(work: Work, tree: ReasoningTree, reference: str) -> Rung:
    """L2 and L3, one call for each step, in one conversation that only grows (the paper's figure 3)."""
    question, steps, answer = work.question, tree.steps, tree.answer
    # steps after which the student still reached the answer need no judge
    start = suspect_step(tree, reference) or 0
    turns: list[Turn] = []
    depth, index = 0, start
    while index < min(len(steps), MAX_SHOWN_STEPS):
        ask = _judge_call(question, steps[:start], tuple(turns), steps[index], reference)
        try:
            reply = yield from work.ask(ask, KEPT_CALLS)
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
            if depth >= work.config.max_depth:
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
    if find_flaw(in_place, answer, reference, question.kind) is None:
        return Verified("L2", in_place, reference)
    prefix = (*steps[:index], corrected)
    text = yield AskStudent(question, prefix)
    steps = prefix + explanation.split(text).steps
    answer = extract(text, question.kind, question.choices)
    if find_flaw(steps, answer, reference, question.kind) is None:
        return Verified("L3", steps, reference)
    return _Continued(steps, answer)


def _no_error(
    work: Work, tree: ReasoningTree, steps: tuple[str, ...], answer: str | None, num_good: int, reference: str
) -> Verified | Prefix:
    """The teacher finds no error, but the chain is not verified: what can be kept of it?"""
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
    suspect = suspect_step(tree, reference) if steps == tree.steps else None
    return Prefix(steps[: num_good if suspect is None else suspect])


def _complete(work: Work, prefix: tuple[str, ...], reference: str) -> Rung:
    """L4: the teacher continues from the last good prefix."""
    if work.question.kind == "number":
        prefix = prefix[: first_false_step(prefix)]
    if not prefix or not work.abilities.completes:
        return Prefix(())
    found = yield from _written(
        work,
        lambda teacher: teacher.complete(work.question, prefix, reference),
        lambda reply: prefix + _without_repetition(reply.steps, prefix),
        reference,
        "L4",
        kept_calls=1,
    )
    if isinstance(found, Verified) and work.tree is not None:
        index = len(prefix)
        before = work.tree.steps[index] if index < len(work.tree.steps) else ""
        if index < len(found.steps):
            work.corrections.append(Correction(index, before, found.steps[index], "teacher"))
    return found


def _explain(work: Work, reference: str | None) -> Generator[Need, Any, Annotation]:
    """L5: the teacher explains the whole, in a second version if the first one is not verified."""
    for sample in range(NUM_RATIONALES):
        call = _rationale_call(work.question, reference, sample)
        found = yield from _written(work, call, lambda reply: reply.steps, reference, "L5")
        if isinstance(found, Verified):
            return work.annotation("rationale", "L5", found.steps, found.answer)
    return work.set_aside(reference, work.reason)


def _written(
    work: Work,
    call: Callable[[FullTeacher], Any],
    chain: Callable[[ChainReply], tuple[str, ...]],
    reference: str | None,
    rung: str,
    kept_calls: int = 0,
) -> Rung:
    """A chain that the teacher wrote, if it is verified; else the reason is noted.

    Without a reference it has to state an answer, and that one is believed.
    """
    try:
        reply = yield from work.ask(call, kept_calls)
    except OutOfCallsError:
        work.reason = work.reason or f"no teacher call is left: {work.limit}"
        return Prefix(())
    except TeacherReplyError as error:
        work.reason = str(error)
        return Prefix(())
    steps = chain(reply)
    answer = reference if reference is not None else reply.answer
    flaw = find_flaw(steps, reply.answer, answer or "", work.question.kind)
    if flaw is None:
        assert answer is not None, "a chain without an answer has a flaw"
        return Verified(rung, steps, answer)
    work.reason = f"the teacher's explanation cannot be used: {flaw.reason}"
    return Prefix(())


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


def _without_repetition(steps: tuple[str, ...], prefix: tuple[str, ...]) -> tuple[str, ...]:
    """Further steps only, if a teacher repeats the given ones after all."""
    return steps[len(prefix) :] if steps[: len(prefix)] == prefix else steps


def _first_error_call(
    question: Question, steps: tuple[str, ...], reference: str, answer: str | None
) -> Callable[[FullTeacher], Any]:
    return lambda teacher: teacher.find_first_error(question, steps, reference, answer)


def _judge_call(
    question: Question, steps: tuple[str, ...], turns: tuple[Turn, ...], step: str, reference: str
) -> Callable[[FullTeacher], Any]:
    return lambda teacher: teacher.judge_step(question, steps, turns, step, reference)


def _rationale_call(question: Question, reference: str | None, sample: int) -> Callable[[FullTeacher], Any]:
    return lambda teacher: teacher.rationale(question, reference, sample)
