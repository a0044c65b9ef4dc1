"""Open the fastest token generator for an exported student or a package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edgeelad.engine.codec import Codec
from edgeelad.engine.engine_graph import open_engine
from edgeelad.engine.generate import TokenGenerator
from edgeelad.engine.graph_files import GraphFiles, find_graphs
from edgeelad.engine.options import EngineOptions
from edgeelad.engine.packed.generator import PackedGenerator
from edgeelad.engine.packed.names import VOCAB_SIZE_KEY
from edgeelad.engine.shape import cache_shape
from edgeelad.errors import ModelError

if TYPE_CHECKING:
    from edgeelad.engine.packed.graph import PackedGraph
    from edgeelad.engine.plain.graph import Graph


def open_generator(
    folder: Path,
    codec: Codec,
    options: EngineOptions,
    engine: Callable[[], PackedGraph | None] | None = None,
) -> TokenGenerator:
    """Open the generator of a student.

    Args:
        folder: An exported folder or a package.
        codec: The folder's.
        options: How to run it.
        engine: Gives its engine graph; None: it is opened here.

    Raises:
        ModelError: A file is missing, cannot be used, or belongs to another student than config.json.
    """
    packed = open_engine(folder, options) if engine is None else engine()
    if packed is None:
        from edgeelad.engine.plain.batch import BatchGenerator  # only students without engine graphs need it
        from edgeelad.engine.plain.graph import OnnxGraph

        files = find_graphs(folder, options.precision)
        graph = open_standard(files, codec, options.num_threads, spin_us=options.spin_us)
        if isinstance(graph, OnnxGraph) and VOCAB_SIZE_KEY in graph.session.get_modelmeta().custom_metadata_map:
            raise ModelError(
                f"{folder}: {files.engine.name} is missing beside {files.standard.name}; copy the folder again, or "
                "export the student again with `edgeelad export`"
            )
        _check_vocabulary(folder, graph.vocab_size, codec)
        return BatchGenerator(graph, options.batch_size, options.kv_bytes)
    shape = cache_shape(codec.config)
    if shape is not None and shape != packed.shape:
        raise ModelError(
            f"{packed.path}: the graph caches {packed.shape}, but config.json says {shape}: they belong to different "
            "students; export the student again with `edgeelad export`"
        )
    _check_vocabulary(folder, packed.vocab_size, codec)
    return PackedGenerator(
        packed,
        options.batch_size,
        kv_bytes=options.kv_bytes,
        is_alone=options.is_alone,
        shared_prompt=codec.shared_prompt,
    )


def open_standard(files: GraphFiles, codec: Codec, num_threads: int = 1, *, spin_us: int = 0) -> Graph:
    """Open the graph, or the two of an encoder-decoder, with standard names.

    Raises:
        ModelError: A file is missing, cannot be used, or belongs to another student than config.json.
    """
    from edgeelad.engine.plain.encoder_decoder import EncoderDecoderGraph
    from edgeelad.engine.plain.graph import OnnxGraph

    shape = cache_shape(codec.config)
    if codec.is_encoder_decoder:
        return EncoderDecoderGraph(files.encoder, files.decoder, codec.start_id, num_threads, shape, spin_us=spin_us)
    return OnnxGraph(files.standard, num_threads, shape, spin_us=spin_us)


def _check_vocabulary(folder: Path, vocab_size: int, codec: Codec) -> None:
    if vocab_size < codec.vocab_size:
        raise ModelError(
            f"{folder}: the graph has {vocab_size} tokens, config.json {codec.vocab_size}: they belong to different "
            "students; export the student again with `edgeelad export`"
        )
