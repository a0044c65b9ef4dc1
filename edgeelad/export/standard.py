"""Write Optimum's own graph of a student, for architectures that have no fused graphs: standard names, no engine.

    model.onnx, model.onnx_data                         fp32
    model_quantized.onnx, model_quantized.onnx_data     int8 or int4, block by block

A head that is tied to the embedding reads the same bytes.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import NodeProto, helper

from edgeelad.engine.graph_files import GraphFiles, Precision
from edgeelad.engine.shape import read_json
from edgeelad.errors import EdgeeladError, ModelError
from edgeelad.export.empty_past import is_guessed, reshape_past
from edgeelad.export.fused.calibrate import observe
from edgeelad.export.fused.edit import EditedGraph, attribute, read_graph
from edgeelad.export.fused.files import write_graphs
from edgeelad.export.fused.passes import tie_product
from edgeelad.export.fused.quantize import Inputs, product_inputs, quantize_blocks
from edgeelad.export.tracing import trace_standard
from edgeelad.files import storage_errors
from edgeelad.training.extra import quiet

BITS = {"int8": 8, "int4": 4}


def write_standard_graph(student: Path, folder: Path) -> GraphFiles:
    """Write Optimum's graph, in fp32, into `folder`.

    Raises:
        ModelError: Optimum cannot export this student.
    """
    scratch = folder / "optimum"
    try:
        with storage_errors(folder), quiet():
            graph = read_graph(onnx.load(str(trace_standard(student, scratch))))
            shutil.rmtree(scratch)
    except EdgeeladError:
        raise
    except Exception as error:  # torch's tracer and Optimum raise whatever the model's code raises
        raise cannot_export(student, error) from error
    prepare_products(graph)
    if is_guessed(read_json(student / "config.json")):
        reshape_past(graph)
    files = GraphFiles(folder)
    with storage_errors(folder):
        write_graphs({files.standard: graph}, files.weights)
    return files


def write_quantized_standard(
    source: GraphFiles, folder: Path, precision: Precision, sequences: Sequence[Sequence[int]], num_threads: int = 1
) -> GraphFiles:
    """Quantize the fp32 graph that `write_standard_graph` wrote, block by block; see `write_quantized_graphs`."""
    graph = read_graph(onnx.load(str(source.standard), load_external_data=False), source.weights)
    rows = observe(graph, product_inputs(graph), sequences, folder, num_threads) if sequences else {}
    quantize_blocks(graph, BITS[precision], Inputs(rows))
    files = GraphFiles(folder, precision)
    write_graphs({files.standard: graph}, files.weights)
    return files


def prepare_products(graph: EditedGraph) -> None:
    """Write every product with a constant weight as MatMul, or as FusedMatMul over the embedding that it is tied to."""
    for node in list(graph.nodes):
        if node.op_type == "Transpose" and node.input[0] in graph.weights:
            order = list(helper.get_node_attr_value(node, "perm"))
            graph.weights[node.output[0]] = graph.weights[node.input[0]].transpose(order)
            graph.remove(node)
        elif node.op_type == "Gemm" and node.input[1] in graph.weights:
            _split_gemm(graph, node)
    for node in [node for node in graph.nodes if node.op_type == "MatMul" and node.input[1] in graph.weights]:
        tie_product(graph, node)
    graph.prune()


def _split_gemm(graph: EditedGraph, node: NodeProto) -> None:
    """Write a Gemm (GPT-2's projections) as MatMul and Add; one with a factor or a transposed input is left alone."""
    if any(attribute(node, name, 1.0) != 1.0 for name in ("alpha", "beta")) or attribute(node, "transA", 0):
        return
    weight = node.input[1]
    if attribute(node, "transB", 0):
        weight = f"{node.input[1]}.T"
        graph.weights[weight] = graph.weights[node.input[1]].T
    has_bias = len(node.input) > 2 and node.input[2] != ""
    product = graph.new_name("product") if has_bias else node.output[0]
    nodes = [helper.make_node("MatMul", [node.input[0], weight], [product], name=node.name)]
    if has_bias:
        nodes.append(helper.make_node("Add", [product, node.input[2]], [node.output[0]], name=f"{node.name}/bias"))
    graph.insert_before(node, nodes)
    graph.remove(node)


def cannot_export(student: Path, error: Exception) -> ModelError:
    """A ModelError with the first line of what the exporter raised."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return ModelError(f"{student}: Optimum cannot export this student to ONNX: {reason}")
