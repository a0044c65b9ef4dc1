"""Hold a file so that a second process is kept out; the system lets go when the process ends, however it ends."""

from __future__ import annotations

import os
import sys

if sys.platform == "win32":  # pragma: no cover
    import msvcrt

    # a locked byte cannot be read by others: one far behind what any file of ours holds
    FAR = 1 << 50

    def lock_file(descriptor: int) -> None:
        """Take the lock of an open file, or raise OSError at once where another process holds it."""
        place = os.lseek(descriptor, 0, os.SEEK_CUR)
        os.lseek(descriptor, FAR, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(descriptor, place, os.SEEK_SET)

else:
    import fcntl

    def lock_file(descriptor: int) -> None:
        """Take the lock of an open file, or raise OSError at once where another process holds it."""
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
