"""L4 and L5 of the ladder: the teacher writes the rest of an explanation, or all of it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from edgeelad.errors import TeacherReplyError
from edgeelad.records import Annotation, Correction, Question
from edgeelad.teacher.protocol import ChainReply, FullTeacher
from edgeelad.teacher.revision.verify import find_flaw, first_false_step
from edgeelad.teacher.revision.work import Need, OutOfCallsError, Prefix, Rung, Verified, Work
from edgeelad.text.answers import agree

NUM_RATIONALES = 2


def complete(work: Work, prefix: tuple[str, ...], reference: str) -> Rung:
    """L4: the teacher continues from the last good prefix."""
    if work.question.kind == "number":
        prefix = prefix[: first_false_step(prefix)]
    if not prefix or not work.abilities.completes:
        return Prefix(())
    found = yield from _written(
        work,
        "complete",
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


def explain(work: Work, reference: str | None) -> Generator[Need, Any, Annotation]:
    """L5: the teacher explains the whole, in a second version if the first one is not verified."""
    for sample in range(NUM_RATIONALES):
        call = _rationale_call(work.question, reference, sample)
        found = yield from _written(work, "rationale", call, lambda reply: reply.steps, reference, "L5")
        if isinstance(found, Verified):
            return work.annotation("rationale", "L5", found.steps, found.answer)
    return work.set_aside(reference, work.reason)


def explain_untold(work: Work, given: list[str]) -> Generator[Need, Any, Annotation]:
    """L5 without a reference: the teacher explains, and is not told the answers that it has `given` before.

    A chain is verified if its answer is among those; if there are none, the first answer is believed.
    """
    for sample in range(NUM_RATIONALES):
        call = _rationale_call(work.question, None, sample)
        found = yield from _written(work, "rationale", call, lambda reply: reply.steps, None, "L5")
        if isinstance(found, Verified):
            if not given or any(agree(found.answer, earlier) for earlier in given):
                return work.annotation("rationale", "L5", found.steps, found.answer)
            given = [*given, found.answer]
    if len(given) > 1:
        work.reason = f"the teacher disagrees with itself: {', '.join(given)}"
    return work.set_aside(None, work.reason)


def _written(
    work: Work,
    prompt: str,
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
        reply = yield from work.ask(prompt, call, kept_calls)
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


def _without_repetition(steps: tuple[str, ...], prefix: tuple[str, ...]) -> tuple[str, ...]:
    """Further steps only, if a teacher repeats the given ones after all."""
    return steps[len(prefix) :] if steps[: len(prefix)] == prefix else steps


def _rationale_call(question: Question, reference: str | None, sample: int) -> Callable[[FullTeacher], Any]:
    return lambda teacher: teacher.rationale(question, reference, sample)
