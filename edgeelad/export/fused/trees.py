"""Write the attention of tree branches in two parts: over their shared context, and over each branch's own tokens.

GroupQueryAttention would compute scores of all branches over all columns, most of them masked. Here the branches of a
tree are multiplied with its context in one matrix product per key-value head, and each branch's keys and values are in
a window of its own; softmax is over both parts together. ScatterND fills the windows in place, from a graph input to a
graph output that the caller binds to the same memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import NodeProto, TensorProto, ValueInfoProto, helper

from edgeelad.engine.packed.names import (
    CONTEXT,
    GLOBAL_BIAS,
    LOCAL_BIAS,
    OWN,
    OWN_PRESENT,
    PAST,
    TREE_BIAS,
    TREE_INDEX,
    TREE_LOCAL_BIAS,
    TREE_SIZES_INPUT,
    TREE_WIDTHS,
    tree_name,
)
from edgeelad.export.fused.edit import MICROSOFT, EditedGraph, attribute

BIAS_SHAPE: list[int | str] = [1, "branches", 1, "columns"]


@dataclass(frozen=True, slots=True)
class _Heads:
    """Attention heads: `per_key` query heads share one of `keys` heads of keys and values, each of `size` numbers."""

    keys: int
    per_key: int
    size: int


class LayerWriter:
    """The nodes that replace one attention node.

    Attributes:
        graph: The graph that is being edited.
        node: The attention node.
        nodes: The new nodes, in order.
    """

    def __init__(self, graph: EditedGraph, node: NodeProto) -> None:
        """Start without nodes."""
        self.graph, self.node = graph, node
        self.nodes: list[NodeProto] = []

    def apply(self, op: str, inputs: list[str], **attributes: object) -> str:
        """Add a node with one output; returns the output's name."""
        output = self.graph.new_name(op.lower())
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def split(self, tensor: str, sizes: str, axis: int, count: int) -> list[str]:
        """Add a Split into `count` parts, whose sizes are in the tensor `sizes`; returns their names."""
        names = [self.graph.new_name("part") for _ in range(count)]
        self.nodes.append(helper.make_node("Split", [tensor, sizes], names, axis=axis))
        return names

    def reshape(self, tensor: str, *shape: int) -> str:
        """Add a Reshape; -1 infers a dimension, 0 keeps it."""
        constant = self.graph.constant("tree_shape", np.array(shape, dtype=np.int64))
        return self.apply("Reshape", [tensor, constant])


def declare_trees(graph: EditedGraph, num_trees: int) -> None:
    """Add the inputs and outputs of `num_trees` trees."""
    past = {value.name: value for value in graph.inputs if value.name.startswith(PAST)}
    names = {value.name for value in graph.inputs}
    biases = [own for slot, own in ((GLOBAL_BIAS, TREE_BIAS), (LOCAL_BIAS, TREE_LOCAL_BIAS)) if slot in names]
    for tree in range(1, num_trees + 1):
        graph.inputs.extend(_inputs(tree))
        graph.inputs.extend(_float(tree_name(tree, name), BIAS_SHAPE) for name in biases)
        for name, value in past.items():
            keys, size = (value.type.tensor_type.shape.dim[axis].dim_value for axis in (1, 3))
            stem = name.removeprefix(PAST)
            window = [keys, "branches", "window", size]
            graph.inputs.append(_float(tree_name(tree, CONTEXT + stem), [1, keys, "context", size]))
            graph.inputs.append(_float(tree_name(tree, OWN + stem), window))
            graph.outputs.append(_float(tree_name(tree, OWN_PRESENT + stem), window))
    graph.inputs.append(helper.make_tensor_value_info(TREE_SIZES_INPUT, TensorProto.INT64, [num_trees]))


def attend_trees(writer: LayerWriter, parts: list[str], num_trees: int) -> str:
    """Write one layer's attention of all trees' branches.

    Args:
        writer: Takes the nodes.
        parts: The branches' query, key and value, [1, branches, heads · size], tree after tree.
        num_trees: Maximum number of trees; their inputs are declared.

    Returns:
        The output's name, [1, branches, heads · size].
    """
    heads = _heads(writer)
    group = heads.per_key * heads.size
    query = writer.reshape(parts[0], -1, heads.keys, heads.per_key, heads.size)
    split = [writer.split(writer.apply("Transpose", [query], perm=[1, 0, 2, 3]), TREE_SIZES_INPUT, 1, num_trees)]
    for part in parts[1:]:
        turned = writer.apply("Transpose", [writer.reshape(part, -1, heads.keys, heads.size)], perm=[1, 0, 2])
        split.append(writer.split(turned, TREE_SIZES_INPUT, 1, num_trees))
    attended = [_attend_tree(writer, tree, list(own), heads) for tree, own in enumerate(zip(*split, strict=True), 1)]
    grouped = writer.reshape(writer.apply("Concat", attended, axis=1), heads.keys, -1, group)
    return writer.reshape(writer.apply("Transpose", [grouped], perm=[1, 0, 2]), 1, -1, heads.keys * group)


def _heads(writer: LayerWriter) -> _Heads:
    node = writer.node
    num_heads, keys = int(attribute(node, "num_heads", 0)), int(attribute(node, "kv_num_heads", 0))
    past = next(value for value in writer.graph.inputs if value.name == node.input[3])
    return _Heads(keys, num_heads // keys, past.type.tensor_type.shape.dim[3].dim_value)


def _attend_tree(writer: LayerWriter, tree: int, parts: list[str], heads: _Heads) -> str:
    """Write one tree's attention in one layer; returns [keys, branches, per_key, size]."""
    query, *fresh = parts
    bias_name = TREE_LOCAL_BIAS if LOCAL_BIAS in writer.node.input else TREE_BIAS
    index, bias, widths = (tree_name(tree, name) for name in (TREE_INDEX, bias_name, TREE_WIDTHS))
    stems = [name.removeprefix(PAST) for name in writer.node.input[3:5]]
    context = [tree_name(tree, CONTEXT + stem) for stem in stems]
    own = [tree_name(tree, OWN_PRESENT + stem) for stem in stems]
    for stem, new, filled in zip(stems, fresh, own, strict=True):
        writer.nodes.append(helper.make_node("ScatterND", [tree_name(tree, OWN + stem), index, new], [filled]))
    scale = attribute(writer.node, "scale", 0.0) or heads.size**-0.5
    product: dict[str, object] = {"domain": MICROSOFT, "transB": 1, "alpha": scale}
    # the context takes all rows of a head in one product, the windows those of each branch
    rows = writer.reshape(query, 1, heads.keys, -1, heads.size)
    scores = writer.reshape(
        writer.apply("FusedMatMul", [rows, context[0]], **product), heads.keys, -1, heads.per_key, 0
    )
    scores = writer.apply("Concat", [scores, writer.apply("FusedMatMul", [query, own[0]], **product)], axis=3)
    if softcap := attribute(writer.node, "softcap", 0.0):
        cap = writer.graph.constant("attention_softcap", np.array(softcap, dtype=np.float32))
        scores = writer.apply("Mul", [writer.apply("Tanh", [writer.apply("Div", [scores, cap])]), cap])
    probs = writer.apply("Softmax", [writer.apply("Add", [scores, bias])], axis=-1)
    shared_probs, own_probs = writer.split(probs, widths, 3, 2)
    shared = writer.apply("MatMul", [writer.reshape(shared_probs, 1, heads.keys, -1, 0), context[1]])
    shared = writer.reshape(shared, heads.keys, -1, heads.per_key, heads.size)
    return writer.apply("Add", [shared, writer.apply("MatMul", [own_probs, own[1]])])


def _inputs(tree: int) -> list[ValueInfoProto]:
    return [
        helper.make_tensor_value_info(tree_name(tree, TREE_INDEX), TensorProto.INT64, ["keys", "branches", 3]),
        helper.make_tensor_value_info(tree_name(tree, TREE_WIDTHS), TensorProto.INT64, [2]),
    ]


def _float(name: str, shape: list[int | str]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
