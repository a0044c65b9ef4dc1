"""Verify a package on the device where it is to run: whole, loadable, the same outputs, how fast, how much memory."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeelad.engine.memory import peak_memory_bytes
from edgeelad.errors import ModelError, PackageError
from edgeelad.package.golden import GOLDEN_FILE, Golden, GoldenStudent, Mismatch, compare, read_golden
from edgeelad.package.manifest import MANIFEST_FILE, check_checksums
from edgeelad.package.open import Package, open_package


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was found; a package that is missing, torn or altered is an error instead.

    Attributes:
        path: The package.
        name: The student's name.
        quantization: Of the graph that runs.
        num_files: Files whose checksums were compared; all match.
        num_bytes: Their size.
        unlisted_files: Files in the folder that the manifest does not name; they were not checked.
        num_golden: Golden outputs compared; 0 where only checksums were asked for.
        mismatches: Those that came out otherwise here.
        load_s: Seconds to open the student; None where it was not opened.
        tokens_per_s: Tokens generated a second, one question at a time; None where it was not opened.
        peak_memory_bytes: Most memory that this process has held so far; None where the system does not say.
        onnxruntime: Version of onnxruntime here.
    """

    path: str
    name: str
    quantization: str
    num_files: int
    num_bytes: int
    unlisted_files: tuple[str, ...]
    num_golden: int
    mismatches: tuple[Mismatch, ...]
    load_s: float | None
    tokens_per_s: float | None
    peak_memory_bytes: int | None
    onnxruntime: str

    @property
    def is_ok(self) -> bool:
        """Whether everything that was compared is the same."""
        return not self.mismatches

    def to_json(self) -> dict[str, Any]:
        """The findings as JSON."""
        return {"is_ok": self.is_ok, **asdict(self)}

    def text(self) -> str:
        """The findings, one a line."""
        lines = [
            f"{self.path}: {self.name}, {self.quantization}",
            f"checksums: {self.num_files} files, {self.num_bytes / 1e6:,.1f} MB, all match",
        ]
        if self.unlisted_files:
            lines.append(f"not in the manifest, not checked: {', '.join(self.unlisted_files)}")
        if self.load_s is not None:
            lines.append(f"graph: loads in {self.load_s:.2f} s, onnxruntime {self.onnxruntime} has its operators")
            same = self.num_golden - len(self.mismatches)
            lines.append(f"golden outputs: {same} of {self.num_golden} the same, token for token")
        lines.extend(_mismatch_text(mismatch) for mismatch in self.mismatches)
        if self.tokens_per_s is not None:
            lines.append(f"speed: {self.tokens_per_s:,.0f} tokens/s, one question at a time")
        if self.peak_memory_bytes is not None and self.load_s is not None:
            lines.append(f"memory: {self.peak_memory_bytes / 1e6:,.0f} MB at most")
        lines.append("verified" if self.is_ok else "NOT verified: this device computes other outputs")
        return "\n".join(lines)


def verify_package(path: Path, *, deep: bool = True, num_threads: int = 1) -> VerifyReport:
    """Verify a package here.

    Args:
        path: The package folder.
        deep: Whether to open the student and compare its golden outputs; otherwise only checksums are compared.
        num_threads: Threads of the ONNX session.

    Raises:
        PackageError: It is missing, torn, altered, from a newer edgeelad, or its graph cannot be run here.
    """
    import onnxruntime

    package = open_package(path)
    check_checksums(path, package.manifest)
    golden = read_golden(path) if deep else []
    if deep and not golden:
        raise PackageError(f"{path / GOLDEN_FILE}: holds no golden outputs; write the package again")
    load_s, tokens_per_s, mismatches = _run(package, golden, num_threads) if deep else (None, None, ())
    return VerifyReport(
        path=str(path),
        name=package.manifest.name,
        quantization=package.manifest.quantization,
        num_files=len(package.manifest.files),
        num_bytes=package.num_bytes,
        unlisted_files=_unlisted(package),
        num_golden=len(golden),
        mismatches=mismatches,
        load_s=load_s,
        tokens_per_s=tokens_per_s,
        peak_memory_bytes=peak_memory_bytes(),
        onnxruntime=onnxruntime.__version__,
    )


def _run(package: Package, golden: list[Golden], num_threads: int) -> tuple[float, float, tuple[Mismatch, ...]]:
    """Open the student and compare; gives seconds to open it, tokens a second, and what differs."""
    start = time.perf_counter()
    try:
        student = GoldenStudent(package.path, package.precision, num_threads)
    except ModelError as error:
        raise PackageError(f"{package.path}: the student cannot be opened here: {error}") from error
    load_s = time.perf_counter() - start
    compare(student, golden[0])  # once without the clock: the first run allocates
    start = time.perf_counter()
    found = [compare(student, row) for row in golden]
    seconds = time.perf_counter() - start
    num_tokens = sum(len(row.completion_ids) for row in golden)
    return load_s, num_tokens / seconds, tuple(mismatch for mismatch in found if mismatch is not None)


def _unlisted(package: Package) -> tuple[str, ...]:
    listed = {MANIFEST_FILE, *(entry.path for entry in package.manifest.files)}
    there = (path.relative_to(package.path).as_posix() for path in package.path.rglob("*") if path.is_file())
    return tuple(sorted(path for path in there if path not in listed))


def _mismatch_text(mismatch: Mismatch) -> str:
    where = "the prompt" if mismatch.is_prompt else "the explanation"
    expected = "no more token" if mismatch.expected is None else f"token {mismatch.expected}"
    found = "no more token" if mismatch.found is None else f"token {mismatch.found}"
    return f"  {mismatch.id}: {where} differs from token {mismatch.place} on: {found} instead of {expected}"
