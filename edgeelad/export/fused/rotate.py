"""Rotate a student's residual stream, so that no channel of it is an outlier.

RMSNorm without its weight commutes with every rotation: norm(x·Q) = norm(x)·Q. So the stream x can be carried as x·Q if
what is added to it is multiplied by Q, and what reads its norm by Qᵀ and the norm's weight; all of that goes into the
weights (QuaRot, Ashkboos et al. 2024, arXiv 2404.00456, section 4). A rotated outlier is spread over all channels, and
eight bits per row are enough for the others again.

A tied table E has two readers: the head wants E·diag(w)·Q, with the last norm's weight w, and the stream wants E·Q. The
table becomes what the head wants, and looked-up rows are multiplied by Qᵀ·diag(1/w)·Q, one small product per token.

Q is a cosine transform with fixed random signs: the same for every student of a width. Knows graphs and NumPy.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper

from edgeelad.export.fused.edit import EditedGraph
from edgeelad.export.fused.passes import embedding_node

NORM_WEIGHT = {"SimplifiedLayerNormalization": 1, "SkipSimplifiedLayerNormalization": 2}
ROTATION = "rotation"  # the weight of a tied table's small product
# largest ratio of two weights of the last norm at which a tied table still serves both its readers in eight bits
MAX_RATIO = 100.0

Weight = NDArray[np.float32]


@dataclass(slots=True)
class Stream:
    """The residual stream of a graph.

    Attributes:
        table: The embedding's weight.
        start: The tensor of the looked-up embedding.
        tensors: All tensors of the stream.
        writers: Weights [inputs, width] and biases [width] of what is added to it.
        norms: Its norms; the last one is before the head.
        head: The head's weight; the table if it is tied.
    """

    table: str
    start: str
    tensors: set[str]
    writers: list[str] = field(default_factory=list)
    norms: list[NodeProto] = field(default_factory=list)
    head: str = ""


def rotation_matrix(width: int) -> Weight:
    """An orthogonal matrix [width, width] whose entries are all of about the same size."""
    signs = np.random.default_rng(width).choice([-1.0, 1.0], width)
    places = np.arange(width)
    cosines = np.cos(np.pi * (2 * places[:, None] + 1) * places / (2 * width)) * np.sqrt(2 / width)
    cosines[:, 0] = np.sqrt(1 / width)
    return np.asarray(signs[:, None] * cosines, dtype=np.float32)


def rotate(graph: EditedGraph) -> bool:
    """Rotate the residual stream of a float32 graph; False, and nothing is changed, if it cannot be rotated."""
    stream = find_stream(graph)
    if stream is None:
        return False
    width = graph.weights[stream.norms[0].input[NORM_WEIGHT[stream.norms[0].op_type]]].shape[0]
    matrix = rotation_matrix(width)
    for name in stream.writers:
        graph.weights[name] = graph.weights[name].astype(np.float32) @ matrix
    for norm in stream.norms[:-1]:
        scaled = _take_weight(graph, norm)[:, None] * matrix  # diag(weight) · Q
        for name in dict.fromkeys(reader.input[1] for reader in graph.readers(norm.output[0])):
            graph.weights[name] = scaled.T @ graph.weights[name].astype(np.float32)
    weight = _take_weight(graph, stream.norms[-1])
    scaled = weight[:, None] * matrix
    table = graph.weights[stream.table].astype(np.float32)
    if stream.head == stream.table:
        graph.weights[stream.table] = table @ scaled
        _multiply(graph, stream.start, np.asarray((matrix.T / weight) @ matrix, dtype=np.float32))
    else:
        graph.weights[stream.table] = table @ matrix
        graph.weights[stream.head] = scaled.T @ graph.weights[stream.head].astype(np.float32)
    return True


def find_stream(graph: EditedGraph) -> Stream | None:
    """Follow the residual stream from the embedding to the last norm; None if something in it cannot be rotated."""
    lookup = embedding_node(graph)
    if lookup is None:
        return None
    stream = Stream(lookup.input[0], lookup.output[0], {lookup.output[0]})
    for node in graph.nodes:
        read = [name for name in node.input if name in stream.tensors]
        if read and (len(read) > 1 or not _pass(graph, stream, node, read[0])):
            return None
    norms = stream.norms
    if not norms or any(not _feeds_products(graph, norm) for norm in norms[:-1]):
        return None
    head = _find_head(graph, norms[-1])
    if head is None or {id(node) for node in graph.readers(stream.table)} - {id(lookup), id(head)}:
        return None
    stream.head = head.input[1]
    if stream.head == stream.table:
        weight = np.abs(graph.weights[norms[-1].input[NORM_WEIGHT[norms[-1].op_type]]])
        return stream if weight.max() <= MAX_RATIO * weight.min() else None
    return stream if len(graph.readers(stream.head)) == 1 else None


def _pass(graph: EditedGraph, stream: Stream, node: NodeProto, tensor: str) -> bool:
    """Take one node that reads the stream into account; False if it cannot be rotated."""
    if node.op_type == "SimplifiedLayerNormalization" and node.input[0] == tensor:
        stream.norms.append(node)
        return True
    others = [name for name in node.input[:2] if name != tensor]
    if node.op_type == "SkipSimplifiedLayerNormalization" and tensor in node.input[:2]:
        if len(node.input) > 3 and node.input[3] and not _add_writer(graph, stream, node, node.input[3]):
            return False
        stream.norms.append(node)
        if len(node.output) > 3 and node.output[3]:
            stream.tensors.add(node.output[3])
        return _find_writer(graph, stream, node, others[0])
    if node.op_type == "Add":
        stream.tensors.add(node.output[0])
        return _find_writer(graph, stream, node, others[0])
    if node.op_type == "Mul" and _is_scalar(graph, others[0]):
        stream.tensors.add(node.output[0])
        return True
    return False


def _find_writer(graph: EditedGraph, stream: Stream, reader: NodeProto, tensor: str) -> bool:
    """Find the product whose result `reader` adds to the stream."""
    node = graph.producer(tensor)
    if node is None or graph.readers(tensor) != [reader]:
        return False
    if node.op_type == "MatMul":
        return _add_writer(graph, stream, node, node.input[1])
    inner = next((name for name in node.input if name not in graph.weights), "")
    constant = next((name for name in node.input if name in graph.weights), "")
    if node.op_type == "Add" and constant and graph.weights[constant].ndim == 1:
        return _add_writer(graph, stream, node, constant) and _find_writer(graph, stream, node, inner)
    if node.op_type == "Mul" and _is_scalar(graph, constant):
        return _find_writer(graph, stream, node, inner)
    return False


def _add_writer(graph: EditedGraph, stream: Stream, node: NodeProto, name: str) -> bool:
    if name not in graph.weights or graph.readers(name) != [node]:
        return False
    stream.writers.append(name)
    return True


def _is_scalar(graph: EditedGraph, name: str) -> bool:
    return name in graph.weights and graph.weights[name].size == 1


def _feeds_products(graph: EditedGraph, norm: NodeProto) -> bool:
    """Whether only products read a norm, and only they read their weights."""
    return all(
        reader.op_type == "MatMul"
        and reader.input[0] == norm.output[0]
        and reader.input[1] in graph.weights
        and len(graph.readers(reader.input[1])) == 1
        for reader in graph.readers(norm.output[0])
    )


def _find_head(graph: EditedGraph, norm: NodeProto) -> NodeProto | None:
    """The head, if it reads this norm, with nothing but scalar factors between."""
    readers = graph.readers(norm.output[0])
    while len(readers) == 1 and readers[0].op_type in ("Mul", "Div"):
        readers = graph.readers(readers[0].output[0])
    head = readers[0] if len(readers) == 1 else None
    return head if head is not None and head.output[0] == "logits" and head.input[1] in graph.weights else None


def _take_weight(graph: EditedGraph, norm: NodeProto) -> Weight:
    """A norm's weight, which becomes one."""
    position = NORM_WEIGHT[norm.op_type]
    weight = graph.weights[norm.input[position]].astype(np.float32)
    graph.set_input(norm, position, graph.constant("ones", np.ones_like(weight)))
    return weight


def _multiply(graph: EditedGraph, tensor: str, matrix: Weight) -> None:
    """Multiply a tensor by the rotation before all its readers."""
    readers = list(graph.readers(tensor))
    product = graph.new_name("rotated")
    graph.redirect(tensor, product, readers)
    graph.weights[ROTATION] = np.ascontiguousarray(matrix)
    graph.insert_before(readers[0], [helper.make_node("MatMul", [tensor, ROTATION], [product], name=ROTATION)])
