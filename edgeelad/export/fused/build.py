"""Build a student's fused graphs: trace it once, clean the graph, write the standard graph and the engine's, quantize.

`engine.graph_files` names the files. The quantized graphs are made from the fp32 graph's files, so they are the same
whether these were traced or got their weights from a later student (`fused.swap`). An architecture that
GroupQueryAttention cannot express raises `UnservedArchitectureError`; the caller then exports Optimum's standard graph
and says what is lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from transformers import AutoConfig

from edgeelad.engine.graph_files import GraphFiles, Precision
from edgeelad.engine.shape import WINDOW_KEY, window_size
from edgeelad.errors import ModelError
from edgeelad.export.empty_past import reshape_past, restore_past
from edgeelad.export.fused.calibrate import Rows, observe
from edgeelad.export.fused.edit import EditedGraph, read_graph
from edgeelad.export.fused.families import check_family
from edgeelad.export.fused.files import write_graphs
from edgeelad.export.fused.fold_rotary import fold_rotary
from edgeelad.export.fused.merge import merge_products
from edgeelad.export.fused.modules import UnservedArchitectureError
from edgeelad.export.fused.ops import register_ops
from edgeelad.export.fused.passes import add_softcap, clean, take_softcap
from edgeelad.export.fused.quantize import Inputs, product_inputs, quantize_blocks, quantize_rows
from edgeelad.export.fused.rotate import rotate
from edgeelad.export.fused.smooth import find_channels, smooth
from edgeelad.export.fused.variants import engine_variant, lanes_variant
from edgeelad.export.tracing import trace_fused

# packed sequences (prompts, contexts of trees) per run
NUM_LANES = 2
# trees whose branches run together: enough that reading the weights once per step costs each of them little
NUM_TREES = 8


def traced_graph(student: Path, scratch: Path) -> EditedGraph:
    """Trace and clean a student's graph.

    Args:
        student: A transformers folder with safetensors.
        scratch: A folder for what the exporter writes; the caller removes it.

    Raises:
        UnservedArchitectureError: GroupQueryAttention cannot express this student.
    """
    config = AutoConfig.from_pretrained(student)
    check_family(config)
    register_ops()
    model = onnx.load(str(trace_fused(student, config, scratch)))
    graph = read_graph(model)
    clean(graph, load_parameters(student))
    if window_size(config.to_dict()) is not None and WINDOW_KEY not in graph.metadata:
        raise UnservedArchitectureError(f"model type {config.model_type} with sliding windows")
    return graph


def write_student_graphs(graph: EditedGraph, folder: Path, *, has_open_past: bool = False) -> GraphFiles:
    """Write the fp32 standard graph and the engine's; `graph` is unchanged.

    Args:
        graph: As `traced_graph` gives it.
        folder: An existing folder.
        has_open_past: Whether the standard graph takes an empty past of any shape (see `export.empty_past`).
    """
    files = GraphFiles(folder)
    _write_variants(graph.copy(), files, has_open_past=has_open_past)
    return files


def write_quantized_graphs(
    source: GraphFiles, folder: Path, precision: Precision, sequences: Sequence[Sequence[int]], num_threads: int = 1
) -> GraphFiles:
    """Quantize a student: write the standard graph and the engine's in `precision`.

    All are quantized per block (see `fused.quantize`). In int8 the graph with lanes is quantized per row instead, and
    there is an engine graph over its weights for servers.

    Args:
        source: The fp32 files.
        folder: An existing folder.
        precision: Of the weights.
        sequences: Token ids of texts such as the student writes, for calibration; none: quantize without.
        num_threads: Threads of the calibration.
    """
    graph = read_graph(onnx.load(str(source.standard), load_external_data=False), source.weights)
    take_softcap(graph)
    has_open_past = restore_past(graph)
    inputs = Inputs(spread_outliers(graph, folder, sequences, num_threads))
    files = GraphFiles(folder, precision)
    if precision == "int8":
        rows = graph.copy()
        quantize_rows(rows, inputs)
        served = engine_variant(rows)
        graphs = {files.lanes: lanes_variant(served, NUM_LANES, NUM_TREES), files.rows: fold_rotary(served)}
        write_graphs(graphs, files.lanes_weights)
    else:
        for path in (files.rows, files.lanes_weights):
            path.unlink(missing_ok=True)
    quantize_blocks(graph, 8 if precision == "int8" else 4, inputs)
    merge_products(graph)
    _write_variants(graph, files, has_open_past=has_open_past, with_lanes=precision != "int8")
    return files


def spread_outliers(
    graph: EditedGraph, folder: Path, sequences: Sequence[Sequence[int]], num_threads: int
) -> dict[str, Rows]:
    """Rotate the residual stream if possible, and smooth other inputs; returns the observed rows of all inputs."""
    is_rotated = rotate(graph)
    if not sequences:
        return {}
    rows = dict(observe(graph, product_inputs(graph), sequences, folder, num_threads))
    for channels in find_channels(graph):
        if not (is_rotated and channels.is_normed):
            rows[channels.tensor] = smooth(graph, channels, rows[channels.tensor])
    return rows


def _write_variants(standard: EditedGraph, files: GraphFiles, *, has_open_past: bool, with_lanes: bool = True) -> None:
    engine = engine_variant(standard)
    add_softcap(standard)
    if has_open_past:
        reshape_past(standard)
    lanes = {files.lanes: lanes_variant(engine, NUM_LANES, NUM_TREES)} if with_lanes else {}
    graphs = {files.standard: standard, files.engine: fold_rotary(engine), **lanes}
    write_graphs(graphs, files.weights)


def load_parameters(student: Path) -> Mapping[str, NDArray[np.generic]]:
    """Load a student's parameters in float32, by their names in torch.

    Raises:
        ModelError: The folder has no safetensors file.
    """
    import torch
    from safetensors.torch import load_file

    paths = sorted(student.glob("*.safetensors"))
    if not paths:
        raise ModelError(f"{student}: no safetensors file; save the student with transformers' save_pretrained")
    parameters: dict[str, NDArray[np.generic]] = {}
    for path in paths:
        parameters.update({name: tensor.to(torch.float32).numpy() for name, tensor in load_file(path).items()})
    return parameters
