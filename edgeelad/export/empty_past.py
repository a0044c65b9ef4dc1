"""Let loaders that guess the shape of a KV cache begin with an empty one of any shape.

optimum-onnx 0.1.0 makes the first, empty `past_key_values` by rules that know some families: others' head size is
hidden size / heads to it, and they have as many key-value heads as heads. For Qwen3, Phi-4-mini, OLMo-2 or Gemma-2 that
may be wrong, and ONNX Runtime refused the inputs. An empty array has no numbers, so a Reshape makes it right; arrays of
the right shape pass unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, ValueInfoProto, helper

from edgeelad.engine.shape import CacheShape, cache_shape
from edgeelad.export.fused.edit import EditedGraph

PAST = "past_key_values"
# families of which optimum-onnx 0.1.0 reads num_key_value_heads, and of which it reads head_dim
KNOWN_HEADS = frozenset(
    {"arcee", "gemma", "gemma3_text", "granite", "llama", "mistral", "qwen2", "qwen3", "smollm3"}
    | {"cohere", "falcon", "glm", "gpt_bigcode", "helium", "nemotron", "stablelm"}
)
KNOWN_HEAD_DIM = frozenset({"gemma", "gemma3_text", "nemotron"})


def is_guessed(config: Mapping[str, Any]) -> bool:
    """Whether optimum-onnx guesses the shape of this student's KV cache wrongly."""
    shape = cache_shape(config)
    if shape is None or config.get("hidden_size") is None:
        return False
    kind, num_heads = config.get("model_type"), config["num_attention_heads"]
    guess = CacheShape(
        shape.num_layers,
        shape.num_heads if kind in KNOWN_HEADS else num_heads,
        shape.head_dim if kind in KNOWN_HEAD_DIM else config["hidden_size"] // num_heads,
    )
    return guess != shape


def reshape_past(graph: EditedGraph) -> None:
    """Reshape each past input to the shape that it declares; only the present outputs declare it afterwards."""
    first = graph.nodes[0]
    targets: dict[tuple[int, int], str] = {}
    for value in [value for value in graph.inputs if value.name.startswith(PAST)]:
        rows, heads, length, size = value.type.tensor_type.shape.dim
        key = (heads.dim_value, size.dim_value)
        shaped = f"{value.name}.shaped"
        graph.redirect(value.name, shaped)
        if key not in targets:
            targets[key] = graph.new_name("past_shape")
            graph.insert_before(first, _shape_nodes(graph, value.name, key, targets[key]))
        inputs = [value.name, targets[key]]
        graph.insert_before(first, [helper.make_node("Reshape", inputs, [shaped], name=shaped, allowzero=1)])
        _declare(graph.inputs, value.name, [rows.dim_param, "num_key_value_heads", length.dim_param, "head_dim"])
        present = value.name.replace(PAST, "present")
        _declare(graph.outputs, present, [rows.dim_param, key[0], f"{length.dim_param} + sequence_length", key[1]])


def restore_past(graph: EditedGraph) -> bool:
    """Undo `reshape_past`; False if there is nothing to undo."""
    shaped = {value.name: graph.producer(f"{value.name}.shaped") for value in graph.inputs}
    presents = {value.name: value.type.tensor_type.shape.dim for value in graph.outputs}
    for value in list(graph.inputs):
        node = shaped[value.name]
        if node is None:
            continue
        graph.redirect(node.output[0], value.name)
        graph.remove(node)
        rows, _, length, _ = value.type.tensor_type.shape.dim
        _, heads, _, size = presents[value.name.replace(PAST, "present")]
        _declare(graph.inputs, value.name, [rows.dim_param, heads.dim_value, length.dim_param, size.dim_value])
    is_undone = any(shaped.values())
    if is_undone:
        graph.prune()
    return is_undone


def _shape_nodes(graph: EditedGraph, past: str, key: tuple[int, int], target: str) -> list[NodeProto]:
    """The shape of a past input: its rows and length as they come, heads and head size as they must be."""
    rows, length = graph.new_name("past_rows"), graph.new_name("past_length")
    sizes = [graph.constant("past_size", np.array([size], np.int64)) for size in key]
    return [
        helper.make_node("Shape", [past], [rows], name=rows, start=0, end=1),
        helper.make_node("Shape", [past], [length], name=length, start=2, end=3),
        helper.make_node("Concat", [rows, sizes[0], length, sizes[1]], [target], name=target, axis=0),
    ]


def _declare(values: list[ValueInfoProto], name: str, dims: list[int | str]) -> None:
    index = next(index for index, value in enumerate(values) if value.name == name)
    values[index] = helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
