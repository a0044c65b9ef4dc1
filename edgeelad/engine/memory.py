"""How much memory this process has held at most, and how much of the machine's a worker may fill."""

from __future__ import annotations

import sys
from pathlib import Path

# more than a worker fills by itself (packed.MAX_BATCH_BYTES and packed_grove.MAX_TREE_BYTES together)
PLENTY_BYTES = 3 << 29


def peak_memory_bytes() -> int | None:
    """The largest resident size of this process so far, files it maps included; None where the system does not say."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage's maximum outlives exec: it may be that of the process that started us
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":  # pragma: no cover
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def available_memory_bytes() -> int | None:
    """What the machine can still give away without swapping; None where the system does not say."""
    path = Path("/proc/meminfo")
    if path.exists():
        for line in path.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def kv_share(num_workers: int) -> int | None:
    """What keys and values of each worker may take where nobody says: half of the memory that is free, shared out.

    None where that is more than a worker fills anyway, or the system does not say.
    """
    available = available_memory_bytes()
    share = None if available is None else available // (2 * num_workers)
    return share if share is not None and share < PLENTY_BYTES else None
