"""Paired comparisons over seeds: mean difference, its interval, and p-values held to what was looked at.

Takes one figure a seed for each of two arms, gives a `Comparison`. Student's t for the interval and the first p-value,
Wilcoxon's exact signed-rank test beside it (with six pairs it cannot go below 1/32), Holm's correction over the
comparisons that are made together.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Comparison:
    """First minus second, over pairs.

    Attributes:
        pairs: The differences, one a seed.
        mean: Their mean.
        low: Lower end of its 95 % interval (Student's t).
        high: Upper end.
        p_t: Two-sided p-value of the paired t test.
        p_wilcoxon: Two-sided exact p-value of the signed-rank test; 1 where no pair differs.
        p_holm: `p_t` after Holm's correction over what was compared together.
    """

    pairs: tuple[float, ...]
    mean: float
    low: float
    high: float
    p_t: float
    p_wilcoxon: float
    p_holm: float


def compare_all(pairs: Mapping[str, Sequence[float]]) -> dict[str, Comparison]:
    """Compare several pairs of arms; Holm's correction is over all of them.

    Args:
        pairs: Name of the comparison -> differences, one a seed, at least two.
    """
    single = {name: _compare(tuple(differences)) for name, differences in pairs.items()}
    corrected = holm([comparison[3] for comparison in single.values()])
    return {
        name: Comparison(tuple(pairs[name]), *figures, p_holm)
        for (name, figures), p_holm in zip(single.items(), corrected, strict=True)
    }


def _compare(pairs: tuple[float, ...]) -> tuple[float, float, float, float, float]:
    """Mean, low, high, p_t, p_wilcoxon."""
    mean, error = statistics.fmean(pairs), statistics.stdev(pairs) / math.sqrt(len(pairs))
    freedom = len(pairs) - 1
    half = float(stats.t.ppf((1.0 + LEVEL) / 2.0, freedom)) * error
    p_t = 2.0 * float(stats.t.sf(abs(mean) / error, freedom)) if error else float(mean == 0.0)
    return mean, mean - half, mean + half, p_t, signed_rank(pairs)


def signed_rank(pairs: Sequence[float]) -> float:
    """Two-sided exact p-value of Wilcoxon's signed-rank test; pairs without a difference are left out.

    Counts all sign patterns, ties at their mean rank, so it is exact with ties as well; for at most 20 pairs.

    >>> signed_rank([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    0.03125
    """
    differences = [difference for difference in pairs if difference]
    ranks = stats.rankdata([abs(difference) for difference in differences])
    total = float(sum(ranks))
    observed = abs(2.0 * sum(rank for rank, d in zip(ranks, differences, strict=True) if d > 0) - total)
    extreme = 0
    for pattern in range(2 ** len(differences)):
        positive = sum(rank for index, rank in enumerate(ranks) if pattern >> index & 1)
        extreme += abs(2.0 * positive - total) >= observed - 1e-9
    return float(extreme / 2 ** len(differences))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction, in the order given.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    corrected, largest = [0.0] * len(p_values), 0.0
    for position, index in enumerate(order):
        largest = max(largest, min(1.0, p_values[index] * (len(p_values) - position)))
        corrected[index] = largest
    return corrected
