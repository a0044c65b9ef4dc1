"""What a benchmark ran on."""

from __future__ import annotations

import os
import platform
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

COPY_BYTES, COPIES = 128 << 20, 8
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "amx_bf16")


def describe_machine() -> str:
    """Processor, the instructions that matter here, cores, memory, load."""
    facts = _cpu_facts()
    flags = facts.get("flags", facts.get("Features", "")).split()
    model = facts.get("model name", platform.processor() or platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    known = " ".join(flag for flag in FLAGS if flag in flags)
    cores = len(os.sched_getaffinity(0))
    return (
        f"{model} ({known}), {cores} cores, {memory:.0f} GB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}"
    )


def busy_core_seconds() -> float:
    """Processor time that all programs have used on the cores of this process, since the machine started."""
    own = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    total = 0
    for line in Path("/proc/stat").read_text(encoding="utf-8").splitlines():
        name, *fields = line.split()
        if name in own:
            user, nice, system, _, _, irq, softirq = map(int, fields[:7])
            total += user + nice + system + irq + softirq
    return total / os.sysconf("SC_CLK_TCK")


def copy_bandwidth(cores: int) -> float:
    """Bytes per second that `cores` threads read and write together while each copies a large array."""
    arrays = [(np.ones(COPY_BYTES, np.uint8), np.empty(COPY_BYTES, np.uint8)) for _ in range(cores)]

    def copy(pair: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> None:
        source, target = pair
        for _ in range(COPIES):
            np.copyto(target, source)  # without Python's lock

    with ThreadPoolExecutor(cores) as pool:
        list(pool.map(copy, arrays))  # touches every page
        start = time.perf_counter()
        list(pool.map(copy, arrays))
        return 2 * COPIES * COPY_BYTES * cores / (time.perf_counter() - start)


def _cpu_facts() -> dict[str, str]:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    pairs = (line.partition(":") for line in lines)
    return {key.strip(): value.strip() for key, _, value in pairs}
