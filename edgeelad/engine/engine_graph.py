"""Open a student's engine graph. Light: it can begin while the tokenizer and the generators are still imported."""

from __future__ import annotations

from pathlib import Path

from edgeelad.engine.graph_files import find_graphs
from edgeelad.engine.options import EngineOptions
from edgeelad.engine.packed.graph import PackedGraph
from edgeelad.engine.session import limit_memory

PACKAGE_MANIFEST = "manifest.json"  # `package.manifest` is above this layer


def open_engine(folder: Path, options: EngineOptions) -> PackedGraph | None:
    """Open the engine graph of an exported folder or a package; None if it has none.

    Raises:
        ModelError: A file is missing or cannot be used.
    """
    if (folder / PACKAGE_MANIFEST).exists():  # a package, which may be a stranger's
        limit_memory()
    engine = find_graphs(folder, options.precision).find_engine(options.graph)
    return None if engine is None else PackedGraph(engine, options.num_threads, spin_us=options.spin_us)
