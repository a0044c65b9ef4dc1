"""The ladder (docs/METHOD.md §4): from the student's own right chain to an explanation that the teacher writes.

L1 one of the student's own chains is verified; L2 the teacher corrects a step and the rest stands; L3 the student
continues from the corrected step, and what remains is searched depth-first; L4 the teacher completes from the last good
prefix; L5 it explains the whole. The first rung that verifies ends the climb. Takes one question and its tree, gives
one annotation; sends nothing itself (see `work`).
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from edgeelad.config import TeacherConfig
from edgeelad.errors import TeacherReplyError
from edgeelad.records import Annotation, AnnotationStatus, Question, ReasoningTree, TeachingPlan
from edgeelad.teacher.plan.luck import Luck
from edgeelad.teacher.protocol import Abilities, AnswerReply, FirstErrorReply, FullTeacher
from edgeelad.teacher.revision.own_chain import is_supported, own_chain
from edgeelad.teacher.revision.verify import find_flaw
from edgeelad.teacher.revision.walk import MAX_SHOWN_STEPS, walk_per_step, walk_single
from edgeelad.teacher.revision.work import Need, OutOfCallsError, Verified, Work, answer_call, settle_reference
from edgeelad.teacher.revision.write import complete, explain, explain_untold
from edgeelad.text.answers import agree


def revise(
    question: Question,
    tree: ReasoningTree | None,
    config: TeacherConfig,
    abilities: Abilities,
    plan: TeachingPlan | None = None,
    *,
    luck: Luck | None = None,
    is_doubtful: bool = False,
) -> Generator[Need, Any, Annotation]:
    """Climb the ladder for one question.

    Args:
        question: The question.
        tree: The student's explanation and branches; without it the teacher explains from scratch. In the mode
            "rationale" it is not looked at, and nothing but the pool's answer is there to verify against.
        config: The walk, limits on depth and calls.
        abilities: What the teacher can do; rungs that it cannot serve are skipped.
        plan: The way to go, with `teacher.mode = "auto"`; there an explanation is bought instead of a completion, and
            without waiting for answers to be settled.
        luck: Of the batch; default: no explanation reaches the answer by luck.
        is_doubtful: Whether the student's own chain may have, so that the teacher is asked; with a plan, that says it.
    """
    if config.mode == "rationale":
        return (yield from explain(Work(question, None, config, abilities), question.answer))
    work = Work(question, tree, config, abilities, luck)
    if plan is not None and (plan.way == "rationale" or tree is None):
        return (yield from explain(work, question.answer))
    if plan is not None and plan.way == "answer" and tree is not None:
        return (yield from _answer(work, tree))
    depth = config.max_depth if plan is None else plan.max_depth
    if tree is not None and question.answer is None and config.walk == "single" and abilities.checks and tree.steps:
        return (yield from _check(work, tree, depth))
    reference = yield from settle_reference(work)
    if reference is None:
        return work.set_aside(None, work.reason)
    if work.tree is not None:
        own = own_chain(work.tree, reference)
        if own is not None and (not is_doubtful if plan is None else plan.way == "own"):
            work.corrections.extend(own.corrections)
            return work.annotation("accepted", "L1", own.steps, reference)
        is_single = config.walk == "single"
        if abilities.finds_errors if is_single else abilities.judges_steps:
            if is_single:
                found = yield from walk_single(work, work.tree, reference, depth)
            else:
                found = yield from walk_per_step(work, work.tree, reference, depth)
            if not isinstance(found, Verified) and plan is None:
                found = yield from complete(work, found.steps, reference)
            if isinstance(found, Verified):
                return _annotation(work, found)
    return (yield from explain(work, reference))


def _answer(work: Work, tree: ReasoningTree) -> Generator[Need, Any, Annotation]:
    """L0 for a student that is probably right: one answer, which its own explanation has to reach."""
    try:
        reply: AnswerReply = yield from work.ask("answer", answer_call(work.question, 0))
    except OutOfCallsError:
        return work.set_aside(None, f"no teacher call is left: {work.limit}")
    except TeacherReplyError as error:
        work.reason = str(error)
        return (yield from explain_untold(work, []))
    if agree(tree.answer, reply.answer) and is_supported(tree):
        return work.annotation("accepted", "L1", tree.steps, reply.answer)
    return (yield from explain_untold(work, [reply.answer]))


def _check(work: Work, tree: ReasoningTree, max_depth: int) -> Generator[Need, Any, Annotation]:
    """L0 and L2 in one call: the teacher answers, and finds and corrects the first flawed step.

    What the student writes after the correction has to reach that answer, or an explanation for which the teacher is
    not told its answer; else a second such explanation decides.
    """
    shown = tree.steps[:MAX_SHOWN_STEPS]
    try:
        reply: FirstErrorReply = yield from work.ask("check", lambda teacher: _ask_check(teacher, tree, shown))
    except OutOfCallsError:
        return work.set_aside(None, f"no teacher call is left: {work.limit}")
    except TeacherReplyError as error:
        work.reason = str(error)
        return (yield from explain_untold(work, []))
    assert reply.answer is not None, "the reply to `check` holds an answer"
    if reply.step is None and find_flaw(tree.steps, tree.answer, reply.answer, work.question.kind) is None:
        return work.annotation("accepted", "L1", tree.steps, reply.answer)
    found = yield from walk_single(work, tree, reply.answer, max_depth, reply)
    if isinstance(found, Verified):
        return _annotation(work, found)
    return (yield from explain_untold(work, [reply.answer]))


def _ask_check(teacher: FullTeacher, tree: ReasoningTree, shown: tuple[str, ...]) -> FirstErrorReply:
    return teacher.check(tree.question, shown, tree.answer)


def _annotation(work: Work, found: Verified) -> Annotation:
    statuses: dict[str, AnnotationStatus] = {"L1": "accepted", "L4": "completed"}
    return work.annotation(statuses.get(found.rung, "revised"), found.rung, found.steps, found.answer)
