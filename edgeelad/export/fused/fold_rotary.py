"""Let attention rotate queries and keys itself: a step of one token then runs a fifth fewer operators.

GroupQueryAttention looks its cosines and sines up in tables for the whole context. Here the tables hold the run's
tokens alone, padded to the length that it asks for, and its `position_ids` count these tokens: any positions can be
computed, as those of a packed tree, and the graph holds no constants for the context. Queries, keys and values that are
split off one product are taken in one tensor. The results keep their bits.
"""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, TensorProto, helper

from edgeelad.export.fused.edit import EditedGraph, attribute
from edgeelad.export.fused.straighten import attention_nodes

# places among the inputs of GroupQueryAttention and RotaryEmbedding
PAST_KEY, TOTAL_LENGTH, TABLES, POSITION_IDS = 3, 6, (7, 8), 9
INDEX, ROTARY_TABLES = 1, (2, 3)


def fold_rotary(graph: EditedGraph) -> EditedGraph:
    """Fold the RotaryEmbedding nodes into an engine graph's attention where it can compute them; returns `graph`."""
    pads = ""
    padded: dict[str, str] = {}
    for node in attention_nodes(graph):
        query, key = (graph.producer(name) for name in node.input[:2])
        if query is None or key is None or not _can_fold(graph, node, query, key):
            continue
        pads = pads or _write_pads(graph, node, query.input[ROTARY_TABLES[0]])
        for place, source in zip(TABLES, ROTARY_TABLES, strict=True):
            table = query.input[source]
            if table not in padded:
                padded[table] = graph.new_name("padded_table")
                graph.insert_before(node, [helper.make_node("Pad", [table, pads], [padded[table]])])
            graph.set_input(node, place, padded[table])
        graph.set_input(node, POSITION_IDS, query.input[INDEX])
        graph.set_input(node, 0, query.input[0])
        graph.set_input(node, 1, key.input[0])
        attributes = {"do_rotary": 1, "rotary_interleaved": int(attribute(query, "interleaved", 0))}
        node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
        split = graph.producer(node.input[0])
        if split is not None and split.op_type == "Split" and list(split.output) == list(node.input[:3]):
            for place, tensor in enumerate((split.input[0], "", "")):
                graph.set_input(node, place, tensor)
    graph.prune()
    return graph


def _can_fold(graph: EditedGraph, node: NodeProto, query: NodeProto, key: NodeProto) -> bool:
    """Whether both are rotated alike, in sizes that attention rotates."""
    if {query.op_type, key.op_type} != {"RotaryEmbedding"} or query.input[INDEX:] != key.input[INDEX:]:
        return False
    past = next(value for value in graph.inputs if value.name == node.input[PAST_KEY])
    head_size = past.type.tensor_type.shape.dim[3].dim_value
    rotary_size = int(attribute(query, "rotary_embedding_dim", 0)) or head_size
    return head_size % 16 == 0 and rotary_size % 16 == 0


def _write_pads(graph: EditedGraph, node: NodeProto, table: str) -> str:
    """Compute what is missing from the rows of a table, one per token, to the longest row's total length."""
    zero = graph.constant("no_rows", np.zeros(1, dtype=np.int64))
    before = graph.constant("no_rows_before", np.zeros(2, dtype=np.int64))
    rows, total, difference, missing, pads = (
        graph.new_name(f"table_{stem}") for stem in ("rows", "total", "difference", "missing", "pads")
    )
    graph.insert_before(
        node,
        [
            helper.make_node("Shape", [table], [rows], start=0, end=1),
            helper.make_node("Cast", [node.input[TOTAL_LENGTH]], [total], to=TensorProto.INT64),
            helper.make_node("Sub", [total, rows], [difference]),
            helper.make_node("Max", [difference, zero], [missing]),
            helper.make_node("Concat", [before, missing, zero], [pads], axis=0),
        ],
    )
    return pads
