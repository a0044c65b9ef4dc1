"""Quantize the weights of an ONNX graph to 8 or 4 bits, block by block, so that a row's result is its own.

Every matrix product with a constant weight becomes `com.microsoft::MatMulNBits` at accuracy level 4: weights are scaled
per block of a column, activations per block of a row while they are multiplied. Dynamic per-tensor quantization would
scale a row by its batch mates, and a score would depend on them. Embeddings stay float32.

Block sizes are the largest at which onnxruntime 1.31 gives a row the same bits in every batch (measured on AVX-512
VNNI, 1 to 1313 rows): 64 for 8 bits, 32 for 4. Blocks of 128 are 8 to 16 % faster, and a row then moves by 1e-6 with
the number of its mates. Edits an `onnx.ModelProto`; knows no files and no students.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgeelad.errors import ModelError

MICROSOFT = "com.microsoft"
BLOCK_SIZES = {8: 64, 4: 32}
MIN_BLOCK_SIZE = 16  # MatMulNBits takes no smaller
ACCURACY_LEVEL = 4  # int8 products; the other levels are up to ten times slower (onnxruntime #23004)
HEAD_BITS = 8  # 4 bits in the head cost a small student more than they save
LOGITS = "logits"

Weight = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class PackedWeight:
    """A weight matrix as MatMulNBits reads it.

    Attributes:
        bits: 8 or 4.
        block_size: Numbers of one column that share a scale.
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
    scales: NDArray[np.float32]
    zero_points: NDArray[np.uint8] | None


def pack_weight(weight: Weight, bits: int) -> PackedWeight:
    """Round a weight [K, N] to the nearest representable numbers.

    8 bits are symmetric: q = round(w / s) + 128, s = max|w| / 127. 4 bits have a zero point, or a block of one sign
    would waste half of its sixteen values: q = round(w / s) + z, s = (max − min) / 15, with 0 representable.
    """
    num_inputs, num_outputs = weight.shape
    block_size = min(BLOCK_SIZES[bits], max(MIN_BLOCK_SIZE, 1 << (num_inputs.bit_length() - 1)))
    num_blocks = -(-num_inputs // block_size)
    blocks = np.zeros((num_outputs, num_blocks * block_size), dtype=np.float32)
    blocks[:, :num_inputs] = weight.T
    blocks = blocks.reshape(num_outputs, num_blocks, block_size)
    if bits == 8:
        scales = np.abs(blocks).max(axis=-1) / np.float32(127)
        zeros = np.full_like(scales, 128)
    else:
        low, high = np.minimum(blocks.min(axis=-1), 0), np.maximum(blocks.max(axis=-1), 0)
        scales = (high - low) / np.float32(15)
        zeros = np.rint(-low / _no_zeros(scales))
    values = np.rint(blocks / _no_zeros(scales)[..., None]) + zeros[..., None]
    values = np.clip(values, 0, 2**bits - 1).astype(np.uint8)
    return PackedWeight(
        bits,
        block_size,
        num_inputs,
        num_outputs,
        values=values if bits == 8 else _two_a_byte(values),
        scales=scales.astype(np.float32),
        zero_points=None if bits == 8 else _two_a_byte(zeros.astype(np.uint8)),
    )


def quantize_graph(model: ModelProto, bits: int) -> int:
    """Quantize every matrix product with a constant weight, in place; gives how many there were.

    Gemm (GPT-2's projections) becomes a MatMulNBits and an Add. The product that gives the logits keeps 8 bits.

    Raises:
        ModelError: There is no such product: nothing would be quantized.
    """
    graph = model.graph
    weights = _constant_weights(model)
    nodes: list[NodeProto] = []
    packed: dict[tuple[str, bool, int], PackedWeight] = {}
    for node in graph.node:
        name, is_transposed = _weight_of(node, weights)
        if name is None:
            nodes.append(node)
            continue
        node_bits = HEAD_BITS if LOGITS in node.output else bits
        key = (name, is_transposed, node_bits)
        if key not in packed:
            weight = weights[name].T if is_transposed else weights[name]
            packed[key] = pack_weight(weight, node_bits)
        nodes.extend(_replacement(node, _stem(*key), packed[key]))
    if not packed:
        raise ModelError("the graph has no matrix product with a constant weight; there is nothing to quantize")
    del graph.node[:]
    graph.node.extend(nodes)
    for key, matrix in packed.items():
        graph.initializer.extend(_tensors(_stem(*key), matrix))
    _drop_unused(model)
    if not any(entry.domain == MICROSOFT for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    return len(packed)


def _stem(name: str, is_transposed: bool, bits: int) -> str:
    """What the names of a packed weight's tensors begin with."""
    return f"{name}_{'transposed_' if is_transposed else ''}{bits}bit"


def _constant_weights(model: ModelProto) -> dict[str, Weight]:
    """The float32 matrices of a graph, and those that are the transpose of one (tied heads), by name."""
    weights: dict[str, Weight] = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 2
    }
    for node in model.graph.node:
        if node.op_type == "Transpose" and node.input[0] in weights:
            weights[node.output[0]] = weights[node.input[0]].T
    return weights


def _weight_of(node: NodeProto, weights: Mapping[str, Weight]) -> tuple[str | None, bool]:
    """The constant weight that a node multiplies by, and whether the node transposes it; None for other nodes."""
    if node.op_type not in ("MatMul", "Gemm") or node.input[1] not in weights:
        return None, False
    attributes = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
    if any(attributes.get(name, 1.0) != 1.0 for name in ("alpha", "beta")) or attributes.get("transA", 0):
        return None, False
    is_transposed = bool(attributes.get("transB", 0))
    num_inputs = weights[node.input[1]].shape[1 if is_transposed else 0]
    return (node.input[1], is_transposed) if num_inputs >= MIN_BLOCK_SIZE else (None, False)


def _replacement(node: NodeProto, stem: str, weight: PackedWeight) -> list[NodeProto]:
    has_bias = node.op_type == "Gemm" and len(node.input) > 2 and node.input[2] != ""
    product = f"{node.output[0]}_product" if has_bias else node.output[0]
    zero_points = [f"{stem}_zero_points"] if weight.zero_points is not None else []
    multiply = helper.make_node(
        "MatMulNBits",
        [node.input[0], f"{stem}_values", f"{stem}_scales", *zero_points],
        [product],
        name=node.name,
        domain=MICROSOFT,
        K=weight.num_inputs,
        N=weight.num_outputs,
        bits=weight.bits,
        block_size=weight.block_size,
        accuracy_level=ACCURACY_LEVEL,
    )
    if not has_bias:
        return [multiply]
    return [multiply, helper.make_node("Add", [product, node.input[2]], [node.output[0]], name=f"{node.name}/bias")]


def _tensors(stem: str, weight: PackedWeight) -> list[TensorProto]:
    tensors = [
        numpy_helper.from_array(weight.values, f"{stem}_values"),
        numpy_helper.from_array(weight.scales, f"{stem}_scales"),
    ]
    if weight.zero_points is not None:
        tensors.append(numpy_helper.from_array(weight.zero_points, f"{stem}_zero_points"))
    return tensors


def _drop_unused(model: ModelProto) -> None:
    """Remove what only the replaced nodes read: transposes of tied weights, then weights."""
    graph = model.graph
    outputs = {output.name for output in graph.output}
    while True:
        read = {name for node in graph.node for name in node.input} | outputs
        unread = [node for node in graph.node if node.op_type == "Transpose" and not read.intersection(node.output)]
        if not unread:
            break
        for node in unread:
            graph.node.remove(node)
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _two_a_byte(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Two 4-bit numbers a byte along the last axis, the first in the low half; padded with zero."""
    if values.shape[-1] % 2:
        values = np.concatenate([values, np.zeros_like(values[..., :1])], axis=-1)
    return np.asarray(values[..., 0::2] | (values[..., 1::2] << 4), dtype=np.uint8)


def _no_zeros(scales: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.where(scales == 0, np.float32(1), scales).astype(np.float32)
