"""Score a pool with worker processes or Ray actors, for `scaling.py`; prints the summary as JSON.

python benchmarks/run_score.py local|ray WORKERS STUDENT POOL OUT
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from edgeelad.config import PoolConfig
from edgeelad.engine.options import EngineOptions
from edgeelad.progress import Silent
from edgeelad.scoring.score import score_pool


class Clock(Silent):
    """The times at which the first and the last row were there, and how many rows."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[tuple[int, float]] = []

    def update(self, done: int, note: str = "", total: int | None = None) -> None:
        """See Progress."""
        self.times[1:] = [(done, time.monotonic())]


def main(engine: str, workers: int, student: Path, pool: Path, out: Path) -> None:
    """Score, and extrapolate the seconds between the first row and the last to all rows."""
    if engine == "ray":
        import ray

        from edgeelad.engine.ray_actors import cluster_options

        ray.init(num_cpus=workers, log_to_driver=False, include_dashboard=False)
        options = cluster_options(None, workers)
    else:
        options = EngineOptions(workers)
    clock, config = Clock(), PoolConfig(path=str(pool), kind="number")
    summary = score_pool(student, config, out, clock, strategy="risk", options=options, max_tokens=16)
    (before, start), (after, end) = clock.times
    print(json.dumps(summary | {"steady_seconds": (end - start) / (after - before) * after}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *map(Path, sys.argv[3:]))
