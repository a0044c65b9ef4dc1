"""Move outliers of activations into weights, so that eight bits per row are enough.

A few channels of a language model's activations are far larger than the others, and one of them takes the whole int8
range of its row. x·W = (x / s)·(s·W): dividing a channel by s costs nothing at run time if a norm's weight, the up
projection or the value projection in front of the product can absorb the factor (SmoothQuant, Xiao et al. 2023,
arXiv 2211.10438). Which factors are best depends on whether a channel is large in all rows or in a few, which a scale
per row isolates anyway; so several are tried on observed rows, no factors among them. They are powers of two: then the
float32 graph computes the same bits, and the last bits of an observation change no factor.

Knows graphs and NumPy; the rows come from `calibrate`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from edgeelad.export.fused.edit import EditedGraph, attribute

SMALLEST = 1e-6  # of a statistic: a channel that is never used gets a modest factor
# s = statistic^α / weight^(β(1−α)); α = 0 and β = 0: no factors
ALPHAS, BETAS = (0.0, 0.3, 0.5, 0.7, 0.85, 1.0), (0.0, 0.5, 1.0)
MAX_ROWS = 512  # on which factors are tried
# where a norm's weight (and bias) stand among its inputs
NORM_WEIGHTS = {
    "SimplifiedLayerNormalization": (1,),
    "LayerNormalization": (1, 2),
    "SkipSimplifiedLayerNormalization": (2,),
    "SkipLayerNormalization": (2, 3),
}

Weight = NDArray[np.float32]


@dataclass(slots=True)
class Channels:
    """The channels of a tensor that products read, and the weights that can absorb a factor per channel.

    Attributes:
        tensor: The products' input, [..., channels].
        products: The products' weights, [channels, outputs].
        sources: The weights in front, to be divided along their last axis: the nodes and which of their inputs.
        heads: Key-value heads, query heads per key-value head, and head size, if the tensor is an attention's output:
            the query heads of one key-value head share the factors of its values. (1, 1, -1) otherwise.
        is_normed: Whether the tensor is a norm's output.
    """

    tensor: str
    products: list[str]
    sources: list[tuple[NodeProto, int]] = field(default_factory=list)
    heads: tuple[int, int, int] = (1, 1, -1)
    is_normed: bool = False

    def merge(self, channels: Weight) -> Weight:
        """The maximum over channels that share a factor."""
        merged: Weight = channels.reshape(self.heads).max(axis=1).reshape(-1)
        return merged

    def spread(self, factors: Weight) -> Weight:
        """One factor per channel of the tensor."""
        keys, per_key, size = self.heads
        spread: Weight = factors.reshape(keys, 1, size).repeat(per_key, axis=1).reshape(-1)
        return spread


def find_channels(graph: EditedGraph) -> list[Channels]:
    """List the tensors that only quantized products read and whose channels can be scaled, in the graph's order."""
    found: dict[str, Channels] = {}
    for node in graph.nodes:
        tensor = node.input[0] if node.op_type == "MatMul" and node.input[1] in graph.weights else None
        if tensor is None or tensor in found:
            continue
        readers = graph.readers(tensor)
        is_own = [
            reader.op_type == "MatMul" and reader.input[0] == tensor and _is_own_weight(graph, reader, reader.input[1])
            for reader in readers
        ]
        if not all(is_own):
            continue
        channels = Channels(tensor, [reader.input[1] for reader in readers])
        if _find_sources(graph, tensor, channels, readers):
            found[tensor] = channels
    return list(found.values())


def smooth(graph: EditedGraph, channels: Channels, rows: Weight) -> Weight:
    """Scale the channels of a tensor by the factors that suit its observed rows.

    Args:
        graph: A float32 graph; its weights are replaced, what it computes stays.
        channels: One of `find_channels`.
        rows: Observed rows of the tensor, [rows, channels].

    Returns:
        The rows as they are now.
    """
    weights = [graph.weights[name].astype(np.float32) for name in channels.products]
    energy = np.sum([np.square(weight).sum(axis=1) for weight in weights], axis=0)
    factors = choose_factors(channels, rows[:: max(1, len(rows) // MAX_ROWS)], energy)
    spread = channels.spread(factors)
    for name, weight in zip(channels.products, weights, strict=True):
        graph.weights[name] = weight * spread[:, None]
    for node, position in channels.sources:
        name = node.input[position]
        divided = graph.weights[name].astype(np.float32) / factors
        if graph.readers(name) != [node]:  # the tracer stores equal weights once
            name = graph.new_name("divided")
            graph.set_input(node, position, name)
        graph.weights[name] = divided
    return rows / spread


def choose_factors(channels: Channels, rows: Weight, energy: Weight) -> Weight:
    """Choose the factors with the smallest error of int8 rows.

    A row's step is its largest magnitude / 127, and each channel's rounding error goes through the channel's weights.

    Args:
        channels: The tensor.
        rows: Its observed rows, [rows, channels].
        energy: Sum of squares of each channel's weights.
    """
    magnitude = np.abs(rows)
    relative = magnitude / np.maximum(magnitude.max(axis=1, keepdims=True), SMALLEST)
    statistics = (magnitude.max(axis=0), _root_mean_square(magnitude), _root_mean_square(relative))
    weight = channels.merge(np.sqrt(np.maximum(energy, SMALLEST**2)))
    best, smallest = np.ones_like(weight), np.inf
    for alpha, beta, statistic in product(ALPHAS, BETAS, statistics):
        merged = np.maximum(channels.merge(statistic), SMALLEST)
        exponents = alpha * np.log2(merged) - beta * (1 - alpha) * np.log2(weight)
        factors = np.exp2(np.rint(exponents - exponents.mean())).astype(np.float32)
        spread = channels.spread(factors)
        error = float(np.square((magnitude / spread).max(axis=1)).mean() * (np.square(spread) * energy).sum())
        if error < smallest:
            best, smallest = factors, error
    return best


def _root_mean_square(values: Weight) -> Weight:
    result: Weight = np.sqrt(np.square(values).mean(axis=0))
    return result


def _find_sources(graph: EditedGraph, tensor: str, channels: Channels, readers: list[NodeProto]) -> bool:
    """Find the weights that produce `tensor` linearly, channel by channel; False if something is in the way."""
    node = graph.producer(tensor)
    if node is None or graph.readers(tensor) != readers:
        return False
    if node.op_type in NORM_WEIGHTS:
        channels.is_normed = True
        positions = [place for place in NORM_WEIGHTS[node.op_type] if place < len(node.input) and node.input[place]]
        return _add_sources(graph, node, positions, channels)
    if node.op_type == "MatMul":
        return _add_sources(graph, node, [1], channels)
    if node.op_type == "Add":
        bias = next((place for place, name in enumerate(node.input) if name in graph.weights), None)
        if bias is None or graph.weights[node.input[bias]].ndim != 1:
            return False
        inner = node.input[1 - bias]
        return _add_sources(graph, node, [bias], channels) and _find_sources(graph, inner, channels, [node])
    if node.op_type == "Mul" and channels.heads[2] == -1:  # a gate: either factor may absorb
        return any(_try_operand(graph, node, name, channels) for name in node.input)
    if node.op_type == "GroupQueryAttention" and channels.heads[2] == -1:
        keys = int(attribute(node, "kv_num_heads", 0))
        per_key = int(attribute(node, "num_heads", 0)) // keys
        channels.heads = (keys, per_key, graph.weights[channels.products[0]].shape[0] // (keys * per_key))
        return _find_sources(graph, node.input[2], channels, [node])
    return False


def _try_operand(graph: EditedGraph, node: NodeProto, name: str, channels: Channels) -> bool:
    producer = graph.producer(name)
    if producer is None or producer.op_type not in ("MatMul", "Add"):
        return False
    before = list(channels.sources)
    if _find_sources(graph, name, channels, [node]):
        return True
    channels.sources = before
    return False


def _add_sources(graph: EditedGraph, node: NodeProto, positions: list[int], channels: Channels) -> bool:
    channels.sources += [(node, position) for position in positions]
    return all(node.input[position] in graph.weights for position in positions)


def _is_own_weight(graph: EditedGraph, node: NodeProto, name: str) -> bool:
    """Whether this node alone reads this weight."""
    return name in graph.weights and graph.readers(name) == [node]
