"""How long a worker process or a Ray actor waits between two blocks of a pool; prints milliseconds as JSON.

    python benchmarks/run_blocks.py local|ray WORKERS

The workers spin for 20 ms per block of 32 questions, so the figures hold on a busy machine, too, where seconds of
scoring do not.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeelad.engine.blocks import BlockWorkers
from edgeelad.engine.options import EngineOptions
from edgeelad.engine.processes import WorkerProcesses
from edgeelad.records import Question

NUM_BLOCKS, NUM_WARM_UP, BLOCK, BUSY_S = 300, 100, 32, 0.02
TEXT = "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. " * 2
ROW = b"x" * 650  # as long as a row of scores

Row = tuple[bytes, float]


@contextmanager
def start(folder: Path | None = None) -> Iterator[Callable[[list[Question]], list[Row]]]:
    """Work of a given length; every row tells how long its worker had waited for it."""
    ended = time.perf_counter()

    def work(questions: list[Question]) -> list[Row]:
        nonlocal ended
        begun, waited = time.perf_counter(), time.perf_counter() - ended
        while time.perf_counter() < begun + BUSY_S:
            pass
        ended = time.perf_counter()
        return [(ROW, waited) for _ in questions]

    yield work


def main(engine: str, num_workers: int) -> None:
    """Do all blocks, and print how long the workers waited for those after the warm-up."""
    workers: BlockWorkers[Question, Row]
    if engine == "ray":
        import ray

        from edgeelad.engine.ray_actors import RayActors

        ray.init(num_cpus=num_workers, log_to_driver=False, include_dashboard=False)
        workers = RayActors(start, Path(__file__).parent, EngineOptions(num_workers, on_ray=True))
    else:
        workers = WorkerProcesses(start, num_workers)
    blocks = ([Question(f"q{number}-{i}", TEXT) for i in range(BLOCK)] for number in range(NUM_BLOCKS))
    with workers:
        rows = list(workers.map(blocks))
    waits = [1000 * row[1] for row in rows[NUM_WARM_UP * BLOCK :: BLOCK] if isinstance(row, tuple)]
    low, middle, high = statistics.quantiles(waits, n=10)[0], statistics.median(waits), statistics.quantiles(waits)[2]
    print(json.dumps({"p10": round(low, 2), "median": round(middle, 2), "p75": round(high, 2)}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
