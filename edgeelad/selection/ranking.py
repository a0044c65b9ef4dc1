"""Rank candidates at random or by score, with the probability of each to be among the first.

Takes indices and values and returns indices in order of preference.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_log = logging.getLogger(__name__)

Indices = NDArray[np.int64]
Floats = NDArray[np.float64]

SCORE_FLOOR = 1e-6
"""Smallest weight, as a share of the largest: a question with score 0 can still be drawn, and has a propensity."""


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """Candidates in order of preference, each with its propensity: the probability of being among the first.

    That is before bans and caps, which take some of those and let others follow.
    """

    order: Indices
    propensities: Floats

    def first(self, num: int) -> Ranking:
        """The first `num` candidates; the others are released."""
        return Ranking(self.order[:num].copy(), self.propensities[:num].copy())

    def among(self, kept: Indices) -> Ranking:
        """The candidates in `kept`, which is sorted, in the same order, named by their places in it."""
        is_kept = np.isin(self.order, kept)
        return Ranking(np.searchsorted(kept, self.order[is_kept]), self.propensities[is_kept])

    def given(self, first: Ranking, share: float) -> Ranking:
        """The same ranking if its candidates had to be chosen by another one first, or be in a random share."""
        chances = np.zeros(int(first.order.max(initial=0)) + 1)
        chances[first.order] = 1.0 - (1.0 - first.propensities) * (1.0 - share)
        return Ranking(self.order, self.propensities * chances[self.order])


def rank_uniformly(candidates: Indices, num: int, rng: np.random.Generator) -> Ranking:
    """Rank at random: all orders are equally likely, so each candidate is among the first `num` with chance num / n."""
    order = rng.permutation(candidates)
    return Ranking(order, np.full(len(order), min(num / max(len(order), 1), 1.0)))


def rank_by_score(candidates: Indices, values: Floats, num: int, rng: np.random.Generator | None) -> Ranking:
    """Rank by Gumbel-top-k on the log score, or plainly by score if `rng` is None; the smaller index wins a tie.

    Adding Gumbel noise to log w and taking the largest draws without replacement with probabilities proportional to w
    (Kirsch et al. 2023; Efraimidis & Spirakis 2006). Negative scores, which are estimates of nonnegative quantities,
    count as zero; if no score is positive, all candidates are equally likely.
    """
    if rng is None:
        order = np.argsort(-values, kind="stable")
        return Ranking(candidates[order], np.ones(len(order)))
    weights = _weights(values)
    noisy = np.log(weights) + rng.gumbel(size=len(weights))
    order = np.argsort(-noisy, kind="stable")
    return Ranking(candidates[order], inclusion_probabilities(weights, num)[order])


def inclusion_probabilities(weights: Floats, num: int) -> Floats:
    """Probability of each candidate to be among `num` drawn without replacement in proportion to weights.

    Approximated by 1 − exp(−w·t), with t such that the probabilities sum to `num` (Rosén 1997, on order sampling);
    exact for equal weights, and in the limit of many candidates.
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
        if values.min(initial=0.0) < 0.0:
            _log.warning("no score is above 0, so all questions are equally likely to be drawn; add a constant to them")
        return np.ones(len(values))
    return np.maximum(positive, SCORE_FLOOR * largest)
