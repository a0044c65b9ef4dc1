"""A package's manifest: what is in the folder, where it comes from, how well it does; read and checked as a whole.

The manifest is written last, so a folder without one is torn. Paths in it are relative, with forward slashes, and
stay in the folder. Knows no models and no sessions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from edgeelad.engine.graph_files import PRECISIONS, Precision
from edgeelad.errors import PackageError
from edgeelad.records import AnswerKind

MANIFEST_FILE = "manifest.json"
SCHEMA_VERSION = 1
WRITTEN_BY = "edgeelad"
MAX_MANIFEST_BYTES = 4 << 20
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a package: its path in the folder, its size and its SHA-256 (hexadecimal)."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a package says of itself.

    Attributes:
        name: What the student is called, as a served model.
        base_model: The student's base model, a folder or a Hugging Face id.
        quantization: "int8", "int4" or "fp32": what the graph that runs is.
        graph: Path of the graph that runs, in the folder.
        prompt: The prompt template's file, and whether it is a chat template.
        answer_kind: How answers are read; "text" for a pool of several kinds.
        answer_format: How an explanation states its answer.
        max_explanation_tokens: Tokens after which an explanation was cut in the run.
        metrics: Figures of the run by name; None where one is not known.
        certificate: The outcome of the last look at the audit sample, or None.
        versions: Versions of the libraries that it was written with.
        files: Every file but the manifest.
        schema_version: Of this manifest.
        written_by: Always "edgeelad".
    """

    name: str
    base_model: str
    quantization: Precision
    graph: str
    prompt: Mapping[str, Any]
    answer_kind: AnswerKind
    answer_format: str
    max_explanation_tokens: int
    metrics: Mapping[str, float | int | str | None]
    certificate: Mapping[str, Any] | None
    versions: Mapping[str, str]
    files: tuple[FileEntry, ...] = field(default=())
    schema_version: int = SCHEMA_VERSION
    written_by: str = WRITTEN_BY

    def to_json(self) -> dict[str, Any]:
        """The manifest as it is written."""
        head = {"written_by": self.written_by, "schema_version": self.schema_version}
        return {**head, **{name: value for name, value in asdict(self).items() if name not in head}}


def read_manifest(folder: Path) -> Manifest:
    """Read and check a package's manifest; its files are not looked at.

    Raises:
        PackageError: It is missing, damaged, from a newer edgeelad, or names a path outside the folder.
    """
    path = folder / MANIFEST_FILE
    if not folder.is_dir():
        raise PackageError(f"{folder}: no such package folder")
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise PackageError(f"{path}: larger than any manifest of edgeelad; copy the package again")
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        what = (
            "an exported ONNX folder, not a package" if list(folder.glob("*.onnx")) else "not a package, or a torn one"
        )
        raise PackageError(
            f"{folder}: {what}: {MANIFEST_FILE} is missing; `edgeelad distill` writes packages"
        ) from None
    except OSError as error:
        raise PackageError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise PackageError(f"{path}: damaged ({error}); copy the package again") from error
    return parse_manifest(data, str(path))


def parse_manifest(data: Any, source: str) -> Manifest:
    """Check a manifest's JSON and make the record.

    Raises:
        PackageError: It is not edgeelad's, from a newer edgeelad, or names a path outside the folder.
    """
    if not isinstance(data, dict) or data.get("written_by") != WRITTEN_BY:
        raise PackageError(
            f"{source}: not a manifest of edgeelad; give the package folder that `edgeelad distill` wrote"
        )
    version = data.get("schema_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise PackageError(f"{source}: damaged: schema_version is {version!r}; copy the package again")
    if version > SCHEMA_VERSION:
        raise PackageError(
            f"{source}: written by a newer edgeelad (schema {version}, this one reads up to {SCHEMA_VERSION}); "
            "upgrade with: pip install -U edgeelad"
        )
    try:
        files = tuple(FileEntry(**entry) for entry in data["files"])
        manifest = Manifest(**{**data, "files": files})
        _check_types(manifest)
    except (KeyError, TypeError, ValueError) as error:
        raise PackageError(f"{source}: damaged ({error}); copy the package again") from error
    for path in (manifest.graph, *(entry.path for entry in files)):
        _check_path(path, source)
    if manifest.graph not in {entry.path for entry in files}:
        raise PackageError(
            f"{source}: damaged: the graph {manifest.graph} is not among its files; copy the package again"
        )
    return manifest


def describe_file(folder: Path, path: str) -> FileEntry:
    """The entry of a file that is there."""
    return FileEntry(path, (folder / path).stat().st_size, sha256_of(folder / path))


def check_sizes(folder: Path, manifest: Manifest) -> None:
    """Check that every file is there and has its size.

    Raises:
        PackageError: The first file that is missing or has another size.
    """
    for entry in manifest.files:
        path = folder / entry.path
        try:
            size = path.stat().st_size if path.is_file() else None
        except OSError as error:
            raise PackageError(f"{path}: cannot be read: {error.strerror}; copy the package again") from error
        if size is None:
            raise PackageError(f"{folder}: {entry.path} is missing; copy the package again")
        if size != entry.size:
            raise PackageError(
                f"{folder}: {entry.path} has {size:,} bytes instead of {entry.size:,}; copy the package again"
            )


def check_checksums(folder: Path, manifest: Manifest) -> None:
    """Check every file's SHA-256.

    Raises:
        PackageError: The first file that was altered.
    """
    for entry in manifest.files:
        path = folder / entry.path
        try:
            found = sha256_of(path)
        except OSError as error:
            raise PackageError(f"{path}: cannot be read: {error.strerror}; copy the package again") from error
        if found != entry.sha256:
            raise PackageError(
                f"{folder}: {entry.path} was altered (SHA-256 {found[:12]}… instead of {entry.sha256[:12]}…); "
                "copy the package again"
            )


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal; constant memory."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _check_types(manifest: Manifest) -> None:
    texts = (manifest.name, manifest.base_model, manifest.quantization, manifest.graph, manifest.answer_format)
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("name, base_model, quantization, graph and answer_format must be texts")
    mappings = (manifest.prompt, manifest.metrics, manifest.versions, manifest.certificate or {})
    if not all(isinstance(mapping, dict) for mapping in mappings):
        raise ValueError("prompt, metrics, versions and certificate must be objects")
    if manifest.answer_kind not in ("number", "choice", "boolean", "text"):
        raise ValueError(f"answer_kind is {manifest.answer_kind!r}")
    if manifest.quantization not in PRECISIONS:
        raise ValueError(f"quantization is {manifest.quantization!r}")
    if not isinstance(manifest.max_explanation_tokens, int) or manifest.max_explanation_tokens < 1:
        raise ValueError(f"max_explanation_tokens is {manifest.max_explanation_tokens!r}")
    for entry in manifest.files:
        if not isinstance(entry.path, str) or not isinstance(entry.sha256, str) or not isinstance(entry.size, int):
            raise ValueError(f"the entry of {entry.path!r} is malformed")


def _check_path(path: str, source: str) -> None:
    pure = PurePosixPath(path)
    is_drive = len(path) > 1 and path[1] == ":"
    if not path or pure.is_absolute() or is_drive or "\\" in path or "\0" in path or ".." in pure.parts:
        raise PackageError(f"{source}: names {path!r}, a path outside the package; do not use this package")
