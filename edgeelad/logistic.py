"""Fit a logistic model with a normal prior to few outcomes, in plain NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_NUM_STEPS = 100
_NEAR = 1e-4  # Newton decrement below which whole steps converge
_DIGITS = 8  # of a coefficient: equal fits give equal bytes, on any machine


def fit_logistic(x: Floats, y: Floats, center: Floats, precision: Floats, offset: Floats | float = 0.0) -> Floats:
    """The coefficients with the highest posterior probability, rounded to eight digits.

    The log odds of y = 1 are x·w + offset. Newton's method on a strictly convex function; where it would overshoot, as
    from a prior that is surer than the outcomes allow, its step is halved until the function falls (Armijo's rule).

    Args:
        x: [N, K], a row per outcome.
        y: [N], 0 or 1.
        center: [K], means of the prior.
        precision: [K], inverse variances of the prior, above 0.
        offset: [N], or the same for all.
    """

    def loss(weights: Floats) -> float:
        log_odds = x @ weights + offset
        penalty = precision @ (weights - center) ** 2 / 2.0
        return float((np.logaddexp(0.0, log_odds) - y * log_odds).sum() + penalty)

    weights = center.astype(np.float64)
    for _ in range(_NUM_STEPS):
        probability = 1.0 / (1.0 + np.exp(-np.clip(x @ weights + offset, -700.0, 700.0)))
        gradient = x.T @ (probability - y) + precision * (weights - center)
        curvature = (x.T * (probability * (1.0 - probability))) @ x + np.diag(precision)
        step = np.linalg.solve(curvature, gradient)
        decrement, size = float(gradient @ step), 1.0
        if decrement > _NEAR:
            before = loss(weights)
            while loss(weights - size * step) > before - size * decrement / 4.0:
                size /= 2.0
        weights = weights - size * step
        if np.abs(step).max() < 1e-12:
            break
    return np.round(weights, _DIGITS) + 0.0  # no negative zeros
