"""Write files and folders whole or not at all (temporary name, fsync, rename); read and write JSON and JSON lines.

A write that fails (disk full, no permission, not a folder) is a StorageError that names the path; what was there before
is unchanged. Leftovers of a killed process are removed by the next one that writes the same file.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from edgeelad.errors import RunError, StorageError
from edgeelad.locks import lock_file

BOM = b"\xef\xbb\xbf"  # a UTF-8 byte-order mark, which some editors write; dropped wherever a file is read
PRIVATE, PUBLIC = 0o600, 0o666  # modes of new files, before the umask
CHUNK_BYTES = 1 << 20


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an OSError while writing `path` into a StorageError that says what to do."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(
            f"{path}: cannot be written: {reason}; free some space or choose another folder, then run the command again"
        ) from error


@contextmanager
def atomic_file(path: Path, mode: int = PUBLIC) -> Iterator[BinaryIO]:
    """Open a file that replaces `path` when the block ends, on disk; if the block raises, nothing changes.

    Makes missing parent folders. The file is written under a temporary name beside `path`, and locked meanwhile.

    Raises:
        StorageError: The file cannot be opened or put in place. What the block raises passes through.
    """
    temporary = _temporary(path)
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        file = os.fdopen(os.open(temporary, _FLAGS, mode), "wb")
    try:
        with file:
            with contextlib.suppress(OSError):  # a file system without locks, where nothing is swept
                lock_file(file.fileno())
            yield file
            with storage_errors(path):
                file.flush()
                os.fsync(file.fileno())
        with storage_errors(path):
            temporary.replace(path)
            sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def extended_file(begun: Path, end: int, path: Path, mode: int = PUBLIC) -> Iterator[Callable[[bytes], None]]:
    """Append to the first `end` bytes of a file, which becomes `path` when the block ends, on disk.

    If the block raises or the process is killed, what was appended stays, the last of it perhaps in part.

    Yields:
        Appends bytes, and raises a StorageError if they cannot be written.

    Raises:
        StorageError: The file cannot be opened or put in place. What the block raises passes through.
    """
    with storage_errors(begun):
        begun.parent.mkdir(parents=True, exist_ok=True)
        file = os.fdopen(os.open(begun, _APPEND_FLAGS, mode), "r+b", buffering=0)
    with file:
        with storage_errors(begun):
            file.truncate(end)
            file.seek(end)

        def append(data: bytes) -> None:
            with storage_errors(begun):
                rest = memoryview(data)
                while rest:
                    rest = rest[file.write(rest) :]

        yield append
        with storage_errors(begun):
            os.fsync(file.fileno())
    with storage_errors(path):
        begun.replace(path)
        sync_folder(path.parent)


def write_text(path: Path, text: str, mode: int = PUBLIC) -> None:
    """Write a UTF-8 text file whole.

    Raises:
        StorageError: The file cannot be written.
    """
    with atomic_file(path, mode) as file, storage_errors(path):
        file.write(text.encode("utf-8"))


def dump_json(value: Any, *, indent: int | None = None) -> str:
    """JSON with stable text: keys in the order given, no NaN, characters as they are."""
    return json.dumps(value, ensure_ascii=False, indent=indent, allow_nan=False)


def write_json(path: Path, value: Any, mode: int = PUBLIC) -> None:
    """Write a JSON file whole, indented."""
    write_text(path, dump_json(value, indent=2) + "\n", mode)


def read_json(path: Path) -> Any:
    """Read a JSON file that `write_json` wrote.

    Raises:
        RunError: It is missing, unreadable or damaged.
    """
    with read_errors(path):
        return json.loads(path.read_text(encoding="utf-8-sig"))


def write_jsonl(path: Path, rows: Iterable[Any], mode: int = PUBLIC) -> int:
    """Write rows as JSON lines, streaming; returns the number of rows.

    Raises:
        StorageError: The file cannot be written.
    """
    count = 0
    with atomic_file(path, mode) as file:
        for row in rows:  # outside storage_errors: an OSError raised by the producer of the rows is not about this file
            with storage_errors(path):
                file.write((dump_json(row) + "\n").encode("utf-8"))
            count += 1
    return count


def read_jsonl(path: Path) -> Iterator[Any]:
    """Read JSON lines that `write_jsonl` wrote.

    Raises:
        RunError: The file is missing or unreadable, or a line is damaged (named).
    """
    for number, line in enumerate(read_lines(path), start=1):
        with read_errors(path, number):
            value = json.loads(line)
        yield value


def read_lines(path: Path) -> Iterator[bytes]:
    """Read the lines of a file as bytes.

    Raises:
        RunError: The file is missing or cannot be read.
    """
    with read_errors(path), path.open("rb") as file:
        yield from (line.removeprefix(BOM) if index == 0 else line for index, line in enumerate(file))


@contextmanager
def read_errors(path: Path, line: int | None = None) -> Iterator[None]:
    """Turn a missing, unreadable or damaged file of a run folder into a RunError that names it, and its line."""
    place = str(path) if line is None else f"{path}:{line}"
    try:
        yield
    except FileNotFoundError:
        raise RunError(f"{path}: missing; the run folder is incomplete") from None
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise RunError(f"{place}: damaged ({error}); restore the file, or delete it and --resume") from error


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal; constant memory."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def make_private_folder(path: Path) -> None:
    """Make a folder, with its parents, that only its owner can enter; one that is there keeps its mode.

    Raises:
        StorageError: It cannot be made.
    """
    with storage_errors(path):
        path.mkdir(0o700, parents=True, exist_ok=True)


def make_folder(path: Path, fill: Callable[[Path], None], *, is_replaced: bool = False) -> None:
    """Make a folder whole, on disk: `fill` writes into a temporary sibling, which is then renamed to `path`.

    Args:
        path: The folder.
        fill: Writes its files.
        is_replaced: Whether there is a folder that this one replaces; `restore_folder` puts it back if the process is
            killed between the renames.

    Raises:
        StorageError: It cannot be written, or `path` exists and is not to be replaced.
    """
    temporary = _temporary(path)
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        temporary.mkdir()
    try:
        with _folder_lock(temporary):
            fill(temporary)
            with storage_errors(path):
                for inner in temporary.rglob("*"):
                    sync_folder(inner) if inner.is_dir() else _sync_file(inner)
                sync_folder(temporary)
        with storage_errors(path):
            (_swap if is_replaced else Path.rename)(temporary, path)
            sync_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # the replaced folder, after a swap


def restore_folder(path: Path) -> None:
    """Put the folder back that a killed process was about to replace; if the new one is in place, delete the old one.

    Raises:
        StorageError: It cannot be renamed or deleted.
    """
    with storage_errors(path):
        for old in path.parent.glob(f".{glob.escape(path.name)}.old.*"):
            if path.exists() or path.is_symlink():
                shutil.rmtree(old)
            else:
                old.rename(path)


def _swap(new: Path, path: Path) -> None:
    """Exchange two folders; if the second rename fails, the first is undone.

    While `path` is missing, its folder has a name that is not swept as a leftover.
    """
    old = path.with_name(f".{path.name}.old.{os.getpid()}")
    path.rename(old)
    try:
        new.rename(path)
    except OSError:
        old.rename(path)
        raise
    old.rename(new)


def sync_folder(path: Path) -> None:
    """Flush a folder's entries to disk; no effect on file systems that do not support it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sweep_folder(folder: Path) -> None:
    """Remove half-written files and folders that killed processes left anywhere in a folder."""
    for path in folder.rglob(".*.tmp"):
        _remove_leftover(path)


_HALF_WRITTEN = re.compile(r"\..+\.\d+\.tmp")
_APPEND_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def _sweep(path: Path) -> None:
    """Remove what killed processes left of this file or folder."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        _remove_leftover(leftover)


def _remove_leftover(path: Path) -> None:
    if not _HALF_WRITTEN.fullmatch(path.name):
        return  # not ours
    with contextlib.suppress(OSError):  # locked, so it is being written; or gone already
        with _folder_lock(path):
            pass
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextmanager
def _folder_lock(path: Path) -> Iterator[None]:
    """Lock a folder or file while the block lasts; without effect on systems that cannot open a folder."""
    if os.name == "nt":  # pragma: no cover
        yield
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        lock_file(descriptor)
        yield
    finally:
        os.close(descriptor)


def _sync_file(path: Path) -> None:
    with path.open("rb+" if os.name == "nt" else "rb") as file:  # Windows flushes only what is open for writing
        os.fsync(file.fileno())
