"""Open a package: its manifest read, every file that will be opened there, listed and complete.

Quick; `verify` checks the content.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnxruntime

from edgeelad.engine.graph_files import ONNX_FOLDER, PRECISIONS, GraphFiles, Precision, find_graphs
from edgeelad.engine.onnx_file import check_graph
from edgeelad.engine.session import check_onnxruntime
from edgeelad.errors import ModelError, PackageError
from edgeelad.package.manifest import GOLDEN_FILE, MANIFEST_FILE, Manifest, check_files, read_manifest

# the prompt's name is spelled out: to import `text.prompts`, which reads it, takes longer than all checks here
REQUIRED_FILES = ("config.json", "tokenizer.json", "prompt.json", GOLDEN_FILE)
OPENED_FILES = (*REQUIRED_FILES, "generation_config.json")


@dataclass(frozen=True, slots=True)
class Package:
    """A package folder whose structure is in order."""

    path: Path
    manifest: Manifest

    @property
    def precision(self) -> Precision:
        """The precision of the graph to open."""
        return self.manifest.quantization

    @property
    def graph(self) -> Path:
        """The graph that runs."""
        return self.path / self.manifest.graph

    @property
    def num_bytes(self) -> int:
        """Size of all files that the manifest names."""
        return sum(entry.size for entry in self.manifest.files)


def open_package(path: Path, *, is_device: bool = False) -> Package:
    """Read a package's manifest and check the files that will be opened.

    Args:
        path: The package.
        is_device: Whether only the graph that the manifest names will be opened, as on a device.

    Raises:
        PackageError: It is missing, incomplete or damaged, from a newer edgeelad, or a file that would be opened is not
            in its manifest.
    """
    manifest = read_manifest(path)
    try:
        check_onnxruntime(onnxruntime.__version__, manifest.oldest_onnxruntime)
    except ModelError as error:
        raise PackageError(f"{path}: {error}") from error
    check_files(path, manifest)
    try:
        _check_opened(path, manifest, is_device)
    except ModelError as error:
        raise PackageError(str(error)) from error
    return Package(path, manifest)


def running_graph(folder: Path, precision: Precision) -> str:
    """The path of the graph that runs one question at a time, in a package of this precision.

    Raises:
        ModelError: There is none.
    """
    files = find_graphs(folder, precision)
    return (files.find_engine("engine") or files.standard).relative_to(folder).as_posix()


def is_package(path: Path) -> bool:
    """Whether a folder looks like a package (it has a manifest)."""
    return (path / MANIFEST_FILE).is_file()


def _check_opened(folder: Path, manifest: Manifest, is_device: bool) -> None:
    for name in REQUIRED_FILES:
        if name not in manifest.paths:
            raise PackageError(f"{folder}: its manifest does not list {name}; copy the package again")
    for name in _opened_files(folder, manifest.graph if is_device else None):
        if name not in manifest.paths:
            raise PackageError(
                f"{folder}: {name} would be opened, but its manifest does not list it; remove that file, or copy the "
                "package again"
            )
    graph = running_graph(folder, manifest.quantization)
    if graph != manifest.graph:
        raise PackageError(
            f"{folder}: {graph} would run, but its manifest names {manifest.graph}; copy the package again"
        )


def _opened_files(folder: Path, only: str | None) -> Iterator[str]:
    """The files of a folder that opening the student may open; of the weights, those of one graph only, if named."""
    yield from (name for name in OPENED_FILES if (folder / name).exists())
    for place in (folder, folder / ONNX_FOLDER):
        for graph in dict.fromkeys(graph for precision in PRECISIONS for graph in GraphFiles(place, precision).graphs):
            if graph.exists():
                name = graph.relative_to(folder).as_posix()
                yield name
                if only in (None, name):
                    weights = sorted(check_graph(graph).locations)
                    yield from ((place / name).relative_to(folder).as_posix() for name in weights)
