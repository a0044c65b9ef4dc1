"""Connect attention and rotary embedding to their projections: drop reshapes that the fused operators do not need.

For `view(...).transpose(1, 2)` the tracer records a dozen nodes of shape arithmetic per layer that change nothing:
GroupQueryAttention and RotaryEmbedding take [batch, sequence, heads · size] as the projections return it. A
pattern that is not recognized stays as traced: correct, but slower.
"""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, helper

from edgeelad.export.fused.edit import EditedGraph, attribute

LAYOUT_OPS = ("Reshape", "Transpose")
NORM_OPS = {
    "SimplifiedLayerNormalization": "SkipSimplifiedLayerNormalization",
    "LayerNormalization": "SkipLayerNormalization",
}


def attention_nodes(graph: EditedGraph) -> list[NodeProto]:
    """The GroupQueryAttention nodes, one per layer."""
    return [node for node in graph.nodes if node.op_type == "GroupQueryAttention"]


def straighten(graph: EditedGraph) -> None:
    """Make attention and rotary embedding read the projections directly, and the output projection read attention.

    GPT-2 reshapes its ids and its last hidden states as well, without changing them.
    """
    for node in list(graph.nodes):
        if node.op_type == "Gather" and before_layout(graph, node.input[1]) in ("input_ids", "position_ids"):
            graph.set_input(node, 1, before_layout(graph, node.input[1]))
        elif node.op_type == "MatMul" and node.output[0] == "logits":
            graph.set_input(node, 0, before_layout(graph, node.input[0]))
        elif node.op_type == "RotaryEmbedding":
            graph.set_input(node, 0, _flat_source(graph, node, node.input[0]))
    for node in attention_nodes(graph):
        for position in range(3):
            graph.set_input(node, position, _flat_source(graph, node, node.input[position]))
        tensor = node.output[0]
        while all(reader.op_type in (*LAYOUT_OPS, "Shape") for reader in graph.readers(tensor)):
            tensor = next(reader for reader in graph.readers(tensor) if reader.op_type in LAYOUT_OPS).output[0]
        graph.redirect(tensor, node.output[0])


def _flat_source(graph: EditedGraph, reader: NodeProto, tensor: str) -> str:
    """The [batch, sequence, width] tensor that `tensor` is a view of; `tensor` itself if there is none."""
    path = _layout_path(graph, tensor)
    source = path[-1].input[0] if path else tensor
    if not path or not _has_heads(graph, source):
        return source
    # the heads have a dimension of their own, after the sequence's or, if the path moves it, before
    is_moved = bool(sum(node.op_type == "Transpose" for node in path) % 2)
    if not _norm_heads(graph, source) and is_moved and not _split_before_transpose(graph, reader, source):
        return tensor
    together = graph.constant("heads_together", np.array([0, 0, -1], dtype=np.int64))
    flat = graph.new_name("flat")
    graph.insert_before(reader, [helper.make_node("Reshape", [source, together], [flat])])
    return flat


def _has_heads(graph: EditedGraph, tensor: str) -> bool:
    """Whether a tensor has a dimension for the heads: on its way from the projection it was reshaped."""
    node = graph.producer(tensor)
    while node is not None and node.op_type != "MatMul":
        if node.op_type in LAYOUT_OPS:
            return True
        node = next((graph.producer(name) for name in node.input if name not in graph.weights), None)
    return False


def _norm_heads(graph: EditedGraph, tensor: str) -> bool:
    """Let a norm over each head, which needs the heads in a dimension of their own, read the projection directly."""
    norm = graph.producer(tensor)
    if norm is None or norm.op_type not in NORM_OPS:
        return False
    size = int(graph.weights[norm.input[1]].shape[0])
    apart = graph.constant("heads_apart", np.array([0, 0, -1, size], dtype=np.int64))
    heads = graph.new_name("heads")
    origin = before_layout(graph, norm.input[0])
    graph.insert_before(norm, [helper.make_node("Reshape", [origin, apart], [heads])])
    graph.set_input(norm, 0, heads)
    return True


def _split_before_transpose(graph: EditedGraph, reader: NodeProto, tensor: str) -> bool:
    """Split the heads' query, key and value (GPT-NeoX) before the sequence's dimension is moved, instead of after."""
    split = graph.producer(tensor)
    if split is None or split.op_type != "Split" or attribute(split, "axis", 0) not in (-1, 3):
        return False
    path = _layout_path(graph, split.input[0])
    if [node.op_type for node in path] == ["Transpose", "Reshape"]:
        num_heads = int(attribute(reader, "num_heads", 0))
        apart = graph.constant("heads_first", np.array([0, 0, num_heads, -1], dtype=np.int64))
        heads = graph.new_name("heads")
        graph.insert_before(split, [helper.make_node("Reshape", [path[-1].input[0], apart], [heads])])
        graph.set_input(split, 0, heads)
        return True
    return [node.op_type for node in path] == ["Reshape"]  # it was moved for another reader


def join_slices(graph: EditedGraph) -> None:
    """Read a tensor instead of its two parts, concatenated again: a rest of partial rotary embedding (StableLM)."""
    for node in [node for node in graph.nodes if node.op_type == "Concat" and len(node.input) == 2]:
        first, second = (graph.producer(tensor) for tensor in node.input)
        if first is None or second is None or {first.op_type, second.op_type} != {"Slice"}:
            continue
        ranges = [[graph.weights.get(name) for name in part.input[1:]] for part in (first, second)]
        if first.input[0] != second.input[0] or any(value is None for values in ranges for value in values):
            continue
        (start, middle, *first_rest), (next_start, end, *second_rest) = (
            [int(value.reshape(-1)[0]) for value in values if value is not None] for values in ranges
        )
        if start == 0 and middle == next_start and end >= np.iinfo(np.int32).max and first_rest == second_rest:
            graph.redirect(node.output[0], first.input[0])


def _layout_path(graph: EditedGraph, tensor: str) -> list[NodeProto]:
    """The layout operators that `tensor` went through last, backwards."""
    path: list[NodeProto] = []
    node = graph.producer(tensor)
    while node is not None and node.op_type in LAYOUT_OPS:
        path.append(node)
        node = graph.producer(node.input[0])
    return path


def before_layout(graph: EditedGraph, tensor: str) -> str:
    """The tensor that `tensor` is a reshaped or transposed form of; itself if it is none."""
    path = _layout_path(graph, tensor)
    return path[-1].input[0] if path else tensor
