"""Build a student's fused graphs: trace it once, clean the graph, write the standard graph and the engine's.

`engine.graph_files` names the files. An architecture that GroupQueryAttention cannot express raises
`UnservedArchitectureError`; the caller then exports Optimum's standard graph and says what is lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from transformers import AutoConfig

from edgeelad.engine.graph_files import GraphFiles, Precision
from edgeelad.engine.shape import WINDOW_KEY, window_size
from edgeelad.errors import ModelError
from edgeelad.export.empty_past import reshape_past
from edgeelad.export.fused.edit import EditedGraph, read_graph
from edgeelad.export.fused.families import check_family
from edgeelad.export.fused.files import write_graphs
from edgeelad.export.fused.modules import UnservedArchitectureError
from edgeelad.export.fused.ops import register_ops
from edgeelad.export.fused.passes import add_softcap, clean
from edgeelad.export.fused.quantize import quantize_blocks, quantize_rows
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


def write_student_graphs(
    graph: EditedGraph, folder: Path, precision: Precision = "fp32", *, has_open_past: bool = False
) -> GraphFiles:
    """Write the standard graph and the engine's; `graph` is unchanged.

    Args:
        graph: As `traced_graph` gives it.
        folder: An existing folder.
        precision: "int8" is quantized per row, "int4" per block (see `fused.quantize`).
        has_open_past: Whether the standard graph takes an empty past of any shape (see `export.empty_past`).
    """
    standard = graph.copy()
    if precision == "int8":
        quantize_rows(standard)
    elif precision == "int4":
        quantize_blocks(standard, 4)
    files = GraphFiles(folder, precision)
    engine = engine_variant(standard)
    add_softcap(standard)
    if has_open_past:
        reshape_past(standard)
    graphs = {files.standard: standard, files.engine: engine, files.lanes: lanes_variant(engine, NUM_LANES, NUM_TREES)}
    write_graphs(graphs, files.weights)
    return files


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
