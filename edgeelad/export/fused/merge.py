"""Merge products of one input, as query, key and value or gate and up: one product, whose outputs are then split.

Outputs whose width is a multiple of 16 keep their bits. A step of one token runs fewer operators, which its threads
begin and end together.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from onnx import NodeProto, helper

from edgeelad.export.fused.edit import MICROSOFT, EditedGraph, attribute

SHARED_ATTRIBUTES = ("K", "bits", "block_size", "accuracy_level")


def merge_products(graph: EditedGraph) -> None:
    """Merge every group of MatMulNBits nodes that read the same tensor in the same format."""
    groups: dict[tuple[object, ...], list[NodeProto]] = defaultdict(list)
    for node in graph.nodes:
        if node.op_type == "MatMulNBits":
            shared = tuple(int(attribute(node, name, 0)) for name in SHARED_ATTRIBUTES)
            groups[(node.input[0], len(node.input), *shared)].append(node)
    for group in groups.values():
        if len(group) > 1:
            _merge(graph, group)
    graph.prune()


def _merge(graph: EditedGraph, group: list[NodeProto]) -> None:
    first = group[0]
    inputs = [first.input[0]]
    for names in zip(*(node.input[1:] for node in group), strict=True):
        name = "|".join(names)
        graph.add_learned(name, np.concatenate([graph.weights[one] for one in names]))  # outputs come first
        inputs.append(name)
    sizes = [int(attribute(node, "N", 0)) for node in group]
    kept = {name: int(attribute(first, name, 0)) for name in SHARED_ATTRIBUTES}
    merged = graph.new_name("merged")
    split = graph.constant("output_sizes", np.array(sizes, dtype=np.int64))
    outputs = [node.output[0] for node in group]
    nodes = [
        helper.make_node("MatMulNBits", inputs, [merged], domain=MICROSOFT, name=first.name, N=sum(sizes), **kept),
        helper.make_node("Split", [merged, split], outputs, axis=-1),
    ]
    graph.insert_before(first, nodes)
    for node in group:
        graph.remove(node)
