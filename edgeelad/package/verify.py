"""Verify a package on the device where it is to run: complete, loadable, the same outputs, its speed and memory."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from edgeelad.engine.memory import available_memory_bytes, peak_memory_bytes
from edgeelad.engine.onnx_file import check_graph
from edgeelad.errors import ModelError, PackageError
from edgeelad.package.golden import Golden, GoldenStudent, Mismatch, compare, read_golden
from edgeelad.package.manifest import CARD_FILE, GOLDEN_FILE, MANIFEST_FILE, check_checksum, is_card_edited
from edgeelad.package.open import Package, open_package
from edgeelad.package.runtimes import check_runtime_settings

SLOW_S = 60  # an explanation that takes longer is of no use to a person who waits
NUM_TIES_SHOWN = 3
RUNTIME_BYTES = 90_000_000  # Python, onnxruntime and a KV cache, beside the weights
# what some runtime or loader opens, wherever it is in the folder
WEIGHTS = (
    ".bin", ".data", ".gguf", ".graph", ".graph_data", ".model", ".onnx", ".onnx_data", ".ort", ".pkl", ".pt", ".pth",
    ".safetensors",
)  # fmt: skip
SETTINGS_AND_CODE = (".dll", ".dylib", ".jinja", ".json", ".py", ".so")
RUNTIME_NAMES = ("merges.txt", "vocab.txt")


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was found; a package that is incomplete or altered is an error instead.

    Attributes:
        path: The package.
        name: The student's name.
        quantization: Precision of the graph that runs.
        graph: Path of the graph that runs.
        num_files: Files whose checksums were compared; all match.
        num_bytes: Their size.
        unlisted_files: Files that the manifest does not list and that some runtime might open; the package is not
            verified.
        ignored_files: Other files that the manifest does not list, and the model card if it was edited; not checked.
        num_golden: Golden outputs compared.
        mismatches: Where they came out differently here.
        load_s: Seconds to open the student.
        tokens_per_s: Tokens generated per second, one question at a time.
        max_tokens: Maximum tokens per explanation, by the manifest.
        peak_memory_bytes: Peak memory of this process so far; None if the system does not tell.
        onnxruntime: Version of onnxruntime here.
        written_with: Version of onnxruntime that wrote the golden outputs; None if unknown.
    """

    path: str
    name: str
    quantization: str
    graph: str
    num_files: int
    num_bytes: int
    unlisted_files: tuple[str, ...]
    ignored_files: tuple[str, ...]
    num_golden: int
    mismatches: tuple[Mismatch, ...]
    load_s: float
    tokens_per_s: float
    max_tokens: int
    peak_memory_bytes: int | None
    onnxruntime: str
    written_with: str | None

    @property
    def is_ok(self) -> bool:
        """Whether all outputs are the same but for near ties, and every file that could be opened was checked."""
        return self.has_ties_only and not self.unlisted_files

    @property
    def has_ties_only(self) -> bool:
        """Whether every difference is a near tie."""
        return all(mismatch.is_tie for mismatch in self.mismatches)

    @property
    def explanation_s(self) -> float:
        """Seconds that the longest explanation takes here; 0 if the golden outputs have no tokens."""
        return self.max_tokens / self.tokens_per_s if self.tokens_per_s else 0.0

    def to_json(self) -> dict[str, Any]:
        """The findings as JSON."""
        return {"is_ok": self.is_ok, **asdict(self)}

    def text(self) -> str:
        """The findings, one per line."""
        same = self.num_golden - len({mismatch.id for mismatch in self.mismatches})
        lines = [
            f"{self.path}: {self.name}, {self.quantization}, runs {self.graph}",
            f"checksums: {self.num_files} files, {self.num_bytes / 1e6:,.1f} MB, all match",
            f"graph: loads in {self.load_s:.2f} s, onnxruntime {self.onnxruntime} has its operators",
            f"golden outputs: {same} of {self.num_golden} the same, token for token",
            *self._mismatch_lines(),
            f"speed: {self.tokens_per_s:,.0f} tokens/s, one question at a time: up to {self.explanation_s:,.1f} s for "
            f"an explanation of up to {self.max_tokens} tokens",
        ]
        if self.explanation_s > SLOW_S:
            lines.append(f"this device is too small: an explanation may take longer than {SLOW_S} s")
        if self.peak_memory_bytes is not None:
            lines.append(f"memory: up to {self.peak_memory_bytes / 1e6:,.0f} MB")
        if self.ignored_files:
            lines.append(f"not checked: {', '.join(self.ignored_files)}")
        if self.unlisted_files:
            lines.append(f"NOT verified: not in the manifest: {', '.join(self.unlisted_files)}; remove these files")
        if self.mismatches:
            is_other = self.written_with not in (None, self.onnxruntime)
            written = f"; they were written with onnxruntime {self.written_with}" if is_other else ""
            ties = "this device rounds otherwise, and so decides near ties otherwise"
            lines.append((ties if self.has_ties_only else "NOT verified: this device computes other outputs") + written)
        return "\n".join([*lines, "verified"] if self.is_ok else lines)

    def _mismatch_lines(self) -> list[str]:
        """All differences but near ties, and the first of those."""
        ties = [mismatch for mismatch in self.mismatches if mismatch.is_tie]
        shown = [mismatch for mismatch in self.mismatches if mismatch not in ties[NUM_TIES_SHOWN:]]
        lines = [_mismatch_text(mismatch) for mismatch in shown]
        if len(shown) < len(self.mismatches):
            more, lead = len(self.mismatches) - len(shown), max(tie.lead or 0.0 for tie in ties)
            lines.append(f"  {more} more near ties, of up to {lead:.2f} nats")
        return lines


def verify_package(path: Path, *, num_threads: int = 1) -> VerifyReport:
    """Verify a package here: every checksum, and its golden outputs.

    Args:
        path: The package folder.
        num_threads: Threads of the ONNX session.

    Raises:
        PackageError: It is missing, incomplete or altered, from a newer edgeelad, has settings that load code, does not
            fit into memory, or its graph cannot be run here.
    """
    import onnxruntime

    package = open_package(path)
    checked = [entry for entry in package.manifest.files if entry.path != CARD_FILE]
    for entry in checked:
        check_checksum(path, entry)
    check_runtime_settings(path, package.manifest)
    _check_memory(package)
    golden = read_golden(path)
    if not golden:
        raise PackageError(f"{path / GOLDEN_FILE}: contains no golden outputs; write the package again")
    load_s, tokens_per_s, mismatches = _run(package, golden, num_threads)
    unlisted = _unlisted(package)
    written_with = package.manifest.versions.get("onnxruntime")
    return VerifyReport(
        path=str(path),
        name=package.manifest.name,
        quantization=package.manifest.quantization,
        graph=package.manifest.graph,
        num_files=len(checked),
        num_bytes=sum(entry.size for entry in checked),
        unlisted_files=tuple(name for name in unlisted if _may_be_opened(name)),
        ignored_files=(
            *(name for name in unlisted if not _may_be_opened(name)),
            *([f"{CARD_FILE} (edited)"] if is_card_edited(path, package.manifest) else []),
        ),
        num_golden=len(golden),
        mismatches=mismatches,
        load_s=load_s,
        tokens_per_s=tokens_per_s,
        max_tokens=package.manifest.max_explanation_tokens,
        peak_memory_bytes=peak_memory_bytes(),
        onnxruntime=onnxruntime.__version__,
        written_with=None if written_with is None else str(written_with),
    )


def _run(package: Package, golden: list[Golden], num_threads: int) -> tuple[float, float, tuple[Mismatch, ...]]:
    """Open the student and compare; gives seconds to open it, tokens per second, and what differs."""
    start = time.perf_counter()
    try:
        student = GoldenStudent(package.path, package.precision, num_threads)
    except ModelError as error:
        raise PackageError(f"{package.path}: the student cannot be opened here: {error}") from error
    load_s = time.perf_counter() - start
    compare(student, golden[0])  # once without the clock: the first run allocates
    student.num_written, student.seconds = 0, 0.0
    found = tuple(mismatch for row in golden for mismatch in compare(student, row))
    return load_s, student.num_written / student.seconds if student.seconds else 0.0, found


def _check_memory(package: Package) -> None:
    """Raise PackageError if the student does not fit into the memory that is free here."""
    weights = [package.graph.parent / name for name in check_graph(package.graph).locations]
    needed = RUNTIME_BYTES + sum(file.stat().st_size for file in (package.graph, *weights))
    available = available_memory_bytes()
    if available is not None and available < needed:
        raise PackageError(
            f"{package.path}: this device is too small: the student takes about {needed / 1e6:,.0f} MB of memory, and "
            f"{available / 1e6:,.0f} MB are free"
        )


def _unlisted(package: Package) -> list[str]:
    listed = {MANIFEST_FILE, *package.manifest.paths}
    there = (path.relative_to(package.path).as_posix() for path in package.path.rglob("*") if not path.is_dir())
    return sorted(path for path in there if path not in listed)


def _may_be_opened(path: str) -> bool:
    """Whether some runtime or loader opens a file of this name."""
    pure = PurePosixPath(path)
    return (
        pure.suffix.lower() in (*WEIGHTS, *SETTINGS_AND_CODE) or ".onnx" in pure.suffixes or pure.name in RUNTIME_NAMES
    )


def _mismatch_text(mismatch: Mismatch) -> str:
    where = "the prompt" if mismatch.is_prompt else "the explanation"
    expected = "no more token" if mismatch.expected is None else f"token {mismatch.expected}"
    found = "no more token" if mismatch.found is None else f"token {mismatch.found}"
    if mismatch.is_tie:
        tie = f"{found} leads {expected} by {mismatch.lead:.2f} nats"
        return f"  {mismatch.id}: a near tie at token {mismatch.place}: {tie}"
    return f"  {mismatch.id}: {where} differs from token {mismatch.place} on: {found} instead of {expected}"
