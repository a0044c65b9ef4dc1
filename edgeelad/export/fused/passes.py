"""Clean a traced graph: straighten it, fuse residual additions with norms, name the weights, tie the head.

Each pass edits the graph in place.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper

from edgeelad.engine.packed.names import VOCAB_SIZE_KEY
from edgeelad.engine.shape import WINDOW_KEY
from edgeelad.errors import ModelError
from edgeelad.export.fused.edit import MICROSOFT, WINDOW_ATTRIBUTE, EditedGraph, attribute
from edgeelad.export.fused.straighten import NORM_OPS, attention_nodes, before_layout, join_slices, straighten

Weight = NDArray[np.generic]
TRANSPOSED = ".T"
SOFTCAP_KEY = "edgeelad.softcap"
SHIFTED = ".plus1"  # the weight of a norm that multiplies by weight + 1


def clean(graph: EditedGraph, parameters: Mapping[str, Weight]) -> None:
    """Run all passes; `parameters` are the student's, by their names in torch."""
    note_window(graph)
    take_softcap(graph)
    scale_before_head(graph)
    join_slices(graph)
    straighten(graph)
    graph.prune()
    name_weights(graph, parameters)
    tie_head(graph)
    fuse_skip_norms(graph)
    graph.prune()
    graph.sort_weights()


def note_window(graph: EditedGraph) -> None:
    """Note the sliding window of the layers that have one in the graph's metadata.

    Raises:
        ModelError: They have different ones.
    """
    windows = {int(attribute(node, WINDOW_ATTRIBUTE, 0)) for node in attention_nodes(graph)} - {0}
    if len(windows) > 1:
        raise ModelError(f"sliding windows of {', '.join(map(str, sorted(windows)))} tokens in one student")
    for window in windows:
        graph.metadata[WINDOW_KEY] = str(window)


def take_softcap(graph: EditedGraph) -> None:
    """Take cap · tanh(logits / cap) off the end of the graph (Gemma 2) and note the cap in its metadata.

    `add_softcap` puts it back when the graph is written: until then, the graph ends in the head's product.
    """
    times = graph.producer("logits")
    tanh = graph.producer(times.input[0]) if times is not None and times.op_type == "Mul" else None
    divide = graph.producer(tanh.input[0]) if tanh is not None and tanh.op_type == "Tanh" else None
    if times is None or tanh is None or divide is None or divide.op_type != "Div":
        return
    cap = graph.weights.get(times.input[1])
    if cap is None or cap.size != 1 or not np.array_equal(cap, graph.weights.get(divide.input[1], np.nan)):
        return
    head = graph.producer(divide.input[0])
    assert head is not None, "logits are computed"
    for node in (times, tanh, divide):
        graph.remove(node)
    head.output[0] = "logits"
    graph.metadata[SOFTCAP_KEY] = str(float(cap))


def add_softcap(graph: EditedGraph) -> None:
    """End the graph in cap · tanh(logits / cap) if `take_softcap` took it."""
    if SOFTCAP_KEY not in graph.metadata:
        return
    end = graph.producer("logits")
    assert end is not None, "a graph without logits was cleaned"
    end.output[0] = "uncapped_logits"
    for node in softcap_nodes(graph, "uncapped_logits", "logits"):
        graph.append(node)


def softcap_nodes(graph: EditedGraph, logits: str, capped: str) -> list[NodeProto]:
    """The nodes that compute `capped` from `logits`."""
    cap = graph.constant("softcap", np.array(float(graph.metadata[SOFTCAP_KEY]), dtype=np.float32))
    return [
        helper.make_node("Div", [logits, cap], [f"{capped}_share"]),
        helper.make_node("Tanh", [f"{capped}_share"], [f"{capped}_tanh"]),
        helper.make_node("Mul", [f"{capped}_tanh", cap], [capped]),
    ]


def scale_before_head(graph: EditedGraph) -> None:
    """Move a constant factor of the logits to the head's input (Granite, Cohere): the graph ends in its product."""
    scale = graph.producer("logits")
    if scale is None or scale.op_type not in ("Div", "Mul"):
        return
    factor = next((name for name in scale.input if name in graph.weights and graph.weights[name].size == 1), None)
    head = graph.producer(next(name for name in scale.input if name != factor))
    if factor is None or head is None or head.op_type != "MatMul" or len(graph.readers(head.output[0])) > 1:
        return
    scaled = graph.new_name("scaled_hidden")
    node = helper.make_node(scale.op_type, [head.input[0], factor], [scaled], name=scale.name)
    graph.insert_before(head, [node])
    graph.set_input(head, 0, scaled)
    graph.remove(scale)
    head.output[0] = "logits"


def name_weights(graph: EditedGraph, parameters: Mapping[str, Weight]) -> None:
    """Name each weight after its parameter, with `.T` for a transpose.

    The exporter transposes the weights of linear layers and numbers them. With these names, `swap` can put another
    student's weights into the same graph.

    Raises:
        ModelError: A weight has the name of a parameter but other values.
    """
    for node in graph.nodes:
        if node.op_type != "MatMul" or node.input[1] not in graph.weights or node.input[1] in parameters:
            continue
        path = ".".join(node.name.strip("/").split("/")[:-1]) + ".weight"
        weight = graph.weights[node.input[1]]
        # transformers 5 has other names for some modules than for their saved weights (GPT-NeoX's head)
        names = [path] if path in parameters else list(parameters)
        path = next((name for name in names if _is_transposed(weight, parameters[name])), "")
        if not path:
            continue
        del graph.weights[node.input[1]]
        graph.add_learned(path + TRANSPOSED, weight)
        graph.set_input(node, 1, path + TRANSPOSED)
    for node in graph.nodes:
        if node.op_type in NORM_OPS and node.input[1] not in parameters:
            path = ".".join(node.name.strip("/").split("/")[:-1]) + ".weight"
            if path in parameters and np.array_equal(graph.weights[node.input[1]], parameters[path] + 1):
                graph.add_learned(path + SHIFTED, parameters[path] + 1)  # equal ones share their memory
                graph.set_input(node, 1, path + SHIFTED)
    _separate_weights(graph, parameters)
    for name in graph.weights.keys() & parameters.keys():
        if not np.array_equal(graph.weights[name], parameters[name]):
            raise ModelError(f"the traced graph changed the weight {name}; export the standard graph instead")
        graph.learned.add(name)


def _is_transposed(weight: Weight, parameter: Weight) -> bool:
    return weight.shape == parameter.shape[::-1] and np.array_equal(weight, parameter.T)


def _separate_weights(graph: EditedGraph, parameters: Mapping[str, Weight]) -> None:
    """Let each node read its own parameter: of equal ones (norms of ones, biases of zeros) the exporter keeps one."""
    for node in graph.nodes:
        path = ".".join(node.name.strip("/").split("/")[:-1])
        for position, name in enumerate(node.input):
            for own in (f"{path}.weight", f"{path}.bias"):
                known, parameter = graph.weights.get(name), parameters.get(own)
                if known is None or parameter is None or name.startswith(own) or known.shape != parameter.shape:
                    continue
                if np.array_equal(known, parameter):
                    graph.add_learned(own, parameter)
                    graph.set_input(node, position, own)


def head_node(graph: EditedGraph) -> NodeProto:
    """The node that computes the logits.

    Raises:
        ModelError: The logits are computed by something else than one matrix product.
    """
    node = graph.producer("logits")
    if node is None or node.op_type != "MatMul" or node.input[1] not in graph.weights:
        raise ModelError("the traced graph does not end in one matrix product; export the standard graph instead")
    return node


def tie_head(graph: EditedGraph) -> None:
    """Make a tied head read the embedding itself; record the vocabulary's size."""
    head = head_node(graph)
    vocab_size = graph.weights[head.input[1]].shape[1]
    graph.metadata[VOCAB_SIZE_KEY] = str(vocab_size)
    logits = next(value for value in graph.outputs if value.name == "logits")
    logits.type.tensor_type.shape.dim[-1].dim_value = vocab_size
    tie_product(graph, head)


def tie_product(graph: EditedGraph, product: NodeProto) -> None:
    """Make a product read the embedding itself, transposed on the fly, if its weight is equal to it."""
    lookup = embedding_node(graph)
    if lookup is None:
        return
    table, weight = graph.weights[lookup.input[0]], graph.weights[product.input[1]]
    if weight.shape != table.shape[::-1] or not np.array_equal(weight.T, table):
        return
    inputs = [product.input[0], lookup.input[0]]
    tied = helper.make_node("FusedMatMul", inputs, list(product.output), domain=MICROSOFT, name=product.name, transB=1)
    graph.insert_before(product, [tied])
    graph.remove(product)


def embedding_node(graph: EditedGraph) -> NodeProto | None:
    """The node that looks tokens up in a table of weights; None if there is no such node."""
    for node in graph.nodes:
        if (
            node.op_type == "Gather"
            and node.input[0] in graph.weights
            and graph.weights[node.input[0]].ndim == 2
            and not attribute(node, "axis", 0)
            and before_layout(graph, node.input[1]) == "input_ids"
        ):
            return node
    return None


def fuse_skip_norms(graph: EditedGraph) -> None:
    """Fuse `norm(x + y)`, and the bias of y if there is one, into one node that also returns the sum."""
    for norm in [node for node in graph.nodes if node.op_type in NORM_OPS]:
        add = graph.producer(norm.input[0])
        if add is None or add.op_type != "Add" or any(name in graph.weights for name in add.input):
            continue
        has_beta = norm.op_type == "LayerNormalization"
        gamma = list(norm.input[1:]) if has_beta else [norm.input[1]]
        skip, branch, bias = _split_bias(graph, add)
        if has_beta and bias and len(gamma) == 1:
            gamma.append("")
        total = add.output[0]
        inputs = [skip, branch, *gamma, *([bias] if bias else [])]
        fused = helper.make_node(
            NORM_OPS[norm.op_type],
            inputs,
            [norm.output[0], "", "", graph.new_name("sum")],
            domain=MICROSOFT,
            name=norm.name,
            epsilon=attribute(norm, "epsilon", 1e-5),
        )
        graph.insert_before(norm, [fused])
        graph.remove(norm)
        graph.remove(add)
        graph.redirect(total, fused.output[3])


def _split_bias(graph: EditedGraph, add: NodeProto) -> tuple[str, str, str | None]:
    """The residual, the branch and the branch's bias of `residual + (branch + bias)`."""
    for branch, residual in ((add.input[1], add.input[0]), (add.input[0], add.input[1])):
        inner = graph.producer(branch)
        if inner is not None and inner.op_type == "Add" and len(graph.readers(branch)) == 1:
            for value, bias in ((inner.input[0], inner.input[1]), (inner.input[1], inner.input[0])):
                if bias in graph.weights and graph.weights[bias].ndim == 1:
                    return residual, value, bias
    return add.input[0], add.input[1], None
