"""Round a weight matrix so that its products with observed inputs change least.

GPTQ (Frantar et al. 2023, arXiv 2210.17323, algorithm 1): inputs are rounded one after the other, those with the most
energy first, and each is moved, before it is rounded, by what best makes up for the errors of those before it. The
scales are chosen before. The moves come from the Cholesky factor of XᵀX itself, so nothing is inverted (LDLQ, Chee et
al. 2023, arXiv 2307.13304, who show both forms to be the same). NumPy only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DAMPING = 0.01  # of the mean energy, added to each input's: the observed inputs are few
BLOCK_INPUTS = 128  # share one matrix product with the errors of all inputs before them
# shares of a block's range that are tried as its scale: clipping the largest weights may cost less than coarse steps
SHRINKS = tuple(1 - step / 20 for step in range(8))

Weight = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class InputStatistics:
    """What rounding needs to know of a product's inputs.

    Attributes:
        energy: Mean square of each input, [inputs].
        order: The inputs, those with the most energy first.
        feedback: How far one unit of error of an earlier input (column) moves a later one (row), both in that order;
            lower triangular, [inputs, inputs].
    """

    energy: Weight
    order: NDArray[np.intp]
    feedback: Weight


def input_statistics(rows: Weight) -> InputStatistics:
    """Statistics of observed inputs [rows, inputs]."""
    energy = np.square(rows).mean(axis=0)
    order = np.argsort(-energy, kind="stable")
    ordered = rows[:, order[::-1]]  # the last input first, which makes R upper triangular
    damped = (ordered.T @ ordered).astype(np.float64) / len(rows)
    damped.flat[:: len(order) + 1] += max(DAMPING * float(energy.mean()), 1e-30)
    # with XᵀX = R·Rᵀ, the squared error of the products is |Rᵀ·errors|², of which input k makes the k-th term zero by
    # an error of −Σ R[j, k] / R[k, k] · errors[j] over the inputs j before it
    factor = np.linalg.cholesky(damped)
    feedback = np.asarray((factor / np.diagonal(factor))[::-1, ::-1].T, dtype=np.float32, order="C")
    return InputStatistics(energy, order, feedback)


def choose_scales(
    blocks: Weight, energy: Weight, num_levels: int, shrinks: tuple[float, ...] = SHRINKS
) -> tuple[Weight, Weight]:
    """Choose each block's scale and zero point.

    Args:
        blocks: Weights [outputs, blocks, block size], padded with zeros.
        energy: Weight of each input's squared error, [blocks, block size].
        num_levels: Quantized numbers are 0 to num_levels − 1.
        shrinks: Shares of a block's range to try.

    Returns:
        Scales and zero points [outputs, blocks, 1]; 0 stays representable.
    """
    top = np.float32(num_levels - 1)
    low = np.minimum(blocks.min(axis=-1, keepdims=True), 0)
    high = np.maximum(blocks.max(axis=-1, keepdims=True), 0)
    best = np.full(low.shape, np.inf, dtype=np.float32)
    scales, zeros = np.ones_like(low), np.zeros_like(low)
    for shrink in shrinks:
        scale = (high - low) * np.float32(shrink) / top
        scale = np.where(scale > 0, scale, np.float32(1))
        zero = np.clip(np.rint(-low * np.float32(shrink) / scale), 0, top)
        codes = np.clip(np.rint(blocks / scale) + zero, 0, top)
        error = (np.square((codes - zero) * scale - blocks) * energy).sum(axis=-1, keepdims=True)
        is_better = error < best
        best = np.where(is_better, error, best)
        scales, zeros = np.where(is_better, scale, scales), np.where(is_better, zero, zeros)
    return scales, zeros


def round_inputs(
    weight: Weight,
    inputs: InputStatistics,
    scales: Weight,
    zeros: Weight,
    block_size: int,
    bounds: tuple[int, int],
) -> Weight:
    """Round a weight, input by input.

    Args:
        weight: [inputs, outputs].
        inputs: Of the product.
        scales: Of each block of inputs, [blocks, outputs].
        zeros: Zero points, as `scales`.
        block_size: Inputs per block.
        bounds: Smallest and largest quantized number.

    Returns:
        The quantized numbers [inputs, outputs]; weight ≈ (number − zero) · scale.
    """
    num_inputs = len(weight)
    ordered = weight[inputs.order].astype(np.float32)
    errors = np.empty_like(ordered)  # of the inputs that are rounded
    codes = np.empty(weight.shape, dtype=np.float32)
    for start in range(0, num_inputs, BLOCK_INPUTS):
        end = min(start + BLOCK_INPUTS, num_inputs)
        ordered[start:end] += inputs.feedback[start:end, :start] @ errors[:start]
        for row in range(start, end):
            wanted = ordered[row] + inputs.feedback[row, start:row] @ errors[start:row]
            place = inputs.order[row]
            scale, zero = scales[place // block_size], zeros[place // block_size]
            codes[place] = np.clip(np.rint(wanted / scale) + zero, *bounds)
            errors[row] = weight[place] - (codes[place] - zero) * scale
    return codes
