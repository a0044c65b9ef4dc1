"""Write files so that a reader sees all of one or none: a temporary name, fsync, rename. JSON lines in and out.

Every write that fails (disk full, no permission, not a folder) is a StorageError that names the path; nothing that was
there before is lost. Knows no formats beyond JSON.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgeelad.errors import RunError, StorageError


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


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole: temporary sibling, fsync, rename. Makes missing parent folders.

    Raises:
        StorageError: The file cannot be written; what was there before is unchanged.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file whole; see `write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def dump_json(value: Any, *, indent: int | None = None) -> str:
    """JSON with stable text: keys in the order given, no NaN, characters as they are."""
    return json.dumps(value, ensure_ascii=False, indent=indent, allow_nan=False)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole, indented."""
    write_text(path, dump_json(value, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file that `write_json` wrote.

    Raises:
        RunError: It is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path}: missing; the run folder is incomplete") from None
    except ValueError as error:
        raise RunError(f"{path}: damaged ({error}); delete it to have it made again on --resume") from error


def write_jsonl(path: Path, rows: Iterable[Any]) -> int:
    """Write rows as JSON lines, streaming, the file appearing only when it is whole; gives the number of rows.

    Raises:
        StorageError: The file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    count = 0
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = temporary.open("w", encoding="utf-8")
    try:
        with file:
            for row in rows:  # outside storage_errors: an OSError of whoever makes the rows is not ours to explain
                with storage_errors(path):
                    file.write(dump_json(row) + "\n")
                count += 1
            with storage_errors(path):
                file.flush()
                os.fsync(file.fileno())
        with storage_errors(path):
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return count


def read_jsonl(path: Path) -> Iterator[Any]:
    """Read JSON lines that `write_jsonl` wrote.

    Raises:
        RunError: The file is missing, or a line is damaged (named).
    """
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise RunError(f"{path}:{number}: damaged line ({error}); delete the file and --resume") from error
    except FileNotFoundError:
        raise RunError(f"{path}: missing; the run folder is incomplete") from None


def make_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Make a folder whole: `fill` writes into a temporary sibling, which is then renamed to `path`.

    Raises:
        StorageError: It cannot be written, or `path` exists.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if temporary.exists():
            shutil.rmtree(temporary)
        temporary.mkdir()
    try:
        fill(temporary)
        with storage_errors(path):
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
