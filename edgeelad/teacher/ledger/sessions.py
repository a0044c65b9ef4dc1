"""Tell whether the process that began an attempt is alive: it holds a lock on a file beside the ledger.

The system releases the lock when the process ends, however it ends. A process id says less: in containers, and after a
restart, another process has the same one.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from edgeelad.locks import lock_file


class Session:
    """A session's lock, held until `close`.

    Raises:
        OSError: The lock file cannot be written, or its file system knows no locks.
    """

    def __init__(self, ledger: Path, id_: str) -> None:
        self._path = _lock_path(ledger, id_)
        for stale in list(ledger.parent.iterdir()):
            if stale.name.startswith(f"{ledger.name}.") and stale.name.endswith(".lock"):
                _is_held(stale)
        self._descriptor = self._acquire()

    def close(self) -> None:
        """Release the lock. Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            with contextlib.suppress(OSError):
                self._path.unlink()

    def _acquire(self) -> int:
        while True:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                lock_file(descriptor)
                # else another session has taken it for a stale one, and deleted it
                if os.fstat(descriptor).st_nlink:
                    return descriptor
            except (BlockingIOError, PermissionError):
                pass
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)


def is_alive(ledger: Path, id_: str) -> bool:
    """Whether the process of a session is running."""
    return _is_held(_lock_path(ledger, id_))


def _is_held(path: Path) -> bool:
    """Whether a process holds a lock file; deletes one that nobody holds."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        lock_file(descriptor)
    except OSError:
        return True
    else:
        with contextlib.suppress(OSError):
            path.unlink()
        return False
    finally:
        os.close(descriptor)


def _lock_path(ledger: Path, id_: str) -> Path:
    return ledger.with_name(f"{ledger.name}.{id_}.lock")
