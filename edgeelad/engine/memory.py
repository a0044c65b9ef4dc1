"""Peak memory of this process, and each worker's share of the free memory."""

from __future__ import annotations

import sys
from pathlib import Path

# what a worker fills without a limit: packed.generator.MAX_BATCH_BYTES and packed.parallel_trees.MAX_TREE_BYTES
PLENTY_BYTES = 3 << 29


def peak_memory_bytes() -> int | None:
    """Peak resident size of this process, mapped files included; None if the system does not report it."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage's maximum survives exec: it may be that of the parent process
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":  # pragma: no cover
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def available_memory_bytes(*, with_swap: bool = False) -> int | None:
    """Memory that is available, on request with free swap space; None if the system does not report it."""
    path = Path("/proc/meminfo")
    if not path.exists():
        return None
    lines = (line.split() for line in path.read_text(encoding="ascii", errors="replace").splitlines())
    found = {words[0]: int(words[1]) * 1024 for words in lines if len(words) > 1}
    available = found.get("MemAvailable:")
    return None if available is None else available + found.get("SwapFree:", 0) * with_swap


def kv_share(num_workers: int) -> int | None:
    """Maximum KV cache per worker by default: an equal share of half of the free memory.

    None if that is more than a worker fills anyway, or if the system does not report it.
    """
    available = available_memory_bytes()
    share = None if available is None else available // (2 * num_workers)
    return share if share is not None and share < PLENTY_BYTES else None
