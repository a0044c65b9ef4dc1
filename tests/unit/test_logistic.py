"""Fits of logistic models with a prior."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeelad.logistic import fit_logistic


def gradient(weights, x, y, center, precision, offset=0.0):
    return x.T @ (1 / (1 + np.exp(-(x @ weights + offset))) - y) + precision * (weights - center)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 400), st.floats(-6, 6), st.floats(0, 6), st.floats(0.1, 30))
def test_the_result_is_the_optimum_however_wrong_and_sure_the_prior_is(seed, num, shift, slope, surety):
    dice = np.random.default_rng(seed)
    x = np.column_stack([dice.normal(size=(num, 4)) * 3, np.ones(num)])
    y = (dice.random(num) < 1 / (1 + np.exp(-slope * x[:, 0]))).astype(float)
    center, precision = np.array([shift, -shift, 2.0, 0.0, shift]), np.full(5, surety)
    weights = fit_logistic(x, y, center, precision)
    assert np.abs(gradient(weights, x, y, center, precision)).max() < 1e-4 * num


def test_without_outcomes_the_prior_stays():
    center = np.array([1.0, -2.0])
    assert fit_logistic(np.empty((0, 2)), np.empty(0), center, np.ones(2)).tolist() == [1.0, -2.0]


def test_an_offset_counts_as_it_stands():
    dice = np.random.default_rng(0)
    x, offset = np.ones((50, 1)), dice.normal(size=50)
    y = (dice.random(50) < 0.5).astype(float)
    weights = fit_logistic(x, y, np.zeros(1), np.ones(1), offset)
    assert gradient(weights, x, y, np.zeros(1), np.ones(1), offset) == pytest.approx(0.0, abs=1e-6)
