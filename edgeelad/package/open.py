"""Open a package: its manifest read, its files there with the right sizes. Quick; `verify` checks what is in them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeelad.engine.graph_files import Precision
from edgeelad.package.manifest import MANIFEST_FILE, Manifest, check_sizes, read_manifest


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


def open_package(path: Path) -> Package:
    """Read a package's manifest and check that its files are there, with their sizes.

    Raises:
        PackageError: It is missing, torn, from a newer edgeelad, or names a path outside the folder.
    """
    manifest = read_manifest(path)
    check_sizes(path, manifest)
    return Package(path, manifest)


def is_package(path: Path) -> bool:
    """Whether a folder looks like a package (it has a manifest)."""
    return (path / MANIFEST_FILE).is_file()
