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

NUM_WARM_UP = 4000  # questions, in which all workers start


class Clock(Silent):
    """When the last row of the warm-up and the last of all were there: rows, the time, the driver's processor time."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[tuple[int, float, float]] = []

    def update(self, done: int, note: str = "", total: int | None = None) -> None:
        """See Progress."""
        if done >= NUM_WARM_UP:
            self.times[1:] = [(done, time.monotonic(), time.process_time())]


def main(engine: str, workers: int, student: Path, pool: Path, out: Path) -> None:
    """Score; tells the seconds of the rows after the warm-up."""
    if engine == "ray":
        import ray

        from edgeelad.engine.ray_actors import cluster_options

        ray.init(num_cpus=workers, log_to_driver=False, include_dashboard=False)
        options = cluster_options(None, workers)
    else:
        options = EngineOptions(workers)
    clock, config = Clock(), PoolConfig(path=str(pool), kind="number")
    summary = score_pool(student, config, out, clock, strategy="risk", options=options, max_tokens=16)
    (before, start, driver_start), (after, end, driver_end) = clock.times
    rows = after - before
    figures = {"steady_seconds": end - start, "driver_seconds": driver_end - driver_start, "steady_questions": rows}
    print(json.dumps(summary | figures))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *map(Path, sys.argv[3:]))
