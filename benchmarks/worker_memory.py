"""Memory of the worker processes that score a pool, forked from one that has opened the student, or each on its own.

    python benchmarks/worker_memory.py STUDENT --data gsm8k/test.jsonl [--workers 1 2] [--precision fp32] [--kv 64]

Every run generates the trees of the same questions; twenty times per second the proportional set sizes of the processes
are added up (Linux: a page that n processes share counts a share of 1/n in each). Prints the peak of the sum, the
megabytes per worker that its weights and KV budget do not explain, and the seconds, and as the last line JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import threading
import time
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from machine import describe_machine

from edgeelad.engine import workers
from edgeelad.engine.graph_files import find_graphs
from edgeelad.engine.options import EngineOptions
from edgeelad.engine.processes import WorkerProcesses
from edgeelad.engine.tree import TreeParams
from edgeelad.pool import read_pool

INTERVAL_S = 0.05
PARAMS = TreeParams(3, 3, 0.7, 0, 1.0, 96, 96, False, 0)


def main() -> None:
    """Run all variants in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("student", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="GSM8K's test.jsonl")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--precision", choices=["fp32", "int8"], default="fp32")
    parser.add_argument("--kv", type=int, default=64, help="KV cache per worker, MB (2^20)")
    parser.add_argument("--questions", type=int, default=8, help="questions per worker")
    arguments = parser.parse_args()
    files = find_graphs(arguments.student, arguments.precision)
    own = files.lanes_weights if files.lanes_weights.is_file() else files.weights
    weights_mb = own.stat().st_size >> 20
    print(f"{describe_machine()}\nweights {weights_mb} MB, KV budget {arguments.kv} MB per worker")
    rows = []
    for num_workers in arguments.workers:
        for is_forking in (False, True):
            row = _measure(arguments, num_workers, is_forking)
            bar = 1.3 * (weights_mb + arguments.kv)
            print(
                f"{num_workers} workers, {'forked' if is_forking else 'apart '}: {row['mb']:6.0f} MB, "
                f"{row['mb'] / num_workers:6.0f} per worker (bar {bar:.0f}), {row['seconds']:.1f} s"
            )
            rows.append(row)
    print(json.dumps({"weights_mb": weights_mb, "kv_mb": arguments.kv, "rows": rows}))


def _measure(arguments: argparse.Namespace, num_workers: int, is_forking: bool) -> dict[str, Any]:
    def make(start: Any, num: int, warn: Any, **_: bool) -> WorkerProcesses[Any, Any]:
        return WorkerProcesses(start, num, warn, is_forking=is_forking)

    workers.WorkerProcesses = make  # type: ignore[assignment,misc]
    options = EngineOptions(num_workers, batch_size=4, precision=arguments.precision, kv_bytes=arguments.kv << 20)
    questions = list(islice(read_pool(arguments.data, "gsm8k"), arguments.questions * num_workers))
    done, peak = threading.Event(), [0]
    thread = threading.Thread(target=partial(_watch, done, peak))
    thread.start()
    begun = time.perf_counter()
    with workers.tree_workers(arguments.student, options, PARAMS, _nothing) as processes:
        blocks = iter(questions)
        assert len(list(processes.map(iter(lambda: list(islice(blocks, 4)), [])))) == len(questions)
        seconds = time.perf_counter() - begun
        done.set()
        thread.join()
    return {"workers": num_workers, "is_forking": is_forking, "mb": peak[0] / 1024, "seconds": round(seconds, 1)}


def _nothing(_: object) -> int:
    return 0


def _watch(done: threading.Event, peak: list[int]) -> None:
    while not done.wait(INTERVAL_S):
        peak[0] = max(peak[0], sum(map(_proportional_kb, _pids())))


def _pids() -> list[int]:
    """The children of this process, and theirs."""
    pids = [child.pid for child in multiprocessing.active_children() if child.pid is not None]
    for pid in list(pids):
        try:
            pids += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split())
        except OSError:  # it has just ended
            continue
    return pids


def _proportional_kb(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


if __name__ == "__main__":
    main()
