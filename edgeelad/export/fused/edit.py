"""Edit an ONNX graph in memory: find producers and readers of tensors, insert and remove nodes, prune.

Knows ONNX, no models. Weights are NumPy arrays while a graph is edited, so that several graph files can share one file
of weights (`fused.files`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

MICROSOFT = "com.microsoft"
WINDOW_ATTRIBUTE = "local_window_size"  # of GroupQueryAttention
NUMBERED = re.compile(r".*_(\d{1,9})")


@dataclass(slots=True)
class EditedGraph:
    """A graph that is being edited.

    Attributes:
        nodes: The nodes, in an order in which they can run.
        inputs: The graph's inputs.
        outputs: The graph's outputs.
        weights: Constant tensors by name.
        opset: The version of the standard operators.
        learned: The weights that come from the student's parameters; the others belong to the architecture.
        metadata: The file's metadata properties.
        num_names: Number of names that `new_name` has returned.

    Add and remove nodes through the methods only: they keep the index of producers and readers up to date.
    """

    nodes: list[NodeProto]
    inputs: list[ValueInfoProto]
    outputs: list[ValueInfoProto]
    weights: dict[str, NDArray[np.generic]]
    opset: int
    learned: set[str] = field(default_factory=set)
    metadata: dict[str, str] = field(default_factory=dict)
    num_names: int = field(default=0)
    _producers: dict[str, NodeProto] | None = field(default=None, repr=False)
    _readers: dict[str, list[NodeProto]] | None = field(default=None, repr=False)

    def producer(self, tensor: str) -> NodeProto | None:
        """The node that produces `tensor`; None for inputs and weights."""
        if self._producers is None:
            self._producers = {name: node for node in self.nodes for name in node.output if name}
        return self._producers.get(tensor)

    def readers(self, tensor: str) -> list[NodeProto]:
        """The nodes that read `tensor`."""
        if self._readers is None:
            self._readers = {}
            for node in self.nodes:
                for name in dict.fromkeys(node.input):
                    self._readers.setdefault(name, []).append(node)
        return self._readers.get(tensor, [])

    def new_name(self, stem: str) -> str:
        """An unused name."""
        self.num_names += 1
        return f"{stem}_{self.num_names}"

    def constant(self, stem: str, value: NDArray[np.generic]) -> str:
        """Add a constant tensor and return its name; reuses an equal one with the same stem."""
        for name, known in self.weights.items():
            if name.rpartition("_")[0] == stem and known.dtype == value.dtype and np.array_equal(known, value):
                return name
        name = self.new_name(stem)
        self.weights[name] = value
        return name

    def add_learned(self, name: str, value: NDArray[np.generic]) -> None:
        """Add a weight that comes from the student's parameters."""
        self.weights[name] = value
        self.learned.add(name)

    def redirect(self, old: str, new: str, readers: Iterable[NodeProto] | None = None) -> None:
        """Make every reader of `old` (or only `readers`) read `new`."""
        for node in self.nodes if readers is None else readers:
            for reader in (node, *_inner_nodes(node)):
                for position, name in enumerate(reader.input):
                    if name == old:
                        reader.input[position] = new
        self._readers = None

    def set_input(self, node: NodeProto, position: int, tensor: str) -> None:
        """Make one input of one node read `tensor`."""
        node.input[position] = tensor
        self._readers = None

    def insert_before(self, node: NodeProto, new: Sequence[NodeProto]) -> None:
        """Insert nodes right before `node`."""
        at = next(index for index, known in enumerate(self.nodes) if known is node)
        self.nodes[at:at] = new
        self._producers = self._readers = None

    def append(self, node: NodeProto) -> None:
        """Add a node at the end."""
        self.nodes.append(node)
        self._producers = self._readers = None

    def remove(self, node: NodeProto) -> None:
        """Remove one node."""
        self.nodes = [known for known in self.nodes if known is not node]
        self._producers = self._readers = None

    def prune(self) -> None:
        """Remove nodes, inputs and weights that no output needs."""
        needed = {output.name for output in self.outputs}
        kept: list[NodeProto] = []
        for node in reversed(self.nodes):
            if any(name in needed for name in node.output):
                kept.append(node)
                needed.update(name for reader in (node, *_inner_nodes(node)) for name in reader.input if name)
        self.nodes = kept[::-1]
        self._producers = self._readers = None
        self.weights = {name: value for name, value in self.weights.items() if name in needed}
        self.learned &= self.weights.keys()
        self.inputs = [value for value in self.inputs if value.name in needed]

    def sort_weights(self) -> None:
        """Put the weights in the order in which the nodes read them."""
        used = (name for node in self.nodes for reader in (node, *_inner_nodes(node)) for name in reader.input)
        order = dict.fromkeys(name for name in used if name in self.weights)
        self.weights = {name: self.weights[name] for name in order}

    def copy(self) -> EditedGraph:
        """A copy whose nodes can be edited; weights are shared."""
        nodes = [_copied(node) for node in self.nodes]
        return EditedGraph(
            nodes,
            list(self.inputs),
            list(self.outputs),
            dict(self.weights),
            self.opset,
            set(self.learned),
            dict(self.metadata),
            self.num_names,
        )


def read_graph(model: ModelProto, weights_path: Path | None = None) -> EditedGraph:
    """Convert a model for editing: Constant nodes become weights, Identity nodes are removed. Do not reuse the model.

    Args:
        model: The model, with or without its weights.
        weights_path: The file of the weights, if the model does not hold them.
    """
    weights = {tensor.name: _read_tensor(tensor, weights_path) for tensor in model.graph.initializer}
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            weights[node.output[0]] = numpy_helper.to_array(helper.get_node_attr_value(node, "value"))
        else:
            nodes.append(node)
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    graph = EditedGraph(nodes, list(model.graph.input), list(model.graph.output), weights, opset)
    graph.metadata = {entry.key: entry.value for entry in model.metadata_props}
    # names of `new_name` in a graph that was written by an EditedGraph
    used = {*weights, *(name for node in nodes for name in node.output)}
    graph.num_names = max((int(match[1]) for name in used if (match := NUMBERED.fullmatch(name))), default=0)
    for node in [node for node in nodes if node.op_type == "Identity"]:
        if node.output[0] not in {output.name for output in graph.outputs}:
            graph.redirect(node.output[0], node.input[0])
            graph.remove(node)
    return graph


def _read_tensor(tensor: TensorProto, weights_path: Path | None) -> NDArray[np.generic]:
    if weights_path is None or not tensor.external_data:
        return numpy_helper.to_array(tensor)
    entries = {entry.key: entry.value for entry in tensor.external_data}
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
    count = int(entries["length"]) // dtype.itemsize
    values: NDArray[np.generic] = np.fromfile(weights_path, dtype, count, offset=int(entries["offset"]))
    return values.reshape(tuple(tensor.dims))


def attribute(node: NodeProto, name: str, default: float) -> float:
    """A numeric attribute of a node."""
    for entry in node.attribute:
        if entry.name == name:
            return float(helper.get_attribute_value(entry))
    return default


def _copied(node: NodeProto) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy


def _inner_nodes(node: NodeProto) -> Iterator[NodeProto]:
    """The nodes of a node's subgraphs, at any depth; they may read the tensors of the graph around them."""
    for entry in node.attribute:
        if entry.type == onnx.AttributeProto.GRAPH:
            for inner in entry.g.node:
                yield inner
                yield from _inner_nodes(inner)
