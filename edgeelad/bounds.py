"""Exact bounds on a share from a sample: Clopper-Pearson, and hypergeometric for a finite population.

Takes counts and a level α; returns shares in [0, 1]. Plain Python: the base install evaluates certificates too. Bounds
are one-sided; a two-sided interval at 95 % is both bounds at α = 0.025.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction


def binomial_upper(num_hits: int, num_sampled: int, alpha: float) -> float:
    """The largest share p under which `num_hits` or fewer hits still have probability α (Clopper & Pearson 1934).

    >>> round(binomial_upper(0, 29, 0.05), 3)
    0.098
    """
    _check(num_hits, num_sampled, alpha)
    if num_hits == num_sampled:
        return 1.0
    return _crossing(lambda share: binomial_cdf(num_hits, num_sampled, share) > alpha)[1]


def binomial_lower(num_hits: int, num_sampled: int, alpha: float) -> float:
    """The smallest share under which `num_hits` or more hits still have probability α."""
    _check(num_hits, num_sampled, alpha)
    if num_hits == 0:
        return 0.0
    # misses are as likely under 1 − p as hits under p
    return 1.0 - binomial_upper(num_sampled - num_hits, num_sampled, alpha)


def binomial_cdf(num_hits: int, num_sampled: int, share: float) -> float:
    """Probability of `num_hits` or fewer hits in `num_sampled` independent draws."""
    if share <= 0.0 or num_hits >= num_sampled:
        return 1.0
    if share >= 1.0:
        return 0.0
    hit, miss = math.log(share), math.log1p(-share)
    logs = (_log_comb(num_sampled, j) + j * hit + (num_sampled - j) * miss for j in range(num_hits + 1))
    return min(math.fsum(map(math.exp, logs)), 1.0)


def hypergeometric_upper(num_hits: int, num_sampled: int, population: int, alpha: float) -> float:
    """The same bound for a sample without replacement from a finite population: the share of hits in all of it."""
    _check(num_hits, num_sampled, alpha)
    assert num_sampled <= population, "a sample is no larger than its population"
    largest = population - (num_sampled - num_hits)  # every question not sampled is a hit
    low, high = num_hits, largest
    while low < high:  # the largest number of hits that is not rejected; the probability falls with it
        middle = (low + high + 1) // 2
        if _hypergeometric_exceeds(num_hits, num_sampled, population, middle, alpha):
            low = middle
        else:
            high = middle - 1
    return low / population if population else 1.0


def hypergeometric_lower(num_hits: int, num_sampled: int, population: int, alpha: float) -> float:
    """The smallest share of hits in the population under which at least `num_hits` still have probability α."""
    if not population:
        return 0.0
    misses = round(hypergeometric_upper(num_sampled - num_hits, num_sampled, population, alpha) * population)
    return (population - misses) / population


def _hypergeometric_exceeds(num_hits: int, num_sampled: int, population: int, total: int, alpha: float) -> bool:
    """Whether `num_hits` or fewer hits have a probability above α if `total` are in the population; in integers."""
    ways = sum(
        math.comb(total, j) * math.comb(population - total, num_sampled - j) for j in range(min(num_hits, total) + 1)
    )
    level = Fraction(alpha)
    return ways * level.denominator > level.numerator * math.comb(population, num_sampled)


def _crossing(is_below: Callable[[float], bool]) -> tuple[float, float]:
    """Bisect [0, 1] for the point at which a condition that holds at 0 stops holding, down to adjacent doubles."""
    low, high = 0.0, 1.0
    while (middle := (low + high) / 2.0) not in (low, high):
        low, high = (middle, high) if is_below(middle) else (low, middle)
    return low, high


def _log_comb(total: int, chosen: int) -> float:
    return math.lgamma(total + 1) - math.lgamma(chosen + 1) - math.lgamma(total - chosen + 1)


def _check(num_hits: int, num_sampled: int, alpha: float) -> None:
    assert 0 <= num_hits <= num_sampled, "hits are part of the sample"
    assert 0.0 < alpha < 1.0, "a level is a probability"
