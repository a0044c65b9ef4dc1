"""Read, check and describe a package's manifest: its files, its origin, its figures.

The manifest is written last, so a folder without one is incomplete. Paths in it are relative, with forward slashes, and
stay in the folder. Everything in it comes from whoever made the package: types, sizes and characters are checked.
Knows no models and no sessions.
"""

from __future__ import annotations

import json
import math
import mmap
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, get_args

from edgeelad.engine.graph_files import PRECISIONS, Precision
from edgeelad.errors import PackageError
from edgeelad.files import sha256_of
from edgeelad.records import AnswerKind

MANIFEST_FILE = "manifest.json"
CARD_FILE = "README.md"
GOLDEN_FILE = "golden.jsonl"
SCHEMA_VERSION = 1
WRITTEN_BY = "edgeelad"
MAX_MANIFEST_BYTES = 4 << 20
MAX_TEXT = 1000  # characters of a text in a manifest
MAX_NUMBER = 1 << 53  # what JSON readers of other languages keep exactly
OLDEST_STATED = "1.22"  # of packages that do not state their oldest onnxruntime
_VERSION = re.compile(r"\d{1,4}\.\d{1,4}")
_SHA256 = re.compile("[0-9a-f]{64}")
_PAGE_BYTES = 4096

Scalar = float | int | str | bool | None


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a package: its path in the folder, its size and its SHA-256 (hexadecimal).

    `zero_pages` is the number of its pages that are all zeros, None in manifests of earlier versions.
    """

    path: str
    size: int
    sha256: str
    zero_pages: int | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a package states about itself.

    Attributes:
        name: Name of the student, as a served model.
        base_model: The student's base model, a folder or a Hugging Face id.
        quantization: Precision of the graphs: "int8", "int4" or "fp32".
        graph: Path of the graph that `edgeelad run`, `serve` and `verify` open.
        standard_graph: Path of the graph with standard names, for other runtimes; the same if there is no other.
        prompt: File of the prompt template, and whether it is a chat template.
        answer_kind: How answers are read; "text" for a pool of several kinds.
        answer_format: How an explanation states its answer.
        max_explanation_tokens: Maximum tokens per explanation, as in the run.
        metrics: Figures of the run by name; None for an unknown one.
        certificate: The outcome of the last look at the audit sample, or None.
        versions: Versions of the libraries that it was written with.
        files: Every file but the manifest.
        oldest_onnxruntime: The oldest release of onnxruntime that runs the graphs, as "1.22".
        schema_version: Of this manifest.
        written_by: Always "edgeelad".
    """

    name: str
    base_model: str
    quantization: Precision
    graph: str
    standard_graph: str
    prompt: Mapping[str, Scalar]
    answer_kind: AnswerKind
    answer_format: str
    max_explanation_tokens: int
    metrics: Mapping[str, Scalar]
    certificate: Mapping[str, Scalar] | None
    versions: Mapping[str, Scalar]
    files: tuple[FileEntry, ...] = field(default=())
    oldest_onnxruntime: str = OLDEST_STATED
    schema_version: int = SCHEMA_VERSION
    written_by: str = WRITTEN_BY

    @property
    def paths(self) -> frozenset[str]:
        """The paths of all files."""
        return frozenset(entry.path for entry in self.files)

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
        if path.exists() and not path.is_file():
            raise PackageError(f"{path}: not a file; copy the package again")
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise PackageError(f"{path}: larger than any manifest of edgeelad; copy the package again")
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        is_export = any(folder.glob("*.onnx"))
        what = "an exported ONNX folder, not a package" if is_export else "not a package, or an incomplete one"
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
        PackageError: It is not edgeelad's, damaged, from a newer edgeelad, or names a path outside the folder.
    """
    if not isinstance(data, dict) or data.get("written_by") != WRITTEN_BY:
        raise PackageError(
            f"{source}: not a manifest of edgeelad; give the package folder that `edgeelad distill` wrote"
        )
    version = data.get("schema_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise PackageError(f"{source}: damaged: schema_version is {_shown(version)}; copy the package again")
    if version > SCHEMA_VERSION:
        raise PackageError(
            f"{source}: written by a newer edgeelad (schema {_shown(version)}, this one reads up to {SCHEMA_VERSION}); "
            "upgrade with: pip install -U edgeelad"
        )
    try:
        files = tuple(FileEntry(**entry) for entry in data["files"])
        manifest = Manifest(**{**data, "files": files})
        _check_values(manifest)
    except (KeyError, TypeError, ValueError) as error:
        raise PackageError(f"{source}: damaged ({printable(str(error))}); copy the package again") from error
    for path in (manifest.graph, manifest.standard_graph, *(entry.path for entry in files)):
        if not is_inside(path):
            raise PackageError(f"{source}: names {_shown(path)}, a path outside the package; do not use this package")
    missing = {manifest.graph, manifest.standard_graph} - manifest.paths
    if missing:
        raise PackageError(
            f"{source}: damaged: the graph {min(missing)} is not among its files; copy the package again"
        )
    return manifest


def is_inside(path: str) -> bool:
    """Whether a path of a manifest stays in the folder, on every system."""
    pure = PurePosixPath(path)
    return path == str(pure) != "." and not pure.is_absolute() and ".." not in pure.parts and not set(path) & set("\\:")


def describe_file(folder: Path, path: str) -> FileEntry:
    """The entry of an existing file."""
    file = folder / path
    return FileEntry(path, file.stat().st_size, sha256_of(file), _count_zero_pages(file))


def check_files(folder: Path, manifest: Manifest) -> None:
    """Check that every file is there, complete, and not zeros where it had content; the model card may be edited.

    Quick: a file is hashed only if more or fewer of its pages are all zeros, as a power cut leaves them.

    Raises:
        PackageError: The first file that is not as the manifest says.
    """
    for entry in manifest.files:
        if entry.path == CARD_FILE:
            continue
        path = folder / entry.path
        with _reading(folder, entry):
            size = path.stat().st_size if path.is_file() else None
            if size is None:
                raise PackageError(f"{folder}: {entry.path} is missing; copy the package again")
            if not _is_own(folder, path):
                raise PackageError(f"{folder}: {entry.path} is a link out of the package; copy the package again")
            if size != entry.size:
                raise PackageError(
                    f"{folder}: {entry.path} has {size:,} bytes instead of {entry.size:,}; copy the package again"
                )
            if _count_zero_pages(path) != (entry.zero_pages or 0):
                check_checksum(folder, entry)


def check_checksum(folder: Path, entry: FileEntry) -> None:
    """Check one file's SHA-256.

    Raises:
        PackageError: The file was altered.
    """
    with _reading(folder, entry):
        found = sha256_of(folder / entry.path)
    if found != entry.sha256:
        raise PackageError(
            f"{folder}: {entry.path} was altered (SHA-256 {found[:12]}… instead of {entry.sha256[:12]}…); "
            "copy the package again"
        )


def is_card_edited(folder: Path, manifest: Manifest) -> bool:
    """Whether the model card is another one than was written; a person may edit it."""
    card = next((entry for entry in manifest.files if entry.path == CARD_FILE), None)
    path = folder / CARD_FILE
    return card is not None and path.is_file() and sha256_of(path) != card.sha256


def printable(text: str) -> str:
    """A text on one line, without control characters and marks that reorder text, as a manifest may contain it."""
    return "".join(character for character in " ".join(text.split()) if character.isprintable())[:MAX_TEXT]


@contextmanager
def _reading(folder: Path, entry: FileEntry) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PackageError(
            f"{folder / entry.path}: cannot be read: {error.strerror}; copy the package again"
        ) from error


def _is_own(folder: Path, path: Path) -> bool:
    """Whether a file, links followed, is in the package, or in the Hugging Face cache that the package is a part of."""
    real, root = path.resolve(), folder.resolve()
    return real.is_relative_to(root) or (root.parent.name == "snapshots" and real.parent == root.parents[1] / "blobs")


def _count_zero_pages(path: Path) -> int:
    """The number of pages that are all zeros, where a file system's pages begin."""
    if path.stat().st_size == 0:
        return 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        firsts = data[::_PAGE_BYTES]
        count, page = 0, firsts.find(0)
        while page >= 0:
            count += not data[page * _PAGE_BYTES : (page + 1) * _PAGE_BYTES].strip(b"\0")
            page = firsts.find(0, page + 1)
    return count


def _check_values(manifest: Manifest) -> None:
    for name in ("name", "base_model", "graph", "standard_graph", "answer_format"):
        _check_text(name, getattr(manifest, name))
    if not isinstance(manifest.oldest_onnxruntime, str) or not _VERSION.fullmatch(manifest.oldest_onnxruntime):
        raise ValueError(f"oldest_onnxruntime is {_shown(manifest.oldest_onnxruntime)}, not a release such as 1.22")
    _check_choice("quantization", manifest.quantization, PRECISIONS)
    _check_choice("answer_kind", manifest.answer_kind, get_args(AnswerKind))
    _check_number("max_explanation_tokens", manifest.max_explanation_tokens, 1)
    for name in ("prompt", "metrics", "versions", "certificate"):
        mapping = getattr(manifest, name)
        if name == "certificate" and mapping is None:
            continue
        if not isinstance(mapping, dict):
            raise ValueError(f"{name} is not an object")
        for key, value in mapping.items():
            _check_text(f"a key of {name}", key)
            _check_scalar(f"{name}.{key}", value)
    seen: set[str] = set()
    for entry in manifest.files:
        _check_text("a path in files", entry.path)
        _check_number(f"the size of {entry.path}", entry.size, 0)
        if not isinstance(entry.sha256, str) or not _SHA256.fullmatch(entry.sha256):
            raise ValueError(f"the sha256 of {entry.path} is {_shown(entry.sha256)}")
        if entry.zero_pages is not None:
            _check_number(f"zero_pages of {entry.path}", entry.zero_pages, 0)
        if entry.path.casefold() in seen or entry.path == MANIFEST_FILE:
            raise ValueError(f"{entry.path} is listed twice, or is the manifest itself")
        seen.add(entry.path.casefold())


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str) or not value.isprintable() or len(value) > MAX_TEXT:
        raise ValueError(f"{name} is {_shown(value)}, not a text of up to {MAX_TEXT} printable characters")


def _check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {_shown(value)}, not one of {', '.join(choices)}")


def _check_number(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= MAX_NUMBER:
        raise ValueError(f"{name} is {_shown(value)}, not a number from {least} to 2^53")


def _check_scalar(name: str, value: object) -> None:
    if isinstance(value, str):
        _check_text(name, value)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{name} is {value}")
    elif value is not None and not (isinstance(value, int) and abs(value) <= MAX_NUMBER):
        raise ValueError(f"{name} is {_shown(value)}, not a text, number or boolean")


def _shown(value: object) -> str:
    """A value as an error shows it: escaped, and cut if it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
