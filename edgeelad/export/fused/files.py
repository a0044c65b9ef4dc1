"""Write several graphs over one file of weights.

A tensor that several graphs (or several initializers of one graph) share is written once. Tensors are identified by
their memory, so a reshaped view is the same tensor. All learned tensors are in that file, so that `swap` can replace a
student's weights and keep the graph files. The file can be memory-mapped: large tensors start at page boundaries, and
worker processes that map it share its pages.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from edgeelad.export.fused.edit import MICROSOFT, EditedGraph

IR_VERSION = 10  # opset 21's; readable by every onnxruntime that has the operators
MAX_INLINE_BYTES = 1024
PAGE_BYTES = 4096
MIN_PAGED_BYTES = 65536
SMALL_ALIGNMENT = 64


def write_graphs(graphs: Mapping[Path, EditedGraph], weights_path: Path) -> None:
    """Write each graph to its path, and all their weights to `weights_path` in the same folder."""
    offsets: dict[tuple[int, int], int] = {}
    with weights_path.open("wb") as file:
        for path, graph in graphs.items():
            tensors = []
            for name, array in graph.weights.items():
                array = np.asarray(array, order="C")  # ascontiguousarray would give a scalar a dimension
                if array.nbytes <= MAX_INLINE_BYTES and name not in graph.learned:
                    tensors.append(onnx.numpy_helper.from_array(array, name))
                    continue
                key = (int(array.__array_interface__["data"][0]), array.nbytes)
                if key not in offsets:
                    alignment = PAGE_BYTES if array.nbytes >= MIN_PAGED_BYTES else SMALL_ALIGNMENT
                    file.write(b"\0" * (-file.tell() % alignment))
                    offsets[key] = file.tell()
                    array.tofile(file)
                graph.weights[name] = array  # keeps the memory alive, and its address distinct
                tensors.append(_external(name, array, weights_path.name, offsets[key]))
            onnx.save(_model(graph, tensors), str(path))


def _external(name: str, array: NDArray[np.generic], location: str, offset: int) -> TensorProto:
    tensor = TensorProto(
        name=name,
        data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
        dims=array.shape,
        data_location=TensorProto.EXTERNAL,
    )
    for key, value in (("location", location), ("offset", offset), ("length", array.nbytes)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def _model(graph: EditedGraph, tensors: list[TensorProto]) -> onnx.ModelProto:
    proto = helper.make_graph(graph.nodes, "student", graph.inputs, graph.outputs, tensors)
    opsets = [helper.make_opsetid("", graph.opset), helper.make_opsetid(MICROSOFT, 1)]
    model = helper.make_model(proto, opset_imports=opsets, ir_version=IR_VERSION, producer_name="edgeelad")
    helper.set_model_props(model, graph.metadata)
    return model
