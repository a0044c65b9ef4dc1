"""Measure how often answers agree: within a group of branches, and between two groups.

Takes groups of canonical answers and returns shares in [0, 1]. None, no answer found, agrees with nothing, not even
with another None. A group is empty if the student's context has no room for a branch; it agrees with nothing either.
Agreements are counted as integers and divided once, so the order of the branches does not change a bit of a result.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

Answers = Sequence[str | None]


def agreement_within(answers: Answers) -> float:
    """Share of ordered pairs of different branches that agree: the unbiased estimate of Σ_a p(a)².

    With K branches: Σ_{j≠k} 1[a_j = a_k] / (K(K−1)); 0 for an empty group.
    """
    num = len(answers)
    assert num != 1, "one branch alone has nothing to agree with"
    return sum(count * (count - 1) for count in _counts(answers).values()) / (num * (num - 1)) if num else 0.0


def agreement_between(first: Answers, second: Answers) -> float:
    """Share of pairs across two groups that agree, Σ_a p̂(a)·q̂(a); 0 if a group is empty."""
    if not first or not second:
        return 0.0
    ours, theirs = _counts(first), _counts(second)
    return sum(count * theirs[answer] for answer, count in ours.items()) / (len(first) * len(second))


def squared_distance(first: Answers, second: Answers) -> float:
    """Unbiased estimate of Σ_a (p(a) − q(a))² from branches of each; it can be negative if p and q are alike.

    The plug-in estimate would grow with the number of distinct answers even for p = q.
    """
    return agreement_within(first) + agreement_within(second) - 2.0 * agreement_between(first, second)


def entropy(answers: Answers) -> float:
    """Plug-in entropy of a group's answers (nats); every answer that was not found counts as a distinct one."""
    num = len(answers)
    assert num >= 1, "entropy needs a branch"
    counts = _counts(answers)
    shares = [count / num for count in counts.values()] + [1 / num] * (num - sum(counts.values()))
    return abs(math.fsum(share * math.log(share) for share in shares))  # fsum: exact in any order


def _counts(answers: Answers) -> Counter[str]:
    return Counter(answer for answer in answers if answer is not None)
