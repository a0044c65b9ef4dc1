"""How cost grows: with the pool (seconds, memory), with steps and branches, with workers, on a Ray cluster.

    python benchmarks/scaling.py --data ../shared/data/gsm8k/test.jsonl

`pool`: `edgeelad score` over pools of 1, 10, 100 and 1,000 times as many questions, by a tiny student whose seconds are
soon over; seconds per question, and the peak resident sizes of the parent and of the largest worker. `ray`: the same
student on 6,000 questions by 1, 2 and 4 worker processes and Ray actors on this machine, in turns; seconds of the last
2,000, when all have started. `selection`: a batch from the scores of 10,000, 100,000 and 1,000,000
questions. `trees`: one worker, the shape asked for in int8, solutions of 1, 2 and 4 times the steps and prefixes with
1, 2 and 4 times the branches. `workers`: one worker against one per core, in turns. `batch`: the trees of a round's
batch by one process with a thread per core, and by a worker per core with blocks of 16 and of 64 questions, in turns;
the shape asked for in fp32. Prints the environment, the tables, and as the last line JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from engines import RunningEngine
from machine import describe_machine
from models import Models
from turns import NUM_WARM_UP, add_arguments, describe, take_turns
from workload import Workload, chain_solutions, make_workload, read_questions

from edgeelad.config import ScoringConfig
from edgeelad.engine.codec import Codec
from edgeelad.engine.options import EngineOptions
from edgeelad.engine.workers import generate_trees
from edgeelad.files import read_jsonl, write_jsonl
from edgeelad.records import Question
from edgeelad.uncertainty import full_tree_params

HERE = Path(__file__).parent
FACTORS = (1, 2, 4)
POOL_FACTORS = (1, 10, 100, 1000)
ACTORS = (1, 2, 4)
RAY_QUESTIONS = 6000
BATCH_QUESTIONS = (60, 300)
SELECTION_QUESTIONS = (10_000, 100_000, 1_000_000)
WORKERS = ("edgeelad-int8-one-worker", "edgeelad-int8")
NUM_TREES = 4  # questions whose trees are made larger
MAX_TOKENS = 16  # of the tiny student's explanations and branches


def main() -> None:
    """Measure, print the tables as they come."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, tuple(MEASURES))
    parser.add_argument("--questions", type=int, default=16, help="a round of `workers`")
    parser.add_argument("--pool-questions", type=int, default=64, help="of the smallest pool")
    parser.add_argument("--pool-engine", choices=("local", "ray"), default="local", help="`pool` on Ray actors")
    parser.add_argument("--actors", type=int, nargs="+", default=ACTORS, help="of `ray`")
    parser.add_argument("--batch-questions", type=int, nargs="+", default=BATCH_QUESTIONS)
    parser.add_argument("--selection-questions", type=int, nargs="+", default=SELECTION_QUESTIONS)
    arguments = parser.parse_args()
    print(describe_machine())
    print(json.dumps({name: MEASURES[name](arguments) for name in arguments.only}))


def measure_pools(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Seconds and memory of `edgeelad score` by the size of the pool."""
    student = Models(arguments.cache, "tiny", arguments.data).exported()
    print("\npool        seconds  ms/question  parent MB  worker MB")
    rows = []
    with tempfile.TemporaryDirectory(dir=arguments.cache) as name:
        for factor in POOL_FACTORS:
            num = factor * arguments.pool_questions
            pool, out = Path(name) / f"{num}.jsonl", Path(name) / f"{num}.scores.jsonl"
            write_jsonl(pool, repeat_questions(arguments.data, num))
            row = {"questions": num} | score(student, pool, out, arguments.pool_engine)
            rows.append(row)
            print(
                f"{num:8,} {row['seconds']:10.1f} {1000 * row['seconds'] / num:14.2f} {row['parent_mb']:10.0f} "
                f"{row['worker_mb']:10.0f}",
                flush=True,
            )
    return rows


def repeat_questions(data: Path, num: int) -> Iterator[dict[str, str]]:
    """As many questions as wanted, each under an id of its own."""
    rows = [row["question"] for row in read_jsonl(data)]
    for number in range(num):
        yield {"id": f"q{number:07}", "question": rows[number % len(rows)]}


def score(student: Path, pool: Path, out: Path, engine: str) -> dict[str, float]:
    """One run of `edgeelad score`; what it says of itself."""
    command = [sys.executable, "-m", "edgeelad", "score", "--model", str(student), "--pool", str(pool)]
    options = ["--out", str(out), "--kind", "number", "--max-tokens", str(MAX_TOKENS), "--json", "--quiet"]
    done = subprocess.run([*command, *options, "--engine", engine], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"edgeelad score failed: {done.stderr.strip()[-500:]}")
    said = json.loads(done.stdout)
    peak = said["peak_memory_bytes"]
    return {
        "seconds": said["seconds"],
        "parent_mb": round(peak["parent"] / 1e6, 1),
        "worker_mb": round(peak["largest_worker"] / 1e6, 1),
    }


def measure_ray(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Seconds of worker processes and of Ray actors, as many of each, over the same questions."""
    student = Models(arguments.cache, "tiny", arguments.data).exported()
    print("\nlocal and ray:\nworkers   seconds      ratio   driver CPU s     driver MB     worker MB")
    rows = []
    with tempfile.TemporaryDirectory(dir=arguments.cache) as name:
        pool = Path(name) / "pool.jsonl"
        write_jsonl(pool, repeat_questions(arguments.data, RAY_QUESTIONS))
        for workers in arguments.actors:
            found: dict[str, list[dict[str, Any]]] = {"local": [], "ray": []}
            written = set()
            for turn in range(arguments.rounds):
                for engine in found:
                    out = Path(name) / f"{workers}.{engine}.{turn}.jsonl"
                    command = [
                        sys.executable,
                        str(HERE / "run_score.py"),
                        engine,
                        str(workers),
                        str(student),
                        str(pool),
                    ]
                    done = subprocess.run([*command, str(out)], capture_output=True, text=True)
                    if done.returncode:
                        raise SystemExit(f"scoring failed: {done.stderr.strip()[-500:]}")
                    found[engine].append(json.loads(done.stdout.splitlines()[-1]))
                    written.add(out.read_bytes())
            if len(written) != 1:
                raise SystemExit("the scores differ")
            seconds = {engine: [one["steady_seconds"] for one in own] for engine, own in found.items()}
            ratios = [ray / local for ray, local in zip(seconds["ray"], seconds["local"], strict=True)]
            memory = {engine: own[0]["peak_memory_bytes"] for engine, own in found.items()}
            row = {
                "workers": workers,
                "local_s": round(statistics.median(seconds["local"]), 2),
                "ray_s": round(statistics.median(seconds["ray"]), 2),
                "ratio": round(statistics.median(ratios), 3),
                "ratios": [round(ratio, 3) for ratio in ratios],
                "driver_cpu_s": [round(own[0]["driver_seconds"], 2) for own in found.values()],
                "driver_mb": [round(memory[engine]["parent"] / 1e6) for engine in found],
                "worker_mb": [round(memory[engine]["largest_worker"] / 1e6) for engine in found],
            }
            rows.append(row)
            print(
                f"{workers:7} {row['local_s']:5.2f} {row['ray_s']:5.2f} {row['ratio']:9.3f} "
                f"{row['driver_cpu_s']!s:>14} {row['driver_mb']!s:>13} {row['worker_mb']!s:>13}",
                flush=True,
            )
    return rows


def measure_selection(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Seconds and memory of the choice of a batch, as a round makes it, by the size of the pool."""
    print("\n questions  stored s      MB  selection s      MB")
    rows = []
    for num in arguments.selection_questions:
        with tempfile.TemporaryDirectory(dir=arguments.cache) as name:
            command = [sys.executable, str(HERE / "run_select.py"), str(num), str(arguments.data)]
            done = subprocess.run([*command, name], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"selection failed: {done.stderr.strip()[-500:]}")
        rows.append(row := json.loads(done.stdout))
        print(
            f"{num:10,} {row['store_s']:9.1f} {row['store_mb']:7,} {row['select_s']:12.1f} {row['select_mb']:7,}",
            flush=True,
        )
    return rows


def measure_trees(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Seconds of one worker by the size of the trees."""
    models = Models(arguments.cache, arguments.shape, arguments.data)
    engine, codec = models.engine("edgeelad-int8-one-worker", arguments.cores), Codec.load(models.student())
    questions = read_questions(arguments.data, NUM_TREES * max(FACTORS))
    print("\nsteps  branches  branch tokens  seconds  tokens/core-second")
    rows = []
    for steps in FACTORS:
        for branches in FACTORS:
            if steps != 1 and branches != 1:
                continue
            trees = make_workload(codec, chain_solutions(questions, NUM_TREES, steps), 4 * branches, 32)
            result = _run_alone(engine, trees, arguments)
            rows.append(
                {
                    "steps": steps,
                    "branches": branches,
                    "tokens": result["tokens"],
                    "seconds": round(result["seconds"], 2),
                    "tokens_per_core_s": round(result["core_speed"], 1),
                }
            )
            figures = f"{result['tokens']:19,} {result['seconds']:8.2f} {result['core_speed']:12.0f}"
            print(f"×{steps}     ×{branches} {figures}", flush=True)
    return rows


def _run_alone(engine: Any, trees: Workload, arguments: argparse.Namespace) -> dict[str, Any]:
    """The median of some rounds of the same trees; nothing of one is left for the next."""
    with tempfile.TemporaryDirectory(dir=arguments.cache) as name:
        path = Path(name) / "workload.json"
        trees.save(path)
        with RunningEngine(engine, path, Path(name) / "log") as running:
            running.run(trees, [0])
            own = [running.run(trees, range(len(trees.prompts))) for _ in range(arguments.rounds)]
    return {
        "tokens": own[0].tokens,
        "seconds": statistics.median(one.seconds for one in own),
        "core_speed": statistics.median(one.tokens_per_core_s for one in own),
    }


def measure_workers(arguments: argparse.Namespace) -> dict[str, Any]:
    """New tokens per second of one worker, and of one worker per core."""
    models = Models(arguments.cache, arguments.shape, arguments.data)
    questions = read_questions(arguments.data, NUM_WARM_UP + arguments.rounds * arguments.questions)
    workload = make_workload(Codec.load(models.student()), questions, 4, 32)
    results = take_turns(
        WORKERS, lambda name: models.engine(name, arguments.cores), workload, arguments.rounds, arguments
    )
    print()
    for name, own in results.measured.items():
        for one in own:
            print(f"{name:26} {describe(one)}")
    one, all_cores = (results.measured[name] for name in WORKERS)
    ratios = [two.tokens_per_s / single.tokens_per_s for single, two in zip(one, all_cores, strict=True)]
    row = {"workers": arguments.cores, "ratio": round(statistics.median(ratios), 3)}
    print(f"{arguments.cores} workers / 1: {row['ratio']:.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    return row


def measure_batches(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Seconds of one process with a thread per core, and of a worker per core, over a few questions' trees."""
    student = Models(arguments.cache, arguments.shape, arguments.data).exported()
    config = ScoringConfig(max_explanation_tokens=MAX_TOKENS, max_branch_tokens=MAX_TOKENS)
    params, cores = full_tree_params(config, seed=0), arguments.cores
    print("\nquestions  one process  blocks of 16  blocks of 64")
    rows = []
    for num in arguments.batch_questions:
        questions = [Question(row["id"], row["question"]) for row in repeat_questions(arguments.data, num)]
        ways = {
            "one_process": partial(generate_trees, options=EngineOptions(num_threads=cores)),
            "blocks_of_16": partial(generate_trees, options=EngineOptions(cores), block_size=16),
            "blocks_of_64": partial(generate_trees, options=EngineOptions(cores), block_size=64),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        found = set()
        for _ in range(arguments.rounds):
            for name, generate in ways.items():
                start = time.monotonic()
                trees = list(generate(student, questions, params))
                seconds[name].append(time.monotonic() - start)
                found.add(tuple((tree.text, tree.branch_answers) for tree in trees))
        if len(found) != 1:
            raise SystemExit("the trees differ")
        row = {"questions": num} | {name: round(statistics.median(own), 2) for name, own in seconds.items()}
        rows.append(row)
        print(
            f"{num:9,} {row['one_process']:12.2f} {row['blocks_of_16']:13.2f} {row['blocks_of_64']:13.2f}", flush=True
        )
    return rows


MEASURES = {
    "pool": measure_pools,
    "ray": measure_ray,
    "selection": measure_selection,
    "trees": measure_trees,
    "workers": measure_workers,
    "batch": measure_batches,
}


if __name__ == "__main__":
    main()
