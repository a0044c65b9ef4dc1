"""Weigh questions by the odds that the student is wrong on them and on the questions nearest by text.

What a student cannot do, it gets wrong in question after question of that kind, and on some of them it is sure of
itself. So the questions around one say as much of it as its own explanation does (docs/METHOD.md §3, with what that is
worth); where the pool has the answers, they say even more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeelad.logistic import fit_logistic
from edgeelad.records import Question
from edgeelad.selection.ranking import Floats, Indices
from edgeelad.selection.vectors import TextVectors

LARGEST_ODDS = 400.0
"""A model of some dozen checked questions is no surer: questions above it are equally likely to be drawn."""
LARGEST_TOLD_ODDS = 9.0
"""The same where outcomes tell: kinds of which nine in ten are wrong, or more, are drawn alike, and not in turn."""
_BORDER = 1e-4  # probabilities are kept this far from 0 and 1, or one sure neighbor outweighs all others

# of the correction by outcomes: shift, slope of the given log odds, slope of those of the neighbors' outcomes
_CENTER, _PRECISION = np.array([0.0, 1.0, 0.0]), np.array([1.0, 4.0, 4.0])


def log_odds(probabilities: Floats) -> Floats:
    """Log odds of probabilities."""
    kept = np.clip(probabilities, _BORDER, 1.0 - _BORDER)
    return np.asarray(np.log(kept) - np.log1p(-kept), dtype=np.float64)


def weights(log_odds: Floats, largest: float = LARGEST_ODDS) -> Floats:
    """The weights in proportion to which questions of these log odds are drawn: the odds, up to the largest."""
    return np.asarray(np.minimum(np.exp(log_odds), largest), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Neighborhood:
    """What is known around each of N questions.

    Attributes:
        vectors: The questions.
        num: How many questions near each count, at least 1.
        among: The indices of those that can be neighbors, in ascending order; at least two.
    """

    vectors: TextVectors
    num: int
    among: Indices

    @classmethod
    def of(cls, questions: Sequence[Question], num: int) -> Neighborhood:
        """All questions among all, at least two."""
        return cls(TextVectors(questions), num, np.arange(len(questions)))

    def means(self, values: Floats) -> Floats:
        """[N], the mean value around each question; `values` is [N]."""
        return self.vectors.neighbor_means(values, self.num, self.among)


def pooled_log_odds(probabilities: Floats, around: Neighborhood) -> Floats:
    """Log odds of each question plus the mean of those of the questions nearest to it.

    Args:
        probabilities: [N], that the student's answer is wrong.
        around: The neighbors of the N questions.
    """
    own = log_odds(probabilities)
    return own + around.means(own)


def corrected(probabilities: Floats, is_wrong: Floats, around: Neighborhood) -> Floats:
    """Probabilities corrected by how many of the questions nearest to each one are wrong.

    A logistic model of the given log odds and of those of the share that is wrong among the neighbors, fitted to the
    outcomes that are known. That of a question itself has no part in its own share: a question that the student gets
    wrong among right ones may have a wrong answer in the pool.

    Args:
        probabilities: [N], that the student's answer is wrong, as it seems without the pool's answers.
        is_wrong: [N], 1 where it is wrong, else 0; read for the questions that can be neighbors.
        around: The neighbors of the N questions.
    """
    known = around.among
    share = (around.num * around.means(is_wrong) + 0.5) / (around.num + 1.0)
    x = np.column_stack([np.ones(len(probabilities)), log_odds(probabilities), log_odds(share)])
    found = x @ fit_logistic(x[known], is_wrong[known], _CENTER, _PRECISION)
    return np.asarray(1.0 / (1.0 + np.exp(-found)), dtype=np.float64)
