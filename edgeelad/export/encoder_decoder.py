"""Write the graphs of an encoder-decoder under the names that Optimum loads, with their weights in one file.

    encoder_model.onnx          input_ids, attention_mask → last_hidden_state
    decoder_model_merged.onnx   logits and cache; the input `use_cache_branch` says whether the cache is read
    model.onnx_data             the weights of both

Optimum traces the decoder twice, without and with cache. The two become the branches of one graph over the same
weights. Quantized graphs have the same names with `_quantized`.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, TensorProto, ValueInfoProto, helper

from edgeelad.engine.graph_files import GraphFiles
from edgeelad.errors import EdgeeladError
from edgeelad.export.fused.edit import EditedGraph, read_graph
from edgeelad.export.fused.files import write_graphs
from edgeelad.export.fused.passes import embedding_node
from edgeelad.export.fused.quantize import Inputs, quantize_blocks
from edgeelad.export.fused.rounding import BLOCKS, TABLE
from edgeelad.export.standard import BITS, cannot_export, prepare_products
from edgeelad.export.tracing import trace_encoder_decoder
from edgeelad.files import storage_errors
from edgeelad.training.extra import quiet

USE_CACHE = "use_cache_branch"


def write_encoder_decoder(student: Path, folder: Path, quantize: Literal["none", "int8", "int4"]) -> None:
    """Write Optimum's graphs into `folder`, and quantized ones unless `quantize` is "none".

    Raises:
        ModelError: Optimum cannot export this student.
    """
    scratch = folder / "optimum"
    try:
        with storage_errors(folder), quiet():
            graphs = [read_graph(onnx.load(str(path))) for path in trace_encoder_decoder(student, scratch)]
            shutil.rmtree(scratch)
    except EdgeeladError:
        raise
    except Exception as error:  # torch's tracer and Optimum raise whatever the model's code raises
        raise cannot_export(student, error) from error
    for graph in graphs:
        prepare_products(graph)
    share_equal_weights(graphs)
    encoder, bare, cached = graphs
    with storage_errors(folder):
        _write(encoder, bare, cached, GraphFiles(folder))
        if quantize != "none":
            for decoder in (bare, cached):
                quantize_blocks(decoder, BITS[quantize], Inputs({}))
            _take_table(encoder, bare)
            quantize_blocks(encoder, BITS[quantize], Inputs({}))
            share_equal_weights(graphs)
            _write(encoder, bare, cached, GraphFiles(folder, quantize))


def share_equal_weights(graphs: Iterable[EditedGraph]) -> None:
    """Make equal weights one array, which is written once."""
    known: dict[tuple[object, ...], NDArray[np.generic]] = {}
    for graph in graphs:
        for name, array in graph.weights.items():
            array = np.asarray(array, order="C")
            key = (array.shape, array.dtype.str, hashlib.blake2b(array.tobytes()).digest())
            graph.weights[name] = known.setdefault(key, array)


def merge_decoders(bare: EditedGraph, cached: EditedGraph) -> EditedGraph:
    """One graph that runs the decoder without cache or with it; both are unchanged.

    The branch with cache gives empty arrays for the cross-attention's keys and values, which do not change.
    """
    weights = dict(bare.weights)
    names = {id(array): name for name, array in bare.weights.items()}
    renamed = {}
    for name, array in cached.weights.items():
        renamed[name] = names.get(id(array), name)
        if weights.setdefault(renamed[name], array) is not array:
            renamed[name] = f"cached/{name}"
            weights[renamed[name]] = array
    outputs = [output.name for output in bare.outputs]
    branches = [
        _branch(bare.copy(), "bare", {}, outputs, weights),
        _branch(cached.copy(), "cached", renamed, outputs, weights),
    ]
    switch = helper.make_node("If", [USE_CACHE], outputs, then_branch=branches[1], else_branch=branches[0])
    inputs = {value.name: value for graph in (bare, cached) for value in _free_head_sizes(graph.inputs)}
    use_cache = helper.make_tensor_value_info(USE_CACHE, TensorProto.BOOL, [1])
    opset = max(bare.opset, cached.opset)
    return EditedGraph([switch], [*inputs.values(), use_cache], list(bare.outputs), weights, opset)


def _branch(
    graph: EditedGraph,
    name: str,
    renamed: dict[str, str],
    outputs: list[str],
    weights: dict[str, NDArray[np.generic]],
) -> GraphProto:
    """A decoder as a branch: no name of a tensor is one of the graph around it."""
    own = {output: f"{name}/{output}" for node in graph.nodes for output in node.output if output}
    for node in graph.nodes:
        for tensors, table in ((node.input, {**renamed, **own}), (node.output, own)):
            for place, tensor in enumerate(tensors):
                tensors[place] = table.get(tensor, tensor)
    for output in outputs:
        if output not in own:
            own[output] = f"{name}/{output}"
            nothing = f"{name}/nothing"
            weights.setdefault(nothing, np.zeros((0, *_head_shape(graph)), dtype=np.float32))
            graph.append(helper.make_node("Identity", [nothing], [own[output]]))
    results = [helper.make_tensor_value_info(own[output], TensorProto.FLOAT, None) for output in outputs]
    return helper.make_graph(graph.nodes, name, [], results)


def _head_shape(decoder: EditedGraph) -> tuple[int, int, int]:
    """Number of heads, no tokens, and size of a head."""
    dims = next(output for output in decoder.outputs if output.name != "logits").type.tensor_type.shape.dim
    return dims[1].dim_value, 0, dims[3].dim_value


def _free_head_sizes(inputs: Iterable[ValueInfoProto]) -> Iterator[ValueInfoProto]:
    """The inputs, with caches of any head size: the branch without cache does not read them.

    Optimum feeds it empty caches of heads as large as the width divided by their number, which in Flan-T5-small is
    another size.
    """
    for value in inputs:
        free = ValueInfoProto()
        free.CopyFrom(value)
        if value.name.startswith("past_key_values"):
            free.type.tensor_type.shape.dim[3].dim_param = "head_size"
        yield free


def _take_table(encoder: EditedGraph, decoder: EditedGraph) -> None:
    """Have the encoder look tokens up in the blocks of the decoder's tied head, if it has them."""
    lookup = embedding_node(encoder)
    tables = [name for name in decoder.weights if f"{TABLE}{BLOCKS}" in name]
    if lookup is None or not tables:
        return
    stem = tables[0].partition(TABLE)[0]
    encoder.weights[stem] = encoder.weights[lookup.input[0]]
    encoder.set_input(lookup, 0, stem)
    encoder.weights |= {name: decoder.weights[name] for name in tables}


def _write(encoder: EditedGraph, bare: EditedGraph, cached: EditedGraph, files: GraphFiles) -> None:
    write_graphs({files.encoder: encoder, files.decoder: merge_decoders(bare, cached)}, files.weights)
