"""Quantize a graph's matrix products so that a row's result depends on that row alone.

Dynamic int8 as onnxruntime's tools write it scales activations per tensor: a row's logits, and so its score, would
depend on its batch mates. Two schemes here do not:

- `quantize_rows` (int8 for many rows: the engine's graphs for scoring and for servers): weights per output channel,
  activations per row, both symmetric, as explicit nodes: QuantizeLinear with one scale per row, MatMulIntegerToFloat
  (u8 · s8, the fastest product on CPUs with VNNI or Arm's dot-product extension), one multiplication by the row's
  scale. Sums of int8 products are exact in int32, so the result does not depend on the order of summation either.
- `quantize_blocks` (int8 for one row: a device's graph; and int4): MatMulNBits at accuracy level 4 (activations in int8
  per row and block), one operator where the rows' scheme has five. The head, to which 4 bits cost more than they save,
  keeps 8.

The embedding is quantized to int8, per row of the table or per block; a tied head reads the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import NodeProto, TensorProto, helper

from edgeelad.errors import ModelError
from edgeelad.export.fused.calibrate import Rows
from edgeelad.export.fused.edit import MICROSOFT, EditedGraph
from edgeelad.export.fused.gptq import InputStatistics, input_statistics
from edgeelad.export.fused.passes import embedding_node
from edgeelad.export.fused.rotate import ROTATION
from edgeelad.export.fused.rounding import (
    BLOCKS,
    INT8,
    MAX_INT8,
    MIN_BLOCK_SIZE,
    SCALE,
    TABLE,
    ZERO_POINT,
    pack_blocks,
    round_channels,
)

ROWS_OPSET = 21  # the first with blocks (here: a block is a row) in QuantizeLinear
ACCURACY_LEVEL = 4  # int8 products; the other levels are up to ten times slower (onnxruntime #23004)
HEAD_BITS = 8
BOTH_SCALES = "both_scales"


class Inputs:
    """Statistics of products' inputs, from observed rows; computed when a product of the input is quantized."""

    def __init__(self, rows: Mapping[str, Rows]) -> None:
        """Take the observed rows of each tensor."""
        self._rows = rows
        self._last: tuple[str, InputStatistics] | None = None  # products of one input follow one another

    def of(self, tensor: str) -> InputStatistics | None:
        """The statistics of a tensor; None if it was not observed."""
        if tensor not in self._rows:
            return None
        if self._last is None or self._last[0] != tensor:
            self._last = tensor, input_statistics(self._rows[tensor])
        return self._last[1]


def quantize_rows(graph: EditedGraph, inputs: Inputs) -> None:
    """Quantize all matrix products with constant weights, and the embedding table, to int8."""
    graph.opset = max(graph.opset, ROWS_OPSET)
    rows: dict[str, tuple[str, str]] = {}
    zeros = _row_zeros(graph)
    for node in _products(graph):
        if node.input[0] not in rows:
            # the engine's head computes fewer rows than the other products, so it needs its own zero points
            own = _row_zeros_like(graph, node, node.input[0]) if _is_head(node) else zeros
            rows[node.input[0]] = _quantize_activation(graph, node, node.input[0], own)
        codes, scale = rows[node.input[0]]
        _rows_product(graph, node, codes, scale, inputs.of(node.input[0]))
    _defer_scales(graph, rows)
    _quantize_embedding(graph)
    graph.prune()


def product_inputs(graph: EditedGraph) -> list[str]:
    """The tensors that quantized products read, without a tied head's."""
    return list(dict.fromkeys(node.input[0] for node in _products(graph) if not _is_tied(node)))


def _products(graph: EditedGraph) -> list[NodeProto]:
    """The matrix products with a constant weight that is large enough for a block.

    Raises:
        ModelError: There are none.
    """
    found = [
        node
        for node in graph.nodes
        if node.op_type in ("MatMul", "FusedMatMul")
        and node.input[1] != ROTATION  # small, and every token goes through it
        and node.input[1] in graph.weights
        and graph.weights[node.input[1]].ndim == 2
        and _width(graph, node) >= MIN_BLOCK_SIZE
    ]
    if not found:
        raise ModelError("the graph has no matrix product with a constant weight; there is nothing to quantize")
    return found


def _is_head(node: NodeProto) -> bool:
    return node.output[0] == "logits"


def _is_tied(node: NodeProto) -> bool:
    return node.op_type == "FusedMatMul"


def _row_zeros(graph: EditedGraph) -> str:
    """The zero points of all rows, [batch, sequence, 1], computed once per run."""
    return _row_zeros_like(graph, graph.nodes[0], "input_ids", keep=None)


def _row_zeros_like(graph: EditedGraph, before: NodeProto, tensor: str, keep: int | None = -1) -> str:
    """Zero points [..., 1] for the rows of `tensor`; `keep` is the end of the axes that count."""
    zero = graph.constant("zero_point", np.array(ZERO_POINT, dtype=np.uint8))
    one = graph.constant("one_column", np.array([1], dtype=np.int64))
    outer, shape, zeros = (graph.new_name(stem) for stem in ("row_outer", "row_shape", "row_zeros"))
    ends = {} if keep is None else {"end": keep}
    graph.insert_before(
        before,
        [
            helper.make_node("Shape", [tensor], [outer], **ends),
            helper.make_node("Concat", [outer, one], [shape], axis=0),
            helper.make_node("Expand", [zero, shape], [zeros]),
        ],
    )
    return zeros


def _quantize_activation(graph: EditedGraph, before: NodeProto, tensor: str, zeros: str) -> tuple[str, str]:
    """Quantize each row of `tensor`; returns the names of the codes (u8 around 128) and the scales."""
    width = _width(graph, before)
    axis = graph.constant("row_axis", np.array([-1], dtype=np.int64))
    factor = graph.constant("inverse_levels", np.array(1.0 / MAX_INT8, dtype=np.float32))
    magnitude, largest, scale, codes = (graph.new_name(stem) for stem in ("magnitude", "largest", "row_scale", "codes"))
    graph.insert_before(
        before,
        [
            helper.make_node("Abs", [tensor], [magnitude]),
            helper.make_node("ReduceMax", [magnitude, axis], [largest], keepdims=1),
            helper.make_node("Mul", [largest, factor], [scale]),
            helper.make_node("QuantizeLinear", [tensor, scale, zeros], [codes], axis=-1, block_size=width),
        ],
    )
    return codes, scale


def _width(graph: EditedGraph, node: NodeProto) -> int:
    shape = graph.weights[node.input[1]].shape
    return int(shape[1] if _is_tied(node) else shape[0])


def _rows_product(
    graph: EditedGraph, node: NodeProto, codes: str, scale: str, inputs: InputStatistics | None = None
) -> None:
    """Replace one product by its quantized form, times the rows' scales."""
    one = graph.constant("one", np.array(1.0, dtype=np.float32))
    zero = graph.constant("zero_point", np.array(ZERO_POINT, dtype=np.uint8))
    unscaled = graph.new_name("unscaled")
    if _is_tied(node):
        products = _tied_product(graph, node, codes, unscaled)
    else:
        weight, weight_scale = _add_int8(graph, node.input[1], is_table=False, inputs=inputs)
        operands = [codes, weight, one, weight_scale, zero]
        products = [helper.make_node("MatMulIntegerToFloat", operands, [unscaled], domain=MICROSOFT, name=node.name)]
    graph.insert_before(node, [*products, helper.make_node("Mul", [unscaled, scale], [node.output[0]])])
    graph.remove(node)


def _defer_scales(graph: EditedGraph, rows: Mapping[str, tuple[str, str]]) -> None:
    """Apply a gate's row scales after the next product instead of before: scaling a row does not change its codes.

    This saves one pass over the widest tensor of a layer. `rows` has the codes and scales of each quantized tensor.
    """
    scales = {scale for _, scale in rows.values()}
    for scaling in [node for node in graph.nodes if node.op_type == "Mul" and node.input[1] in scales]:
        gates = graph.readers(scaling.output[0])
        if len(gates) != 1 or gates[0].op_type != "Mul" or gates[0].output[0] not in rows:
            continue
        gated = gates[0].output[0]
        if {node.op_type for node in graph.readers(gated)} != {"Abs", "QuantizeLinear"}:
            continue
        later = [node for node in graph.readers(rows[gated][1]) if node.op_type == "Mul"]
        both = graph.new_name(BOTH_SCALES)
        graph.insert_before(later[0], [helper.make_node("Mul", [rows[gated][1], scaling.input[1]], [both])])
        for node in later:
            graph.set_input(node, 1, both)
        graph.redirect(scaling.output[0], scaling.input[0], gates)
        graph.remove(scaling)


def _tied_product(graph: EditedGraph, node: NodeProto, codes: str, out: str) -> list[NodeProto]:
    """The head over the embedding's own codes [vocabulary, width]: QGemm transposes, but wants two dimensions."""
    vocab_size, width = graph.weights[node.input[1]].shape
    one = graph.constant("one", np.array(1.0, dtype=np.float32))
    zero = graph.constant("zero_point", np.array(ZERO_POINT, dtype=np.uint8))
    zeros = graph.constant("weight_zeros", np.zeros(vocab_size, dtype=np.int8))
    flat_shape = graph.constant("flat_codes", np.array([-1, width], dtype=np.int64))
    last = graph.constant("vocabulary", np.array([vocab_size], dtype=np.int64))
    flat, product, outer, shape = (graph.new_name(stem) for stem in ("flat", "product", "outer", "logits_shape"))
    inputs = [flat, one, zero, *_add_int8(graph, node.input[1], is_table=True), zeros]
    return [
        helper.make_node("Reshape", [codes, flat_shape], [flat]),
        helper.make_node("QGemm", inputs, [product], domain=MICROSOFT, name=node.name, transB=1, alpha=1.0),
        helper.make_node("Shape", [codes], [outer], start=0, end=-1),
        helper.make_node("Concat", [outer, last], [shape], axis=0),
        helper.make_node("Reshape", [product, shape], [out]),
    ]


def _add_int8(
    graph: EditedGraph, name: str, *, is_table: bool, inputs: InputStatistics | None = None
) -> tuple[str, str]:
    """Add a weight's int8 codes and scales to the graph, unless they exist; returns their names."""
    stem = (name + TABLE if is_table else name) + INT8
    if stem not in graph.weights:
        weight = graph.weights[name].astype(np.float32)
        for key, value in round_channels(stem, weight, is_table=is_table, inputs=inputs).items():
            graph.add_learned(key, value)
    return stem, stem + SCALE


def _quantize_embedding(graph: EditedGraph) -> None:
    """Look tokens up in the table of the tied head, or in a separate int8 table."""
    lookup = embedding_node(graph)
    if lookup is None:
        return
    blocks = f"{lookup.input[0]}{TABLE}{BLOCKS}{HEAD_BITS}"
    if blocks in graph.weights:
        _look_up_blocks(graph, lookup, blocks)
    else:
        _look_up_rows(graph, lookup)
    graph.remove(lookup)


def _look_up_rows(graph: EditedGraph, lookup: NodeProto) -> None:
    table, table_scale = _add_int8(graph, lookup.input[0], is_table=True)
    codes, values, scale, column, axis = (
        graph.new_name(stem) for stem in ("token_codes", "token_values", "token_scale", "token_column", "axis")
    )
    graph.weights[axis] = np.array([-1], dtype=np.int64)
    graph.insert_before(
        lookup,
        [
            helper.make_node("Gather", [table, lookup.input[1]], [codes], axis=0),
            helper.make_node("Cast", [codes], [values], to=TensorProto.FLOAT),
            helper.make_node("Gather", [table_scale, lookup.input[1]], [scale], axis=0),
            helper.make_node("Unsqueeze", [scale, axis], [column]),
            helper.make_node("Mul", [values, column], [lookup.output[0]]),
        ],
    )


def _look_up_blocks(graph: EditedGraph, lookup: NodeProto, table: str) -> None:
    width = graph.weights[lookup.input[0]].shape[1]
    last = graph.constant("last_axis", np.array([-1], dtype=np.int64))
    zero = graph.constant("block_zero", np.array(ZERO_POINT, dtype=np.float32))
    row = graph.constant("block_row", np.array([0, 0, -1], dtype=np.int64))
    start, end = (graph.constant("row_end", np.array([place], dtype=np.int64)) for place in (0, width))
    codes, values, centered, scale, column, blocks, padded = (graph.new_name(f"token_block_{i}") for i in range(7))
    graph.insert_before(
        lookup,
        [
            helper.make_node("Gather", [table, lookup.input[1]], [codes], axis=0),
            helper.make_node("Cast", [codes], [values], to=TensorProto.FLOAT),
            helper.make_node("Sub", [values, zero], [centered]),
            helper.make_node("Gather", [table + SCALE, lookup.input[1]], [scale], axis=0),
            helper.make_node("Unsqueeze", [scale, last], [column]),
            helper.make_node("Mul", [centered, column], [blocks]),
            helper.make_node("Reshape", [blocks, row], [padded]),
            helper.make_node("Slice", [padded, start, end, last], [lookup.output[0]]),
        ],
    )


def quantize_blocks(graph: EditedGraph, bits: int, inputs: Inputs) -> None:
    """Quantize all matrix products with constant weights block by block; the head and the embedding to 8 bits.

    A tied head reads the embedding's blocks. In 4 bits it would cost one point of agreement with fp32 and save an
    eighth of the bytes of SmolLM2-135M (docs/LOG.md).
    """
    for node in _products(graph):
        _blocks_product(graph, node, HEAD_BITS if _is_head(node) else bits, inputs.of(node.input[0]))
    _quantize_embedding(graph)
    graph.prune()


def _blocks_product(graph: EditedGraph, node: NodeProto, bits: int, inputs: InputStatistics | None) -> None:
    weight = graph.weights[node.input[1]].astype(np.float32)
    packed = pack_blocks(weight.T if _is_tied(node) else weight, bits, inputs)
    tensors = packed.tensors(f"{node.input[1]}{TABLE if _is_tied(node) else ''}{BLOCKS}{bits}")
    for key, value in tensors.items():
        graph.add_learned(key, value)
    product = helper.make_node(
        "MatMulNBits",
        [node.input[0], *tensors],
        [node.output[0]],
        domain=MICROSOFT,
        name=node.name,
        K=packed.num_inputs,
        N=packed.num_outputs,
        bits=packed.bits,
        block_size=packed.block_size,
        accuracy_level=ACCURACY_LEVEL,
    )
    graph.insert_before(node, [product])
    graph.remove(node)
