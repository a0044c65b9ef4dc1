"""Measure how often a student is right and how often two students agree, with exact intervals.

Takes reasoning trees and questions, or two mappings of answers; returns records.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgeelad.bounds import binomial_lower, binomial_upper
from edgeelad.errors import PoolError
from edgeelad.records import Evaluation, Question, ReasoningTree
from edgeelad.text.answers import agree, extract

TAIL = 0.025  # of a 95 % interval, on each side


@dataclass(frozen=True, slots=True)
class Agreement:
    """How often two gave the same answer, with the exact 95% interval of that share.

    An answer that was not found agrees with nothing: questions that neither answered count as disagreements, and are
    counted in `num_both_unanswered` for those who want to see them apart.
    """

    num_questions: int
    num_same: int
    num_both_unanswered: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """Share answered alike; 0 for no questions."""
        return self.num_same / self.num_questions if self.num_questions else 0.0

    @property
    def share_of_answered(self) -> float:
        """Share answered alike, of the questions that at least one answered; 1 if neither answered any."""
        num_answered = self.num_questions - self.num_both_unanswered
        return self.num_same / num_answered if num_answered else 1.0


def evaluate(trees: Iterable[ReasoningTree], questions: Sequence[Question]) -> Evaluation:
    """Accuracy of the greedy explanations on labeled questions, strict and lenient.

    Args:
        trees: One for each of the questions, in any order; others are ignored.
        questions: What counts; each with its reference answer.

    Raises:
        PoolError: A question has no reference answer.
    """
    texts = {tree.question.id: tree.text for tree in trees}
    num_correct = num_strict = num_unanswered = 0
    by_skill: dict[str, tuple[int, int]] = {}
    for question in questions:
        if question.answer is None:
            raise PoolError(f"question {question.id}: no answer to compare with; evaluate on questions with answers")
        assert question.id in texts, "every question was explained"
        text = texts[question.id]
        answer = extract(text, question.kind, question.choices)
        is_correct = agree(answer, question.answer)
        num_correct += is_correct
        num_strict += agree(extract(text, question.kind, question.choices, strict=True), question.answer)
        num_unanswered += answer is None
        if question.skill is not None:
            correct, total = by_skill.get(question.skill, (0, 0))
            by_skill[question.skill] = (correct + is_correct, total + 1)
    low, high = interval(num_correct, len(questions))
    return Evaluation(
        num_questions=len(questions),
        num_correct=num_correct,
        num_correct_strict=num_strict,
        num_unanswered=num_unanswered,
        low=low,
        high=high,
        by_skill=dict(sorted(by_skill.items())),
    )


def agreement(first: Mapping[str, str | None], second: Mapping[str, str | None]) -> Agreement:
    """How often two answered the same questions alike; both map question ids to canonical answers."""
    assert first.keys() == second.keys(), "both answered the same questions"
    num_same = sum(agree(answer, second[question_id]) for question_id, answer in first.items())
    num_neither = sum(answer is None and second[question_id] is None for question_id, answer in first.items())
    return Agreement(len(first), num_same, num_neither, *interval(num_same, len(first)))


def cohens_kappa(first: Sequence[str | None], second: Sequence[str | None]) -> float:
    """Cohen's κ of two lists of answers to the same questions: agreement beyond what chance would give; 1 = all alike.

    An answer that was not found agrees with nothing. If chance alone would give full agreement (one answer to
    everything), κ is 1.
    """
    assert len(first) == len(second), "both answered the same questions"
    assert first, "kappa needs a question"
    num = len(first)
    observed = sum(map(agree, first, second)) / num
    ours, theirs = Counter(first), Counter(second)
    expected = sum(count * theirs[answer] for answer, count in ours.items() if answer is not None) / num**2
    return (observed - expected) / (1.0 - expected) if expected < 1.0 else 1.0


def interval(num_hits: int, num_questions: int) -> tuple[float, float]:
    """Exact two-sided 95 % interval of a share (Clopper-Pearson); (0, 1) for no questions."""
    if num_questions == 0:
        return 0.0, 1.0
    return binomial_lower(num_hits, num_questions, TAIL), binomial_upper(num_hits, num_questions, TAIL)
