"""How a student is run: processes, threads, batch size, precision, memory."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from edgeelad.engine.graph_files import EngineKind, Precision
from edgeelad.errors import UsageError

# Measured (docs/LOG.md): a device's tokens come faster up to a millisecond; a server's not above 20 µs, and the longer
# its threads spin, the more it loses beside another program.
DEVICE_SPIN_US, SERVER_SPIN_US = 1000, 20


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How to run a student. Only `precision`, `graph` and `is_alone` can change a result.

    Attributes:
        num_workers: Worker processes; with 1, work that needs no isolation runs in this process.
        num_threads: Threads per ONNX session, of which each worker has one.
        batch_size: Maximum sequences, and trees, that run together.
        precision: Precision of the graphs; None: fp32 if there are any, else the quantized ones.
        kv_bytes: Maximum KV cache per worker, as far as one question fits; None: what runs fastest in free memory.
        graph: Which of the engine's graphs to use, if there are several: "lanes" for many questions at a time, "rows"
            for the requests of clients, "engine" for one question at a time, as on a device. Each gives a question
            the same bits in any company, but not those of another: they sum up in different orders, and int8 weights
            are rounded in different ways.
        is_alone: One question at a time, as on a device: each sequence runs alone.
        on_ray: Actors on the Ray cluster that `ray_actors.cluster_options` connected to replace worker processes.
    """

    num_workers: int = 1
    num_threads: int = 1
    batch_size: int = 64
    precision: Precision | None = None
    kv_bytes: int | None = None
    graph: EngineKind = "lanes"
    is_alone: bool = False
    on_ray: bool = False

    @property
    def spin_us(self) -> int:
        """Microseconds that threads wait for one another before they sleep; 0 where other sessions need the cores."""
        if self.is_alone:
            return DEVICE_SPIN_US
        return SERVER_SPIN_US if self.graph == "rows" else 0

    @classmethod
    def for_machine(
        cls,
        num_workers: int | None = None,
        num_threads: int = 1,
        *,
        precision: Precision | None = None,
        kv_bytes: int | None = None,
    ) -> EngineOptions:
        """Options for many questions on this machine; default: one worker per core.

        Raises:
            UsageError: The workers need more cores than this process may use.
        """
        cores = num_cores()
        if num_workers is None:
            num_workers = max(cores // num_threads, 1)
        if num_workers * num_threads > cores:
            raise UsageError(
                f"too many workers: {num_workers} with {num_threads} {'thread' if num_threads == 1 else 'threads'} "
                f"each, but this process may use {cores} {'core' if cores == 1 else 'cores'}; leave --workers (in "
                "Python: num_workers) out for one per core"
            )
        return cls(num_workers, num_threads, precision=precision, kv_bytes=kv_bytes)

    @classmethod
    def for_device(cls, precision: Precision | None = None, num_threads: int = 1) -> EngineOptions:
        """Options for one question at a time."""
        return cls(num_threads=num_threads, batch_size=1, precision=precision, graph="engine", is_alone=True)


def num_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores that this process may use: its CPU affinity, or a container's CPU limit if that is lower.

    Args:
        cgroup: Folder in which Linux shows the limits of a container.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, period = 0, 1
    with contextlib.suppress(OSError, ValueError):  # no limit: "max" or -1, or no such file
        if (cgroup / "cpu.max").exists():
            quota, period = map(int, (cgroup / "cpu.max").read_text(encoding="ascii").split())
        else:
            names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            quota, period = (int((cgroup / "cpu" / name).read_text(encoding="ascii")) for name in names)
    return min(cores, -(-quota // period)) if quota > 0 else cores
