"""Examples that cost nothing: the student's own explanations of questions that the teacher was not asked.

Where the pool has the answers, most of what a student explains is known to be right, and to train on it is
rejection-sampling fine-tuning (Zelikman et al. 2022, STaR; Yuan et al. 2023). It teaches many more wordings, objects
and numbers than the teacher is paid for. But it must not take updates from what the teacher taught: there is room for
so many that each example is still seen `MIN_PASSES` times. If that is for some only, they are drawn in proportion to
their risk, since what the student is sure of teaches it least (docs/EVIDENCE.md). They and what the teacher's work
verified are taught in several wordings, which the student samples, another in each pass: what it reads over and over in
the same words it soon knows by heart, and learns no more from (docs/METHOD.md §4).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np

from edgeelad.engine.tree import TreeParams, greedy_params
from edgeelad.records import Example, Question, ReasoningTree
from edgeelad.teacher.plan.luck import MAX_ACCIDENT, MAX_SHARE, Luck, accidents, surest
from edgeelad.teacher.revision.own_chain import own_chain, wordings

MIN_PASSES = 8
MAX_PER_VERIFIED = 5  # of them for each explanation that the teacher's work verified
MAX_SAMPLED = 12  # explanations of each, for its wordings
SAMPLED_PER_PASS = 1.5  # of which about two thirds are other wordings
# 92 % have others in varied wording, 0.5 to 3 % where a step is always worded alike
NUM_TRIED, MIN_REWORDED = 64, 0.25
FIRST_TRIED = 16  # none of which has others if the student has one wording, or cannot explain them again
RISK_FLOOR = 1e-6  # smallest weight, as a share of the largest: what has no risk can still be drawn


def room_for_own(num_seen: int, num_others: int, num_verified: int) -> int:
    """How many of the student's own explanations can be added to other examples without further steps.

    Args:
        num_seen: Examples that are seen in all of the training, each as often as it is repeated.
        num_others: The other examples.
        num_verified: Those among them that the teacher's work verified.
    """
    return min(max(num_seen // MIN_PASSES - num_others, 0), MAX_PER_VERIFIED * num_verified)


def own_examples(
    questions: Sequence[Question],
    trees: Mapping[str, ReasoningTree],
    risks: Mapping[str, float],
    num: int,
    rng: np.random.Generator,
) -> list[Example]:
    """Draw from the student's own explanations that are right.

    Args:
        questions: Those that the teacher is not asked; only those with an answer count.
        trees: The student's explanations by question id, with or without branches.
        risks: The probability that the student's answer is wrong, by id of the same questions.
        num: Explanations that are drawn, in proportion to their risk; all if there are no more.
        rng: Draws them.

    Returns:
        In the order of the questions; none is likely to reach its answer in a wrong way, and at most 1 % are expected
        to (`luck`).
    """
    found = accidents(questions, trees, risks, Luck(questions, trees))
    ids = [id_ for id_, accident in found.items() if accident <= MAX_ACCIDENT]
    given = np.array([risks[id_] for id_ in ids], dtype=np.float64)
    weights = np.maximum(given, RISK_FLOOR * given.max(initial=RISK_FLOOR))
    noisy = np.log(weights) + rng.gumbel(size=len(ids))  # Gumbel-top-k: without replacement, in proportion to weights
    drawn = {ids[i]: found[ids[i]] for i in np.argsort(-noisy, kind="stable")[:num].tolist()}
    sure = surest(drawn, MAX_SHARE * len(drawn))
    examples = []
    for question in questions:
        own = own_chain(trees[question.id], question.answer) if question.id in sure and question.answer else None
        if own is not None and question.answer is not None:
            examples.append(Example(question, own.steps, question.answer))
    return examples


def sampling_params(max_tokens: int, seed: int, num_passes: float) -> TreeParams:
    """How the student samples the wordings: as it is likely to put them, with nothing left out.

    Args:
        max_tokens: Of an explanation.
        seed: The run's.
        num_passes: How often an example is seen: it can have another wording each time.
    """
    num = min(MAX_SAMPLED, math.ceil(SAMPLED_PER_PASS * num_passes))
    return replace(greedy_params(max_tokens), num_root_branches=num, seed=seed)


ExplainAgain = Callable[[Sequence[Question]], Iterator[ReasoningTree]]
"""Makes the trees of questions, in their order, by `sampling_params`; a question can be left out."""


def in_other_words(examples: Sequence[Example], explain_again: ExplainAgain, num_done: int = 0) -> Iterator[Example]:
    """The same examples, in their order, with the further wordings that the student samples.

    A student that always says the same in the same words has none: what it samples otherwise is a slip, a wrong name or
    noun that no arithmetic shows. If few of the first examples have other wordings, all are left as they are.

    Args:
        examples: The student's own, or what was verified: of these the wordings are those that calculate the same.
        explain_again: Samples.
        num_done: How many of the first examples are known already, and not given again.
    """
    tried = list(_in_other_words(examples[:FIRST_TRIED], explain_again))
    if any(example.others for example in tried):
        tried += _in_other_words(examples[FIRST_TRIED:NUM_TRIED], explain_again)
    if sum(bool(example.others) for example in tried) < MIN_REWORDED * len(tried):
        yield from examples[num_done:]
        return
    yield from tried[num_done:]
    start = max(num_done - num_done % NUM_TRIED, NUM_TRIED)  # where blocks of questions would begin
    yield from islice(_in_other_words(examples[start:], explain_again), max(num_done - start, 0), None)


def _in_other_words(examples: Sequence[Example], explain_again: ExplainAgain) -> Iterator[Example]:
    trees = explain_again([example.question for example in examples]) if examples else iter(())
    tree = next(trees, None)
    for example in examples:
        if tree is None or tree.question.id != example.question.id:
            yield example
        else:
            yield replace(example, others=tuple(wordings(tree, example.steps, example.answer)))
            tree = next(trees, None)
