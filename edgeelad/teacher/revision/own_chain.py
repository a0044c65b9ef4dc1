"""What a student's own tree says once the answer is known: a chain that is right already, or the suspect step.

Rung L1 of the ladder, and the hint for those after it. The teacher is not asked.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeelad.records import Correction, ReasoningTree
from edgeelad.teacher.revision.verify import find_flaw
from edgeelad.text import explanation
from edgeelad.text.answers import agree


@dataclass(frozen=True, slots=True)
class OwnChain:
    """A verified chain of the student's own; `corrections` holds the step at which a branch left the greedy one."""

    steps: tuple[str, ...]
    corrections: tuple[Correction, ...] = ()


def own_chain(tree: ReasoningTree, reference: str) -> OwnChain | None:
    """The greedy explanation if it is verified, else the likeliest verified branch (by mean log-probability)."""
    kind = tree.question.kind
    if find_flaw(tree.steps, tree.answer, reference, kind) is None:
        return OwnChain(tree.steps)
    reached = [
        # among equally likely ones the one that keeps most of the greedy explanation
        (-branch.mean_logprob, -length, index, branch)
        for length, group in enumerate(tree.branches)
        for index, branch in enumerate(group)
        if agree(branch.answer, reference)
    ]
    for _, negative_length, _, branch in sorted(reached, key=lambda item: item[:3]):
        steps = tree.steps[:-negative_length] + explanation.split(branch.text).steps
        if find_flaw(steps, branch.answer, reference, kind) is None:
            return OwnChain(steps, _difference(tree.steps, steps))
    return None


def suspect_step(tree: ReasoningTree, reference: str) -> int | None:
    """The step (0-based) after which the student's branches no longer reach the reference answer; None for no hint."""
    reached = [any(agree(branch.answer, reference) for branch in group) for group in tree.branches]
    for index in range(1, len(reached)):
        if reached[index - 1] and not reached[index]:
            return index - 1
    return None


def _difference(before: tuple[str, ...], after: tuple[str, ...]) -> tuple[Correction, ...]:
    """The first step at which a branch left the greedy explanation, as a correction by the student itself."""
    for index, step in enumerate(after):
        if before[index : index + 1] != (step,):
            return (Correction(index, before[index] if index < len(before) else "", step, "student"),)
    return ()
