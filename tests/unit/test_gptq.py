"""Rounding by GPTQ: the textbook algorithm's codes, and products that change less than those of nearest codes."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeelad.export.fused import gptq
from edgeelad.export.fused.gptq import InputStatistics, input_statistics, round_inputs

Matrix = NDArray[np.float32]


def textbook(weight: Matrix, rows: Matrix, order: NDArray[np.intp], scale: Matrix, top: int) -> NDArray[np.float64]:
    """Algorithm 1 of the paper in float64, one input at a time; one scale per output."""
    hessian = (rows[:, order].T.astype(np.float64) @ rows[:, order]) / len(rows)
    hessian += np.eye(len(order)) * gptq.DAMPING * np.square(rows).mean()
    inverse = np.linalg.cholesky(np.linalg.inv(hessian)).T
    left, codes = weight[order].astype(np.float64), np.empty(weight.shape)
    for k, place in enumerate(order):
        codes[place] = np.clip(np.rint(left[k] / scale), -top, top)
        error = (left[k] - codes[place] * scale) / inverse[k, k]
        left[k + 1 :] -= np.outer(inverse[k, k + 1 :], error)
    return codes


def make(seed: int, num_inputs: int, num_outputs: int = 24) -> tuple[Matrix, Matrix, Matrix]:
    """Correlated rows of uneven energy, a weight, and a scale per output that leaves seven levels on each side."""
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((300, num_inputs)) @ rng.standard_normal((num_inputs, num_inputs))
    rows = (mixed * np.exp(rng.standard_normal(num_inputs))).astype(np.float32)
    weight = rng.standard_normal((num_inputs, num_outputs)).astype(np.float32)
    return rows, weight, np.abs(weight).max(axis=0, keepdims=True) / np.float32(7)


def codes_of(weight: Matrix, inputs: InputStatistics, scale: Matrix) -> Matrix:
    return round_inputs(weight, inputs, scale, np.zeros_like(scale), len(weight), (-7, 7))


@pytest.mark.parametrize("num_inputs", [1, 20, 128, 129])
def test_the_codes_are_those_of_the_textbook(num_inputs: int) -> None:
    rows, weight, scale = make(num_inputs, num_inputs)
    inputs = input_statistics(rows)
    assert np.array_equal(codes_of(weight, inputs, scale), textbook(weight, rows, inputs.order, scale, 7))


def test_products_change_less_than_with_the_nearest_codes() -> None:
    rows, weight, scale = make(0, 64)
    rounded, nearest = codes_of(weight, input_statistics(rows), scale), np.clip(np.rint(weight / scale), -7, 7)
    error, error_of_nearest = (np.square(rows @ (weight - codes * scale)).mean() for codes in (rounded, nearest))
    assert error < 0.5 * error_of_nearest


def test_the_errors_of_two_inputs_by_hand() -> None:
    # two inputs that are nearly always equal: rounding 0.4 down to 0 adds 0.4 to the other, of 0.3, which becomes 1
    rows = np.array([[2, 1.99], [-2, -2], [2, 2]], dtype=np.float32)
    weight = np.array([[0.4], [0.3]], dtype=np.float32)
    inputs = input_statistics(rows)
    assert inputs.order.tolist() == [0, 1]
    codes = round_inputs(weight, inputs, np.ones((1, 1), np.float32), np.zeros((1, 1), np.float32), 2, (-7, 7))
    assert codes.tolist() == [[0], [1]]


def test_inputs_that_no_row_had_are_rounded_to_the_nearest() -> None:
    weight = np.array([[0.6], [-1.4], [2.2]], dtype=np.float32)
    codes = codes_of(weight, input_statistics(np.zeros((4, 3), np.float32)), np.ones((1, 1), np.float32))
    assert codes.tolist() == [[1], [-1], [2]]
