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

from edgeelad.engine.packed_graph import INPUTS, OUTPUTS
from edgeelad.errors import ModelError
from edgeelad.export.graph_edit import EditedGraph
from edgeelad.export.graph_passes import attention_nodes

SEQLENS, TOTAL, BIAS = 5, 6, 10  # positions among GroupQueryAttention's inputs
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
    for position, name in ((SEQLENS, "seqlens_k"), (TOTAL, "total_sequence_length"), (BIAS, "attention_bias")):
        for node in attention:
            engine.set_input(node, position, name)
    _shrink_head(engine)
    past = [value for value in engine.inputs if value.name.startswith("past_key_values.")]
    engine.inputs = [*_engine_inputs(), *past]
    engine.outputs = [*_engine_outputs(), *(value for value in engine.outputs if value.name.startswith("present."))]
    engine.prune()
    return engine


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
    return [helper.make_tensor_value_info(name, *shapes[name]) for name in INPUTS]


def _engine_outputs() -> list[ValueInfoProto]:
    shapes: dict[str, tuple[int, list[str | int]]] = {
        "top_logits": (TensorProto.FLOAT, ["rows", "top"]),
        "top_ids": (TensorProto.INT64, ["rows", "top"]),
        "top_prob": (TensorProto.FLOAT, ["rows"]),
        "mean_logit": (TensorProto.FLOAT, ["rows"]),
    }
    return [helper.make_tensor_value_info(name, *shapes[name]) for name in OUTPUTS]
