"""Open the fastest token generator for an exported student or a package."""

from __future__ import annotations

from pathlib import Path

from edgeelad.engine.codec import Codec
from edgeelad.engine.generate import TokenGenerator
from edgeelad.engine.graph_files import Precision, find_graphs
from edgeelad.engine.packed.generator import PackedGenerator
from edgeelad.engine.packed.graph import PackedGraph
from edgeelad.engine.packed.names import VOCAB_SIZE_KEY
from edgeelad.engine.plain.batch import BatchGenerator
from edgeelad.engine.session import OnnxGraph
from edgeelad.engine.shape import cache_shape
from edgeelad.errors import ModelError


def open_generator(
    folder: Path,
    codec: Codec,
    *,
    num_threads: int = 1,
    batch_size: int = 64,
    precision: Precision | None = None,
    kv_bytes: int | None = None,
    with_lanes: bool = True,
) -> TokenGenerator:
    """Open the generator of a student.

    Args:
        folder: An exported folder or a package.
        codec: The folder's.
        num_threads: Threads of the session.
        batch_size: Sequences that run together at most.
        precision: Which graphs; default: fp32 where there are any, else the quantized ones.
        kv_bytes: Keys and values held at most, as far as one question fits; default: what runs fastest.
        with_lanes: Whether many questions are to run; False for one at a time, as on a device. Each gives a question
            the same bits in any company, but not the bits of the other, which sums up in another order.

    Raises:
        ModelError: A file is missing, cannot be used, or belongs to another student than config.json.
    """
    files = find_graphs(folder, precision)
    engine = files.find_engine(with_lanes=with_lanes)
    shape = cache_shape(codec.config)
    if engine is None:
        graph = OnnxGraph(files.standard, num_threads, shape)
        if VOCAB_SIZE_KEY in graph.session.get_modelmeta().custom_metadata_map:
            raise ModelError(
                f"{folder}: {files.engine.name} is missing beside {files.standard.name}; copy the folder "
                "again, or export the student again with `edgeelad export`"
            )
        _check_vocabulary(folder, graph.vocab_size, codec)
        return BatchGenerator(graph, batch_size, kv_bytes)
    packed = PackedGraph(engine, num_threads)
    if shape is not None and shape != packed.shape:
        raise ModelError(
            f"{engine}: the graph caches {packed.shape}, but config.json says {shape}: they belong to "
            "different students; export the student again with `edgeelad export`"
        )
    _check_vocabulary(folder, packed.vocab_size, codec)
    return PackedGenerator(packed, batch_size, kv_bytes=kv_bytes)


def _check_vocabulary(folder: Path, vocab_size: int, codec: Codec) -> None:
    if vocab_size < codec.vocab_size:
        raise ModelError(
            f"{folder}: the graph knows {vocab_size} tokens, config.json {codec.vocab_size}: they belong to different "
            "students; export the student again with `edgeelad export`"
        )
