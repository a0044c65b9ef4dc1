"""Rank candidates by chance or by score, with the probability that each was to be among the first.

Takes indices and values, gives indices in the order of preference. Knows no texts, no bans and no caps: those change
the probabilities a little, which is neglected.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
Floats = NDArray[np.float64]

SCORE_FLOOR = 1e-6
"""Smallest weight, as a share of the largest: a question with score 0 stays possible, and has a propensity."""


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """Candidates in order of preference, and for each the probability that it was to be chosen."""

    order: Indices
    propensities: Floats


def rank_uniformly(candidates: Indices, num: int, rng: np.random.Generator) -> Ranking:
    """All orders are equally likely; each candidate is among the first `num` with probability num / n."""
    order = rng.permutation(candidates)
    return Ranking(order, np.full(len(order), min(num / max(len(order), 1), 1.0)))


def rank_by_score(candidates: Indices, values: Floats, num: int, rng: np.random.Generator | None) -> Ranking:
    """Gumbel-top-k on log score where there is a Generator, else plainly by score; ties go to the smaller index.

    Adding Gumbel noise to log w and taking the largest draws without replacement with probabilities proportional to w
    (Kirsch et al. 2023; Efraimidis & Spirakis 2006). Scores below zero, which only estimates of nonnegative quantities
    take, count as zero; where none is positive all are equally likely.
    """
    if rng is None:
        order = np.argsort(-values, kind="stable")
        return Ranking(candidates[order], np.ones(len(order)))
    weights = _weights(values)
    noisy = np.log(weights) + rng.gumbel(size=len(weights))
    order = np.argsort(-noisy, kind="stable")
    return Ranking(candidates[order], inclusion_probabilities(weights, num)[order])


def inclusion_probabilities(weights: Floats, num: int) -> Floats:
    """Probability of each to be among the first `num` when drawing without replacement in proportion to weights.

    Approximated by 1 − exp(−w·t), with t such that they sum to `num` (Rosén 1997, on order sampling): exact for equal
    weights and as the number of candidates grows.
    """
    if num >= len(weights):
        return np.ones(len(weights))
    if num == 0:
        return np.zeros(len(weights))
    scaled = weights / weights.max()
    low, high = 0.0, 1.0
    while -np.expm1(-scaled * high).sum() < num:
        high *= 2.0
    for _ in range(100):  # bisection, to the last bits of a double
        middle = (low + high) / 2.0
        low, high = (middle, high) if -np.expm1(-scaled * middle).sum() < num else (low, middle)
    return np.asarray(-np.expm1(-scaled * high), dtype=np.float64)


def _weights(values: Floats) -> Floats:
    positive = np.maximum(values, 0.0)
    largest = float(positive.max(initial=0.0))
    if largest == 0.0:
        return np.ones(len(values))
    return np.maximum(positive, SCORE_FLOOR * largest)
