"""Examples that cost nothing: the student's own explanations of questions that the teacher was not asked.

Where the pool has the answers, most of what a student explains is known to be right, and to train on it is
rejection-sampling fine-tuning (Zelikman et al. 2022, STaR; Yuan et al. 2023). It teaches many more wordings, objects
and numbers than the teacher is paid for. What the student is sure of teaches it nothing and takes updates from what the
teacher taught, so an explanation is drawn with a probability in proportion to its risk (docs/EVIDENCE.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgeelad.records import Example, Question, ReasoningTree
from edgeelad.teacher.plan.luck import MAX_SHARE, Luck, accidents, surest
from edgeelad.teacher.revision.own_chain import own_chain


def own_examples(
    questions: Sequence[Question],
    trees: Mapping[str, ReasoningTree],
    risks: Mapping[str, float],
    weight: float,
    rng: np.random.Generator,
) -> list[Example]:
    """Draw from the student's own explanations that are right.

    Args:
        questions: Those that the teacher is not asked; only those with an answer count.
        trees: The student's explanations by question id, with or without branches.
        risks: The probability that the student's answer is wrong, by id of the same questions.
        weight: An explanation is drawn with this times its risk, or with certainty where that is above 1.
        rng: Draws them.

    Returns:
        In the order of the questions; at most 1 % are expected to reach their answer in a wrong way (`luck`).
    """
    found = accidents(questions, trees, risks, Luck(questions, trees))
    draws = zip(found.items(), rng.random(len(found)).tolist(), strict=True)
    drawn = {id_: accident for (id_, accident), draw in draws if draw < weight * risks[id_]}
    sure = surest(drawn, MAX_SHARE * len(drawn))
    examples = []
    for question in questions:
        own = own_chain(trees[question.id], question.answer) if question.id in sure and question.answer else None
        if own is not None and question.answer is not None:
            examples.append(Example(question, own.steps, question.answer))
    return examples
