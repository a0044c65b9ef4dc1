"""Decide when to stop: the audit sample, the certificate, and the other reasons.

Takes counts and the outcome of each round; returns certificates and named reasons (docs/METHOD.md §5). Only the
certificate states that student and teacher agree; the other reasons state that more rounds will not help.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgeelad.bounds import binomial_lower, binomial_upper, hypergeometric_lower, hypergeometric_upper
from edgeelad.config import StoppingConfig
from edgeelad.records import AuditCounts, Certificate, Question
from edgeelad.text.answers import agree

StopReason = Literal[
    "certified",  # disagreement with the teacher is at most ε, at the stated confidence
    "limit_reached",  # disagreement is certainly above ε and no longer falls: more data will not help
    "converged",  # successive students answer alike
    "flat",  # the learning curve no longer rises
    "budget",
    "pool_exhausted",
    "max_rounds",
    "no_annotations",
]


@dataclass(frozen=True, slots=True)
class RoundOutcome:
    """The outcome of a round.

    Attributes:
        round: Its number; 0 is the base student.
        accuracy: On held-out labeled questions, or None.
        certificate: The look at the audit, or None.
        kappa_with_previous: Cohen's κ of this student's answers with the last one's; None for the first.
    """

    round: int
    accuracy: float | None = None
    certificate: Certificate | None = None
    kappa_with_previous: float | None = None


def draw_audit(questions: Sequence[Question], n: int, rng: np.random.Generator) -> list[Question]:
    """Draw n questions uniformly without replacement; their order is random, so the first few are a uniform draw too.

    Takes the questions in the order of their ids, so that the draw does not depend on the pool's order. Returns all of
    them if there are fewer than n.
    """
    return [questions[i] for i in rng.permutation(len(questions))[:n]]


def spent_alpha(look: int, alpha: float) -> float:
    """α_t = α / (t(t+1)), the share of the error budget that look t spends; over all looks they sum to α."""
    assert look >= 1, "looks are counted from 1"
    return alpha / (look * (look + 1))


def certify(
    num_disagreements: int,
    num_audited: int,
    population: int | None,
    look: int,
    epsilon: float,
    alpha: float,
    num_unanswered: int = 0,
) -> Certificate:
    """Look at the audit: exact one-sided bounds on the disagreement at level α_t.

    Valid for any number of looks and any student at each look, because the looks' levels sum to α (union bound).

    Args:
        num_disagreements: k, audited questions that student and teacher answer differently.
        num_audited: n, audited questions that the teacher was asked.
        population: N, the size of the pool that the audit was drawn from; None for a stream of such questions.
        look: t, counted from 1.
        epsilon: ε, the disagreement to be certified.
        alpha: α, the error budget of all looks together.
        num_unanswered: Audited questions to which the teacher gave no usable answer, all of them among the k.
    """
    level = spent_alpha(look, alpha)
    if num_audited == 0:
        lower, upper = 0.0, 1.0
    elif population is None:
        lower = binomial_lower(num_disagreements, num_audited, level)
        upper = binomial_upper(num_disagreements, num_audited, level)
    else:
        lower = hypergeometric_lower(num_disagreements, num_audited, population, level)
        upper = hypergeometric_upper(num_disagreements, num_audited, population, level)
    return Certificate(
        look=look,
        num_audited=num_audited,
        num_disagreements=num_disagreements,
        population=population,
        alpha=level,
        epsilon=epsilon,
        upper=upper,
        lower=lower,
        confidence=1.0 - alpha,
        num_unanswered=num_unanswered,
    )


def count_disagreements(teacher: Mapping[str, str | None], student: Mapping[str, str | None]) -> AuditCounts:
    """Compare the student's answers with the teacher's on the audit; both by question id.

    A question to which the teacher gave no usable answer counts as a disagreement: left out, it would be assumed to
    agree as often as the others.
    """
    return AuditCounts(
        num_audited=len(teacher),
        num_disagreements=sum(not agree(student[id_], answer) for id_, answer in teacher.items()),
        num_unanswered=sum(answer is None for answer in teacher.values()),
    )


def should_stop(history: Sequence[RoundOutcome], config: StoppingConfig) -> StopReason | None:
    """The reason to stop after the rounds so far, or None. Budget, pool and number of rounds are up to the caller.

    The curve is the accuracy, or if there is none the agreement with the teacher on the audit. It is flat when the
    best of the last `flat_rounds` rounds is not `min_gain` above the best before them.
    """
    if not history:
        return None
    last = history[-1].certificate
    if config.stop_when_certified and last is not None and last.is_certified:
        return "certified"
    is_flat = _is_flat(history, config)
    if is_flat and last is not None and last.lower > config.epsilon:
        return "limit_reached"
    kappas = [outcome.kappa_with_previous for outcome in history[-config.kappa_rounds :]]
    if len(kappas) == config.kappa_rounds and all(kappa is not None and kappa >= config.kappa for kappa in kappas):
        return "converged"
    return "flat" if is_flat else None


def _is_flat(history: Sequence[RoundOutcome], config: StoppingConfig) -> bool:
    curve = [outcome.accuracy for outcome in history if outcome.accuracy is not None]
    if not curve:
        looks = (outcome.certificate for outcome in history)
        curve = [1.0 - look.num_disagreements / look.num_audited for look in looks if look and look.num_audited]
    before, recent = curve[: -config.flat_rounds], curve[-config.flat_rounds :]
    return bool(before) and max(recent) < max(before) + config.min_gain
