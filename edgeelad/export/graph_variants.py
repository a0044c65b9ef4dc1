"""The two graphs of a student: the standard one, and the engine's.

The standard graph keeps the names that Optimum and transformers.js expect (`input_ids`, `attention_mask`,
`position_ids`, `past_key_values.*`; `logits`, `present.*`). The engine's reads what GroupQueryAttention reads
(`seqlens_k`, `total_sequence_length`, `attention_bias`), computes the head only for the rows `logit_index`, and ends
in the `num_top` largest logits, their token ids, the largest probability and the mean logit: so [rows, k] leaves ONNX
Runtime, not [rows, vocabulary], and log-probabilities and entropies are exact all the same: log Σ exp x =
max x − log max p, and H = log Σ exp x − Σ p x. The logarithm is left to the reader: onnxruntime's Log gives a row
other bits beside other rows.
"""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, TensorProto, ValueInfoProto, helper

from edgeelad.engine.packed_graph import OUTPUTS, PAST, PRESENT, SIZES_INPUT, SLOT_INPUTS, TOKEN_INPUTS, lane_name
from edgeelad.errors import ModelError
from edgeelad.export.graph_edit import EditedGraph
from edgeelad.export.graph_passes import attention_nodes

SLOT_POSITIONS = (5, 6, 10)  # of seqlens_k, total_sequence_length and attention_bias in GroupQueryAttention
# where a norm's weight stands among its inputs
NORM_WEIGHT = {
    "SimplifiedLayerNormalization": 1,
    "LayerNormalization": 1,
    "SkipSimplifiedLayerNormalization": 2,
    "SkipLayerNormalization": 2,
}


def engine_variant(graph: EditedGraph) -> EditedGraph:
    """The engine's graph; the standard one is left as it is."""
    engine = graph.copy()
    attention = attention_nodes(engine)
    for position, name in zip(SLOT_POSITIONS, SLOT_INPUTS, strict=True):
        for node in attention:
            engine.set_input(node, position, name)
    _shrink_head(engine)
    past = [value for value in engine.inputs if value.name.startswith(PAST)]
    engine.inputs = [*_engine_inputs(), *past]
    engine.outputs = [*_engine_outputs(), *(value for value in engine.outputs if value.name.startswith(PRESENT))]
    engine.prune()
    return engine


def lanes_variant(engine: EditedGraph, num_lanes: int) -> EditedGraph:
    """The engine's graph with lanes: several packed sequences, and rows of a batch, in one run.

    All tokens lie in one sequence, [1, tokens]; each attention is split into one node for the batch's rows (slot 0) and
    one for each lane, with keys, values and bias of its own. All other nodes see all tokens at once, so weights are
    read once for all of them.
    """
    lanes = engine.copy()
    for node in attention_nodes(lanes):
        _split_attention(lanes, node, num_lanes)
    slots = range(1, num_lanes + 1)
    own = [value for value in lanes.inputs if value.name in SLOT_INPUTS or value.name.startswith(PAST)]
    present = [value for value in lanes.outputs if value.name.startswith(PRESENT)]
    lanes.inputs.append(helper.make_tensor_value_info(SIZES_INPUT, TensorProto.INT64, [num_lanes + 1]))
    lanes.inputs.extend(_renamed(value, lane_name(slot, value.name)) for slot in slots for value in own)
    lanes.outputs.extend(_renamed(value, lane_name(slot, value.name)) for slot in slots for value in present)
    return lanes


def _split_attention(lanes: EditedGraph, node: NodeProto, num_lanes: int) -> None:
    """Replace one attention by one a slot, over the slot's share of query, key and value."""
    slots = range(num_lanes + 1)
    parts: list[list[str]] = []
    new: list[NodeProto] = []
    for stem, tensor in zip(("query", "key", "value"), node.input[:3], strict=True):
        names = [lanes.new_name(stem) for _ in slots]
        new.append(helper.make_node("Split", [tensor, SIZES_INPUT], names, axis=1))
        parts.append(names)
    # [1, rows, width] and [rows, 1, width] are the same numbers in the same order
    swap = {"perm": [1, 0, 2]}
    for names in parts:
        names.append(lanes.new_name("row_part"))
        new.append(helper.make_node("Transpose", [names[0]], [names[-1]], **swap))
    outputs = [lanes.new_name("attended") for _ in slots]
    for slot in slots:
        attend = NodeProto()
        attend.CopyFrom(node)
        attend.name = f"{node.name}/{slot}"
        for position in range(3):
            attend.input[position] = parts[position][-1 if slot == 0 else slot]
        for position in (3, 4, *SLOT_POSITIONS):
            attend.input[position] = lane_name(slot, node.input[position])
        attend.output[0] = outputs[slot]
        for position in (1, 2):
            attend.output[position] = lane_name(slot, node.output[position])
        new.append(attend)
    rows = lanes.new_name("attended_rows")
    new.append(helper.make_node("Transpose", [outputs[0]], [rows], **swap))
    new.append(helper.make_node("Concat", [rows, *outputs[1:]], [node.output[0]], axis=1))
    lanes.insert_before(node, new)
    lanes.remove(node)


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
    first = engine.constant("first_axis", np.array([0], dtype=np.int64))
    end = engine.producer("logits")
    assert end is not None, "a graph without logits was cleaned"
    end.output[0] = "batch_logits"
    engine.append(helper.make_node("Squeeze", ["batch_logits", first], ["logits"]))
    last = engine.constant("last_axis", np.array([-1], dtype=np.int64))
    for node in (
        helper.make_node("TopK", ["logits", "num_top"], ["top_logits", "top_ids"], axis=-1, largest=1, sorted=1),
        helper.make_node("Softmax", ["logits"], ["probs"], axis=-1),
        helper.make_node("ReduceMax", ["probs", last], ["top_prob"], keepdims=0),
        helper.make_node("Mul", ["probs", "logits"], ["weighted_logits"]),
        helper.make_node("ReduceSum", ["weighted_logits", last], ["mean_logit"], keepdims=0),
    ):
        engine.append(node)


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
        "attention_bias": (TensorProto.FLOAT, ["bias_batch", 1, "sequence", "total"]),
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
