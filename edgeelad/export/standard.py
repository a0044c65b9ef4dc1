"""Optimum's own graph of a student, for architectures that the fused graphs do not serve: standard names, no engine.

Writes `model.onnx` and, quantized block by block, `model_quantized.onnx`; each with `_data` beside it where it is
large.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
from onnx import ModelProto
from optimum.exporters.onnx import main_export

from edgeelad.engine.graph_files import GraphFiles
from edgeelad.errors import EdgeeladError, ModelError
from edgeelad.export.quantize import quantize_graph
from edgeelad.files import storage_errors
from edgeelad.training.extra import quiet
from edgeelad.training.load import EXPORT_TASK

MAX_INLINE_BYTES = 1_500_000_000  # a protobuf file ends at 2 GB; beyond this weights lie in a file of their own
BITS = {"int8": 8, "int4": 4}


def write_standard_graphs(student: Path, folder: Path, quantize: str) -> None:
    """Write Optimum's graph into `folder`, and a quantized one unless `quantize` is "none".

    Optimum's own validation is left out: it compares one made-up input, and `parity` compares more.

    Raises:
        ModelError: Optimum cannot export this student.
    """
    model = GraphFiles(folder).standard
    scratch = folder / "optimum"
    try:
        with storage_errors(folder), quiet():
            main_export(
                str(student),
                scratch,
                task=EXPORT_TASK,
                framework="pt",
                library_name="transformers",
                local_files_only=True,
                do_validation=False,
            )
            for path in scratch.glob(model.name + "*"):
                path.rename(folder / path.name)
            shutil.rmtree(scratch)
    except EdgeeladError:
        raise
    except Exception as error:  # torch's tracer and Optimum raise whatever the model's code raises
        raise cannot_export(student, error) from error
    if quantize in BITS:
        graph = onnx.load(str(model))
        quantize_graph(graph, BITS[quantize])
        with storage_errors(folder):
            save_graph(graph, GraphFiles(folder, "int8").standard)


def cannot_export(student: Path, error: Exception) -> ModelError:
    """What the exporter raised, in one line."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return ModelError(f"{student}: Optimum cannot export this student to ONNX: {reason}")


def save_graph(graph: ModelProto, path: Path) -> None:
    """Write a graph; weights beyond MAX_INLINE_BYTES go into `<name>_data` beside it."""
    size = sum(len(tensor.raw_data) for tensor in graph.graph.initializer)
    onnx.save(graph, str(path), save_as_external_data=size > MAX_INLINE_BYTES, location=f"{path.name}_data")
