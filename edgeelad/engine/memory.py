"""How much memory this process has held at most."""

from __future__ import annotations

import sys
from pathlib import Path


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
