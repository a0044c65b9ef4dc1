"""Round weight matrices to 8 or 4 bits: one scale per output channel, or one per block of a channel's inputs.

NumPy only; knows no graphs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeelad.export.fused.gptq import SHRINKS, InputStatistics, choose_scales, round_inputs

MAX_INT8 = 127
ZERO_POINT = 128  # of 8-bit codes that are stored as uint8
# The largest blocks at which onnxruntime 1.31 gives a row the same bits in every batch (measured on AVX-512 VNNI, 1 to
# 1313 rows). Blocks of 128 are 8 to 16 % faster, but then a row moves by 1e-6 with the number of its batch mates.
BLOCK_SIZES = {8: 64, 4: 32}
MIN_BLOCK_SIZE = 16  # MatMulNBits takes no smaller
TABLE, INT8, BLOCKS, SCALE, ZERO = ".table", ".int8", ".blocks", ".scale", ".zero"

Weight = NDArray[np.float32]
Tensors = dict[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True, eq=False)
class PackedWeight:
    """A weight matrix as MatMulNBits reads it.

    Attributes:
        bits: 8 or 4.
        block_size: Inputs of one output channel that share a scale.
        num_inputs: K, rows of the weight.
        num_outputs: N, columns of the weight.
        values: Quantized numbers, uint8 [N, blocks, block_size · bits / 8].
        scales: float32 [N, blocks].
        zero_points: uint8 [N, ⌈blocks · bits / 8⌉] for 4 bits; None for 8, which are symmetric around 128.
    """

    bits: int
    block_size: int
    num_inputs: int
    num_outputs: int
    values: NDArray[np.uint8]
    scales: Weight
    zero_points: NDArray[np.uint8] | None

    def tensors(self, stem: str) -> Tensors:
        """The tensors by name, in the order of MatMulNBits' inputs."""
        tensors: Tensors = {stem: self.values, stem + SCALE: self.scales}
        return tensors if self.zero_points is None else {**tensors, stem + ZERO: self.zero_points}


def round_channels(stem: str, weight: Weight, *, is_table: bool, inputs: InputStatistics | None = None) -> Tensors:
    """Codes in [-127, 127] of a weight [inputs, outputs] or a table [rows, width]; one scale per output or row.

    `inputs`, of a weight's product, rounds so that the products change least; None: each number to the nearest.
    """
    axis = 1 if is_table else 0
    codes, scales = _symmetric(weight, axis)
    if inputs is not None:
        codes = round_inputs(weight, inputs, scales, np.zeros_like(scales), len(weight), (-MAX_INT8, MAX_INT8))
    return {stem: codes.astype(np.int8), stem + SCALE: scales.squeeze(axis)}


def pack_blocks(weight: Weight, bits: int, inputs: InputStatistics | None = None) -> PackedWeight:
    """Round a weight [K, N] block by block.

    8 bits are symmetric: q = round(w / s) + 128, s = max|w| / 127. 4 bits have a zero point, or a block of one sign
    would waste half of its sixteen values: q = round(w / s) + z, s = (max − min) / 15, with 0 representable.

    Args:
        weight: The weight.
        bits: 8 or 4.
        inputs: Of the weight's product: scales and rounding suit them. None: each number to the nearest.
    """
    num_inputs, num_outputs = weight.shape
    block_size = min(BLOCK_SIZES[bits], max(MIN_BLOCK_SIZE, 1 << (num_inputs.bit_length() - 1)))
    num_blocks = -(-num_inputs // block_size)
    blocks = _split(weight, num_blocks, block_size)
    if bits == 8:
        scales = _symmetric(blocks, -1)[1]
        zeros = np.full_like(scales, ZERO_POINT)
        bounds = (ZERO_POINT - MAX_INT8, ZERO_POINT + MAX_INT8)
    else:
        energy = np.ones(num_inputs, dtype=np.float32) if inputs is None else inputs.energy
        shrinks = (1.0,) if inputs is None else SHRINKS
        scales, zeros = choose_scales(blocks, _split(energy[:, None], num_blocks, block_size)[0], 16, shrinks)
        bounds = (0, 15)
    if inputs is None:
        values = np.clip(np.rint(blocks / scales) + zeros, *bounds)
    else:
        scale, zero = (array.squeeze(-1).T for array in (scales, zeros))
        rounded = round_inputs(weight, inputs, scale, zero, block_size, bounds)
        values = _split(rounded, num_blocks, block_size)
    packed, zero_points = values.astype(np.uint8), None
    if bits == 4:
        packed, zero_points = _two_per_byte(packed), _two_per_byte(zeros.squeeze(-1).astype(np.uint8))
    return PackedWeight(bits, block_size, num_inputs, num_outputs, packed, scales.squeeze(-1), zero_points)


def _split(weight: Weight, num_blocks: int, block_size: int) -> Weight:
    """A weight [K, N] as [N, blocks, block size], padded with zeros."""
    blocks = np.zeros((weight.shape[1], num_blocks * block_size), dtype=np.float32)
    blocks[:, : len(weight)] = weight.T
    return blocks.reshape(-1, num_blocks, block_size)


def _symmetric(weight: Weight, axis: int) -> tuple[Weight, Weight]:
    """Codes in [-127, 127] and their scales, which keep `axis`; numbers that are all zero get scale 1."""
    largest = np.abs(weight).max(axis=axis, keepdims=True)
    scales = np.where(largest > 0, largest / np.float32(MAX_INT8), np.float32(1))
    return np.rint(weight / scales), scales


def _two_per_byte(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Two 4-bit numbers per byte along the last axis, the first in the low half; padded with zero."""
    if values.shape[-1] % 2:
        values = np.concatenate([values, np.zeros_like(values[..., :1])], axis=-1)
    return np.asarray(values[..., 0::2] | (values[..., 1::2] << 4), dtype=np.uint8)
