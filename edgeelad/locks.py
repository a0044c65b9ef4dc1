"""Lock a file against other processes. The lock is released when the process ends, however it ends."""

from __future__ import annotations

import os
import sys

if sys.platform == "win32":  # pragma: no cover
    import msvcrt

    # others cannot read a locked byte, so lock one far beyond the end of the file
    FAR = 1 << 50

    def lock_file(descriptor: int) -> None:
        """Lock an open file, or raise OSError at once if another process holds the lock."""
        place = os.lseek(descriptor, 0, os.SEEK_CUR)
        os.lseek(descriptor, FAR, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(descriptor, place, os.SEEK_SET)

else:
    import fcntl

    def lock_file(descriptor: int) -> None:
        """Lock an open file, or raise OSError at once if another process holds the lock."""
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
