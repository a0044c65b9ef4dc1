"""What a student's own tree says once the answer is known: a chain that is right already, or the suspect step.

Rung L1 of the ladder, and the hint for those after it. The teacher is not asked. A wrong way can reach the right
answer, so a chain has to state no false arithmetic, to calculate with numbers that are there, and to be supported by
other chains of the student's own that calculate the same: one for the greedy explanation, two for a sampled one
(docs/LOG.md). What is refused here is not lost: the teacher is asked about it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from edgeelad.records import Branch, Correction, Question, ReasoningTree
from edgeelad.teacher.revision.verify import find_flaw
from edgeelad.text import explanation
from edgeelad.text.answers import agree
from edgeelad.text.arithmetic import equations
from edgeelad.text.prompts import question_text

# other chains that must calculate the same
GREEDY_SUPPORT, BRANCH_SUPPORT = 1, 2
# numbers that need not be stated: small ones, and those of time, dozens and percent
COMMON = frozenset(map(Fraction, (0, 1, 2, 3, 4, 7, 10, 12, 24, 30, 52, 60, 100, 365, 1000)))
MIN_LETTERS = 5  # of a step without a number; fewer are the rest of a sentence that the student lost ("here.")
MAX_DIGITS = 1000  # of a number; Python reads no more than 4,300
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class OwnChain:
    """A verified chain of the student's own; `corrections` holds the step at which a branch left the greedy one."""

    steps: tuple[str, ...]
    corrections: tuple[Correction, ...] = ()


def own_chain(tree: ReasoningTree, reference: str) -> OwnChain | None:
    """The greedy explanation if it is verified and supported, else the likeliest such branch (by mean log-probability).

    Without branches there is nothing to support the greedy explanation, and it stands if it is verified.
    """
    chains = list(_verified_branches(tree, reference))
    supports = Counter(_values(steps) for _, _, steps in chains)
    if find_flaw(tree.steps, tree.answer, reference, tree.question.kind) is None:
        is_supported = supports[_values(tree.steps)] >= GREEDY_SUPPORT or not any(tree.branches)
        if is_supported and is_grounded(tree.question, tree.steps):
            return OwnChain(tree.steps)
    # among equally likely ones the one that keeps most of the greedy explanation
    for _, _, steps in sorted(chains, key=lambda chain: (-chain[1].mean_logprob, -chain[0])):
        if supports[_values(steps)] > BRANCH_SUPPORT and is_grounded(tree.question, steps):
            return OwnChain(steps, _difference(tree.steps, steps))
    return None


def wordings(tree: ReasoningTree, steps: tuple[str, ...], reference: str) -> list[tuple[str, ...]]:
    """Branches that calculate what an own chain does, in the same order, but say it otherwise: each wording once.

    None if the chain calculates nothing: nothing tells then whether a branch says the same.
    """
    results = _results(steps)
    found = (
        branch
        for _, _, branch in _verified_branches(tree, reference)
        if branch != steps and _results(branch) == results and is_grounded(tree.question, branch)
    )
    return list(dict.fromkeys(found)) if results else []


def is_supported(tree: ReasoningTree) -> bool:
    """Whether the greedy explanation would be an own chain if its answer were right."""
    if tree.answer is None:
        return False
    own = own_chain(tree, tree.answer)
    return own is not None and own.steps == tree.steps


def is_grounded(question: Question, steps: Sequence[str]) -> bool:
    """Whether every step says something, and what it calculates with is in the question or before it, or is common."""
    if question.kind != "number":
        return True
    known = COMMON | _numbers(question_text(question))
    for step in steps:
        if not _numbers(step) and sum(map(str.isalpha, step)) < MIN_LETTERS:
            return False
        for equation in equations(step):
            if not _numbers(equation.left) <= known:
                return False
            known |= {equation.value}
        known |= _numbers(step)
    return True


def suspect_step(tree: ReasoningTree, reference: str) -> int | None:
    """The step (0-based) after which the student's branches no longer reach the reference answer; None for no hint."""
    reached = [any(agree(branch.answer, reference) for branch in group) for group in tree.branches]
    for index in range(1, len(reached)):
        if reached[index - 1] and not reached[index]:
            return index - 1
    return None


def _verified_branches(tree: ReasoningTree, reference: str) -> Iterator[tuple[int, Branch, tuple[str, ...]]]:
    """Branches that reach the reference, with the length of the prefix that they leave and their steps.

    Those after the last step add nothing to the greedy explanation, unless they write further steps.
    """
    for length, group in enumerate(tree.branches):
        for branch in group:
            if not agree(branch.answer, reference):
                continue
            steps = tree.steps[:length] + explanation.split(branch.text).steps
            is_new = length < len(tree.steps) or steps != tree.steps
            if is_new and find_flaw(steps, branch.answer, reference, tree.question.kind) is None:
                yield length, branch, steps


def _values(steps: Sequence[str]) -> frozenset[Fraction]:
    """What a chain calculates, in whatever order."""
    return frozenset(_results(steps))


def _results(steps: Sequence[str]) -> list[Fraction]:
    """The results of a chain's equations in order, else the last number of each step, if any."""
    results = [equation.value for step in steps for equation in equations(step)]
    return results or [_fraction(found[-1]) for found in map(_NUMBER.findall, steps) if found]


def _numbers(text: str) -> frozenset[Fraction]:
    return frozenset(map(_fraction, _NUMBER.findall(text)))


def _fraction(number: str) -> Fraction:
    return Fraction(number.replace(",", "")[:MAX_DIGITS])


def _difference(before: tuple[str, ...], after: tuple[str, ...]) -> tuple[Correction, ...]:
    """The first step at which a branch left the greedy explanation, as a correction by the student itself."""
    for index, step in enumerate(after):
        if before[index : index + 1] != (step,):
            return (Correction(index, before[index] if index < len(before) else "", step, "student"),)
    return ()
