"""Find the files of a pool: a local path or pattern, or an address that fsspec knows, such as s3://bucket/pool/.

Files are opened and streamed in place by universal-pathlib, never copied.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import cast

from edgeelad.errors import EdgeeladError, MissingExtraError, PoolError
from edgeelad.pool.rows import Row, one_line

_ADDRESS = re.compile(r"(?:[a-z][a-z0-9+.-]*::)*[a-z][a-z0-9+.-]+://", re.IGNORECASE)


def is_address(path: str) -> bool:
    """Whether a path is an address (`s3://…`), not a local one."""
    return _ADDRESS.match(path) is not None


def find_files(path: str, extensions: Collection[str]) -> list[Path]:
    """The files of a pool in the order of their names: the file itself, or those in a folder or of a pattern.

    Args:
        path: An address; or a local pattern with `*`.
        extensions: Those of the files that a folder may hold; others in it are not read.

    Raises:
        PoolError: There are none, or they cannot be listed.
        MissingExtraError: universal-pathlib is not installed.
    """
    if not is_address(path):
        start = Path(Path(path).anchor)
        found = sorted(file for file in start.glob(str(Path(path).relative_to(start))) if file.is_file())
    else:
        found = _at_address(path, extensions)
    if not found:
        raise PoolError(
            f"{path}: no such file, or none in this folder that ends in {', '.join(extensions)}; check the path"
        )
    return found


def read_files(files: list[Path], read: Callable[[Path], Iterator[Row]]) -> Iterator[Row]:
    """The rows of files, one after the other.

    Raises:
        PoolError: What `read` raises, or the file system's own failures.
    """
    for file in files:
        try:
            yield from read(file)
        except EdgeeladError:
            raise
        except Exception as error:  # whatever the client of an object store raises
            raise _unreadable(str(file), error) from error


def _at_address(path: str, extensions: Collection[str]) -> list[Path]:
    try:
        from upath import UPath
    except ImportError:
        raise MissingExtraError("universal-pathlib", "data", f"reading {path}") from None
    try:
        place = UPath(path)
        if "*" in path:
            names = place.fs.glob(place.path)
        elif place.is_dir():
            names = [name for name in place.fs.find(place.path) if _is_part(name, extensions)]
        else:
            return [cast(Path, place)] if place.exists() else []  # it opens, and tells of its name, as a Path does
        return [cast(Path, UPath(place.fs.unstrip_protocol(name))) for name in sorted(names)]
    except Exception as error:
        raise _unreadable(path, error) from error


def _is_part(name: str, extensions: Collection[str]) -> bool:
    file = name.rpartition("/")[2]
    return not file.startswith(("_", ".")) and Path(file).suffix.lower() in extensions


def _unreadable(path: str, error: Exception) -> PoolError:
    if isinstance(error, ImportError):
        return PoolError(f"{path}: {one_line(error)}: pip install the library of this file system")
    return PoolError(f"{path}: cannot be read ({one_line(error)}); check the address, the credentials and the network")
