"""Run a student's float32 graph over token sequences and observe what its matrix products read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from edgeelad.engine.plain.graph import OnnxGraph
from edgeelad.export.fused.edit import EditedGraph
from edgeelad.export.fused.files import write_graphs

CALIBRATION_GRAPH = "calibration.onnx"  # in the folder of the export, while it is needed
MAX_BYTES = 2_000_000_000  # of observed rows; students too wide for that are calibrated with fewer sequences

Rows = NDArray[np.float32]


def observe(
    graph: EditedGraph, tensors: Sequence[str], sequences: Sequence[Sequence[int]], folder: Path, num_threads: int = 1
) -> Mapping[str, Rows]:
    """Run sequences through a graph, one at a time, until MAX_BYTES are observed.

    Args:
        graph: A float32 graph with standard names; unchanged.
        tensors: Tensors [batch, tokens, channels] of the graph.
        sequences: Token ids.
        folder: Where the graph is written while it runs.
        num_threads: Threads of the session.

    Returns:
        The rows of each tensor, [tokens, channels], those of each sequence balanced (`balance`).
    """
    extended = graph.copy()
    extended.outputs += [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in tensors]
    path = folder / CALIBRATION_GRAPH
    weights = path.with_name(f"{path.name}_data")
    try:
        write_graphs({path: extended}, weights)
        student = OnnxGraph(path, num_threads)
        found: dict[str, list[Rows]] = {name: [] for name in tensors}
        left = MAX_BYTES
        for sequence in sequences:
            values = [balance(value[0]) for value in student.read(sequence, tensors)]
            left -= sum(value.nbytes for value in values)
            if left < 0 and any(found.values()):
                break
            for name, value in zip(tensors, values, strict=True):
                found[name].append(value)
        del student  # Windows removes no open files
    finally:
        path.unlink(missing_ok=True)
        weights.unlink(missing_ok=True)
    return {name: np.concatenate(found.pop(name)) for name in tensors}


def balance(rows: Rows) -> Rows:
    """Shrink rows that are longer than the median row to its length.

    A token of massive activations (Sun et al. 2024, arXiv 2402.17762) would outweigh all others. But norms follow, so
    its errors count in proportion to its own size.
    """
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    usual = np.median(lengths)
    balanced: Rows = rows * (usual / np.maximum(lengths, max(float(usual), 1e-30)))
    return balanced
