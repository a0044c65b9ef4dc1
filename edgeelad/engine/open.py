"""Find the graphs of an exported student or a package, and open the generator that serves them best.

    engine_lanes.onnx     many questions at a time: scoring
    engine.onnx           one at a time: an edge device
    model.onnx            an architecture without engine graphs, or a folder of other origin: the simple generator

and the same with the suffix `_quantized`; in the folder itself, or in its folder `onnx`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from edgeelad.engine.codec import Codec
from edgeelad.engine.generate import TokenGenerator
from edgeelad.engine.packed.generator import PackedGenerator
from edgeelad.engine.packed.graph import PackedGraph
from edgeelad.engine.packed.names import VOCAB_SIZE_KEY
from edgeelad.engine.plain.batch import BatchGenerator
from edgeelad.engine.session import OnnxGraph
from edgeelad.engine.shape import CacheShape, cache_shape
from edgeelad.errors import ModelError

Precision = Literal["fp32", "int8"]
GRAPH_FILES: dict[Precision, str] = {"fp32": "model.onnx", "int8": "model_quantized.onnx"}
ENGINE_FILES: dict[Precision, str] = {"fp32": "engine.onnx", "int8": "engine_quantized.onnx"}
LANES_FILES: dict[Precision, str] = {"fp32": "engine_lanes.onnx", "int8": "engine_lanes_quantized.onnx"}


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
    standard = find_graph(folder, precision)
    engine = find_engine(standard, with_lanes=with_lanes)
    shape = cache_shape(codec.config)
    if engine is None:
        graph = OnnxGraph(standard, num_threads, shape)
        if VOCAB_SIZE_KEY in graph.session.get_modelmeta().custom_metadata_map:
            raise ModelError(
                f"{folder}: {ENGINE_FILES[_precision(standard)]} is missing beside {standard.name}; copy the folder "
                "again, or export the student again with `edgeelad export`"
            )
        _check_vocabulary(folder, graph.vocab_size, codec)
        return BatchGenerator(graph, batch_size, kv_bytes)
    packed = PackedGraph(engine, num_threads)
    found = CacheShape(len(packed.past_names) // 2, packed.num_heads, packed.head_dim)
    if shape is not None and shape != found:
        raise ModelError(
            f"{engine}: the graph caches {found}, but config.json beside it says {shape}: they belong to different "
            "students; export the student again with `edgeelad export`"
        )
    _check_vocabulary(folder, packed.vocab_size, codec)
    return PackedGenerator(packed, batch_size, kv_bytes=kv_bytes)


def find_graph(folder: Path, precision: Precision | None) -> Path:
    """The standard graph of an exported folder or a package.

    Raises:
        ModelError: There is none.
    """
    wanted = [precision] if precision is not None else list(GRAPH_FILES)
    for name in wanted:
        for place in (folder, folder / "onnx"):
            if (place / GRAPH_FILES[name]).is_file():
                return place / GRAPH_FILES[name]
    others = [name for name in GRAPH_FILES if name not in wanted]
    there = [name for name in others if any(folder.glob(f"**/{GRAPH_FILES[name]}"))]
    names = " or ".join(GRAPH_FILES[name] for name in wanted)
    advice = f"use its {there[0]} graph" if there else "export the student with `edgeelad export`"
    raise ModelError(f"{folder}: no {names} in it or in its folder onnx; {advice}")


def find_engine(standard: Path, *, with_lanes: bool) -> Path | None:
    """The engine's graph beside a standard one, with lanes or without as far as there is a choice; None without."""
    precision = _precision(standard)
    files = (LANES_FILES[precision], ENGINE_FILES[precision])
    for file in files if with_lanes else reversed(files):
        if (standard.parent / file).is_file():
            return standard.parent / file
    return None


def _precision(standard: Path) -> Precision:
    (precision,) = (name for name, file in GRAPH_FILES.items() if file == standard.name)
    return precision


def _check_vocabulary(folder: Path, vocab_size: int, codec: Codec) -> None:
    if vocab_size < codec.vocab_size:
        raise ModelError(
            f"{folder}: the graph knows {vocab_size} tokens, config.json {codec.vocab_size}: they belong to different "
            "students; export the student again with `edgeelad export`"
        )
