"""digests.json: the SHA-256 of every file that a stage finished, so that a resumed run rests on what it left.

Recorded when a stage ends, checked before a resumed run skips it. A file that was altered is an error. One that was
lost is made again, and must come out the same if later stages rest on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from edgeelad.errors import RunError
from edgeelad.files import read_errors, sha256_of
from edgeelad.record_files import RecordFile

FileDigests = dict[str, str]  # by path in the output; "" for an output that is a file


@dataclass(frozen=True, slots=True)
class Digests:
    """The digests of each output (by its path in the run folder), in the order in which they were finished."""

    outputs: Mapping[str, FileDigests] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DigestBook:
    """The digests of a run folder."""

    folder: Path

    @property
    def file(self) -> RecordFile[Digests]:
        """Where they are kept."""
        return RecordFile(self.folder / "digests.json", Digests)

    def is_done(self, outputs: Iterable[Path]) -> bool:
        """Whether a stage's outputs are all there, as it left them.

        One without a digest is taken as it is: its stage was killed after the output was whole and before its digest
        was recorded.

        Raises:
            RunError: One was changed since; names the file.
        """
        known = dict(self._read())
        paths = list(outputs)
        unknown = {}
        for path in paths:
            if path.exists():
                name, found = self._name(path), digests_of(path)
                if name in known:
                    _check(path, found, known[name])
                else:
                    unknown[name] = found
        if unknown:
            self.file.write(Digests({**known, **unknown}))
        return all(path.exists() for path in paths)

    def check(self, path: Path, remedy: str | None = None) -> None:
        """Check an output that is about to be read, if its digest was recorded; `remedy` is what the error advises.

        Raises:
            RunError: It was changed since, or is missing.
        """
        expected = self._read().get(self._name(path))
        if expected is not None:
            _check(path, digests_of(path) if path.exists() else {}, expected, remedy)

    @contextmanager
    def recording(self, *outputs: Path, is_derived: bool = False) -> Iterator[None]:
        """Record the digests of the outputs that the block writes.

        Args:
            outputs: Those that are there are forgotten first. One that was lost must come out the same.
            is_derived: Whether they are derived from others anew each time; then a lost one may come out differently.

        Raises:
            RunError: An output that had been lost came out differently, and later outputs rest on the first one.
        """
        self.forget(path for path in outputs if is_derived or path.exists())
        yield
        self._record(outputs)

    def forget(self, outputs: Iterable[Path]) -> None:
        """Drop the digests of outputs that are removed or about to be replaced."""
        known = self._read()
        forgotten = set(map(self._name, outputs)) & set(known)
        if forgotten:
            self.file.write(Digests({name: digest for name, digest in known.items() if name not in forgotten}))

    def _record(self, outputs: Iterable[Path]) -> None:
        known = dict(self._read())
        made = {self._name(path): path for path in outputs}
        for name, path in made.items():
            found = digests_of(path)
            if name in known and known[name] != found and set(list(known)[list(known).index(name) :]) - set(made):
                raise RunError(
                    f"{path}: was lost, and came out differently when it was made again; what later stages made rests "
                    "on the lost one: restore it from a copy, or start a new run with another --out"
                )
            known[name] = found
        self.file.write(Digests(known))

    def _read(self) -> Mapping[str, FileDigests]:
        return self.file.read().outputs if self.file.exists() else {}

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()


def _check(path: Path, found: FileDigests, expected: FileDigests, remedy: str | None = None) -> None:
    for name, digest in expected.items():
        if found.get(name) != digest:
            what = "changed since the run wrote it" if name in found else "missing"
            remedy = remedy or f"restore it, or delete {path} to have it made again on --resume"
            raise RunError(f"{path / name if name else path}: {what}; {remedy}")


def digests_of(path: Path) -> FileDigests:
    """The digests of a file, or of every file in a folder except hidden ones.

    Raises:
        RunError: A file cannot be read.
    """
    if not path.is_dir():
        with read_errors(path):
            return {"": sha256_of(path)}
    found = {}
    for inner in sorted(path.rglob("*")):
        name = inner.relative_to(path).as_posix()
        if inner.is_file() and not name.startswith("."):
            with read_errors(inner):
                found[name] = sha256_of(inner)
    return found
