"""Derive the engine's graphs from a student's standard graph.

The standard graph keeps the names that Optimum and transformers.js expect (`input_ids`, `attention_mask`,
`position_ids`, `past_key_values.*`; `logits`, `present.*`). The engine's has the inputs of GroupQueryAttention
(`seqlens_k`, `total_sequence_length`, `attention_bias`), computes the head only for the rows `logit_index`, and returns
the `num_top` largest logits, their token ids, the largest probability and the mean logit: [rows, k] leaves ONNX Runtime
instead of [rows, vocabulary]. Log-probabilities and entropies are still exact: log Σ exp x = max x − log max p, and
H = log Σ exp x − Σ p x. The reader computes the logarithm, because the bits of onnxruntime's Log depend on the other
rows.
"""

from __future__ import annotations

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper

from edgeelad.engine.packed.names import (
    GLOBAL_BIAS,
    LOCAL_BIAS,
    OUTPUTS,
    PAST,
    PRESENT,
    SIZES_INPUT,
    SLOT_INPUTS,
    TOKEN_INPUTS,
    lane_name,
)
from edgeelad.errors import ModelError
from edgeelad.export.fused.edit import WINDOW_ATTRIBUTE, EditedGraph
from edgeelad.export.fused.passes import SOFTCAP_KEY, softcap_nodes
from edgeelad.export.fused.straighten import attention_nodes
from edgeelad.export.fused.trees import LayerWriter, attend_trees, declare_trees

SLOT_POSITIONS = (5, 6, 10)  # of seqlens_k, total_sequence_length and attention_bias in GroupQueryAttention
BIAS_SHAPE = ["bias_batch", 1, "sequence", "total"]
# where a norm's weight stands among its inputs
NORM_WEIGHT = {
    "SimplifiedLayerNormalization": 1,
    "LayerNormalization": 1,
    "SkipSimplifiedLayerNormalization": 2,
    "SkipLayerNormalization": 2,
}


def engine_variant(graph: EditedGraph) -> EditedGraph:
    """Derive the engine's graph; the standard one is unchanged."""
    engine = graph.copy()
    attention = attention_nodes(engine)
    biases = {}  # in the order of the layers
    for node in attention:
        bias = LOCAL_BIAS if _drop_window(node) else GLOBAL_BIAS
        biases[bias] = helper.make_tensor_value_info(bias, TensorProto.FLOAT, BIAS_SHAPE)
        for position, name in zip(SLOT_POSITIONS, (*SLOT_INPUTS, bias), strict=True):
            engine.set_input(node, position, name)
    _shrink_head(engine)
    past = [value for value in engine.inputs if value.name.startswith(PAST)]
    engine.inputs = [*_engine_inputs(), *biases.values(), *past]
    engine.outputs = [*_engine_outputs(), *(value for value in engine.outputs if value.name.startswith(PRESENT))]
    engine.prune()
    return engine


def lanes_variant(engine: EditedGraph, num_lanes: int, num_trees: int) -> EditedGraph:
    """Derive the engine's graph with lanes: rows of a batch, several packed sequences and several trees per run.

    All tokens are in one sequence, [1, tokens]. Each attention is split into one node for the batch's rows (slot 0),
    one per lane, with its own keys, values and bias, and the attention of tree branches (`trees`). All other nodes
    process all tokens at once, so weights are read once.
    """
    lanes = engine.copy()
    slots = range(num_lanes + 1)
    of_slots = (*SLOT_INPUTS, GLOBAL_BIAS, LOCAL_BIAS)
    own = [value for value in lanes.inputs if value.name in of_slots or value.name.startswith(PAST)]
    present = [value for value in lanes.outputs if value.name.startswith(PRESENT)]
    declare_trees(lanes, num_trees)
    for node in attention_nodes(lanes):
        writer = LayerWriter(lanes, node)
        parts = [writer.split(tensor, SIZES_INPUT, 1, num_lanes + 2) for tensor in node.input[:3]]
        outputs = [_attend_slot(writer, slot, [names[slot] for names in parts]) for slot in slots]
        outputs.append(attend_trees(writer, [names[-1] for names in parts], num_trees))
        writer.nodes.append(helper.make_node("Concat", outputs, [node.output[0]], axis=1))
        lanes.insert_before(node, writer.nodes)
        lanes.remove(node)
    lanes.inputs.append(helper.make_tensor_value_info(SIZES_INPUT, TensorProto.INT64, [num_lanes + 2]))
    lanes.inputs.extend(_renamed(value, lane_name(slot, value.name)) for slot in slots[1:] for value in own)
    lanes.outputs.extend(_renamed(value, lane_name(slot, value.name)) for slot in slots[1:] for value in present)
    return lanes


def _drop_window(node: NodeProto) -> bool:
    """Remove the window of an attention node, which counts columns: in a packed tree, positions count.

    Returns:
        Whether it had one.
    """
    for entry in node.attribute:
        if entry.name == WINDOW_ATTRIBUTE:
            node.attribute.remove(entry)
            return True
    return False


def _attend_slot(writer: LayerWriter, slot: int, parts: list[str]) -> str:
    """Write the attention of one slot over its own keys and values; returns [1, tokens, width]."""
    swap = {"perm": [1, 0, 2]}  # [1, rows, width] and [rows, 1, width] are the same numbers in the same order
    attend = NodeProto()
    attend.CopyFrom(writer.node)
    attend.name = f"{writer.node.name}/{slot}"
    attend.input[:3] = parts if slot else [writer.apply("Transpose", [part], **swap) for part in parts]
    for position in (3, 4, *SLOT_POSITIONS):
        attend.input[position] = lane_name(slot, writer.node.input[position])
    attend.output[0] = writer.graph.new_name("attended")
    for position in (1, 2):
        attend.output[position] = lane_name(slot, writer.node.output[position])
    writer.nodes.append(attend)
    return attend.output[0] if slot else writer.apply("Transpose", [attend.output[0]], **swap)


def _renamed(value: ValueInfoProto, name: str) -> ValueInfoProto:
    copy = ValueInfoProto()
    copy.CopyFrom(value)
    copy.name = name
    return copy


def _shrink_head(engine: EditedGraph) -> None:
    """Gather the wanted rows before the head; end in their largest logits, log-sum-exp and entropy."""
    norm = _final_norm(engine)
    hidden = norm.output[0]
    width = engine.weights[norm.input[NORM_WEIGHT[norm.op_type]]].shape[0]
    rows_shape = engine.constant("rows_shape", np.array([-1, width], dtype=np.int64))
    batch_shape = engine.constant("batch_shape", np.array([1, -1, width], dtype=np.int64))
    head_nodes = engine.readers(hidden)
    engine.redirect(hidden, "wanted_hidden", head_nodes)
    engine.insert_before(
        head_nodes[0],
        [
            helper.make_node("Reshape", [hidden, rows_shape], ["hidden_rows"]),
            helper.make_node("Gather", ["hidden_rows", "logit_index"], ["wanted_rows"], axis=0),
            helper.make_node("Reshape", ["wanted_rows", batch_shape], ["wanted_hidden"]),
        ],
    )
    _summarize_rows(engine)


def _summarize_rows(engine: EditedGraph) -> None:
    """Compute the outputs row by row from the logits: a row fits into a core's cache, all rows together do not."""
    end = engine.producer("logits")
    assert end is not None, "a graph without logits was cleaned"
    is_scaled = end.op_type == "Mul"  # int8: the product, and the row's scale, which is multiplied row by row as well
    if is_scaled:
        engine.remove(end)
    else:
        end.output[0] = "batch_logits"
    first = engine.constant("first_axis", np.array([0], dtype=np.int64))
    rows = ["rows_logits", "rows_scale"] if is_scaled else ["rows_logits"]
    for source, name in zip(end.input if is_scaled else ["batch_logits"], rows, strict=True):
        engine.append(helper.make_node("Squeeze", [source, first], [name]))
    body = _row_summary(engine, is_scaled=is_scaled)
    engine.append(helper.make_node("Scan", rows, list(OUTPUTS), body=body, num_scan_inputs=len(rows)))


def _row_summary(engine: EditedGraph, *, is_scaled: bool) -> GraphProto:
    """The largest logits of one row and their ids, the largest probability, the mean logit."""
    last = engine.constant("last_axis", np.array([-1], dtype=np.int64))
    inputs = [helper.make_tensor_value_info("row_logits", TensorProto.FLOAT, ["vocabulary"])]
    nodes: list[NodeProto] = []
    logits = "row_logits"
    if is_scaled:
        inputs.append(helper.make_tensor_value_info("row_scale", TensorProto.FLOAT, [1]))
        logits = "row_scaled"
        nodes.append(helper.make_node("Mul", ["row_logits", "row_scale"], [logits]))
    if SOFTCAP_KEY in engine.metadata:
        nodes += softcap_nodes(engine, logits, "row_capped")
        logits = "row_capped"
    top, ids, prob, mean = (f"row_{name}" for name in OUTPUTS)
    nodes += [
        helper.make_node("TopK", [logits, "num_top"], [top, ids], axis=-1, largest=1, sorted=1),
        helper.make_node("Softmax", [logits], ["row_probs"], axis=-1),
        helper.make_node("ReduceMax", ["row_probs", last], [prob], keepdims=0),
        helper.make_node("Mul", ["row_probs", logits], ["row_weighted"]),
        helper.make_node("ReduceSum", ["row_weighted", last], [mean], keepdims=0),
    ]
    kinds = zip((top, ids, prob, mean), _engine_outputs(), strict=True)
    outputs = [
        helper.make_tensor_value_info(name, value.type.tensor_type.elem_type, ["top"] if name in (top, ids) else [])
        for name, value in kinds
    ]
    return helper.make_graph(nodes, "row_summary", inputs, outputs)


def _final_norm(graph: EditedGraph) -> NodeProto:
    """The norm whose output the head reads: the last one on the way to the logits."""
    tensor = "logits"
    while True:
        node = graph.producer(tensor)
        if node is None:
            raise ModelError("the traced graph has no norm before its head; export the standard graph instead")
        if node.op_type in NORM_WEIGHT:
            return node
        tensor = node.input[0]


def _engine_inputs() -> list[ValueInfoProto]:
    shapes: dict[str, tuple[int, list[str | int]]] = {
        "input_ids": (TensorProto.INT64, ["batch", "sequence"]),
        "position_ids": (TensorProto.INT64, ["batch", "sequence"]),
        "seqlens_k": (TensorProto.INT32, ["batch"]),
        "total_sequence_length": (TensorProto.INT32, [1]),
        "logit_index": (TensorProto.INT64, ["rows"]),
        "num_top": (TensorProto.INT64, [1]),
    }
    return [helper.make_tensor_value_info(name, *shapes[name]) for name in (*TOKEN_INPUTS, *SLOT_INPUTS)]


def _engine_outputs() -> list[ValueInfoProto]:
    shapes: dict[str, tuple[int, list[str | int]]] = {
        "top_logits": (TensorProto.FLOAT, ["rows", "top"]),
        "top_ids": (TensorProto.INT64, ["rows", "top"]),
        "top_prob": (TensorProto.FLOAT, ["rows"]),
        "mean_logit": (TensorProto.FLOAT, ["rows"]),
    }
    return [helper.make_tensor_value_info(name, *shapes[name]) for name in OUTPUTS]
