"""Branches a minute: edgeelad against ready-made engines, the same reasoning trees on the same machine in one run.

    python benchmarks/tree_scoring.py --data ../shared/data/gsm8k/test.jsonl
    python benchmarks/tree_scoring.py --data … --shape qwen2.5-0.5b --questions 16
    python benchmarks/tree_scoring.py --data … --only edgeelad-int8 --questions 16 --rounds 1

Every engine generates the same branches: four of 32 tokens from every step prefix of the published solutions (see
workload.py), sampled at temperature 0.7 from the 64 likeliest tokens. Engines are loaded before and take turns, round
by round, each round with questions of its own; slow ones generate some batches of a round, spread over its lengths, and
their questions a minute follow from the tokens. `others` is the share of the cores that other programs took meanwhile:
where it is not small, compare tokens a core-second. Prints the environment, a table, and as the last line JSON with
`questions_per_min` by engine and `ratios`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from engines import Measurement, RunnerError, RunningEngine
from machine import describe_machine
from models import SLOW_BATCH, Models
from shapes import SHAPES
from workload import Workload, make_workload, read_questions

from edgeelad.engine.codec import Codec

NUM_WARM_UP = 4  # questions that nobody's time counts for


def main() -> None:
    """Make what is missing, run the rounds, print."""
    arguments = _arguments()
    models = Models(arguments.cache, arguments.shape, arguments.data)
    num = NUM_WARM_UP + arguments.rounds * arguments.questions
    questions = read_questions(arguments.data, num)
    workload = make_workload(Codec.load(models.student()), questions, arguments.branches, arguments.tokens)
    path = arguments.cache / f"workload-{arguments.shape}.json"
    workload.save(path)
    measured: dict[str, list[Measurement]] = {}
    about: dict[str, Any] = {}
    failed: dict[str, str] = {}
    with ExitStack() as stack:
        running: list[RunningEngine] = []
        for name in arguments.only or list(models.ENGINES):
            print(f"loading {name}", file=sys.stderr, flush=True)
            try:
                engine = models.engine(name, arguments.cores)
                runner = stack.enter_context(RunningEngine(engine, path, arguments.cache / f"{name}.log"))
                warm_up = range(NUM_WARM_UP)
                runner.run(workload, warm_up, find_every(workload, warm_up, 1) if engine.is_slow else 1)
            except RunnerError as error:
                failed[name] = str(error)
                print(f"{name}: {error}", file=sys.stderr, flush=True)
                continue
            running.append(runner)
            measured[name], about[name] = [], runner.about
        for number in range(arguments.rounds):
            first = NUM_WARM_UP + number * arguments.questions
            scored = range(first, first + arguments.questions)
            for runner in running:
                every = find_every(workload, scored, arguments.slow_batches) if runner.engine.is_slow else 1
                result = runner.run(workload, scored, every, every * number // arguments.rounds)
                measured[runner.engine.name].append(result)
                print(f"round {number + 1} {runner.engine.name}: {describe(result)}", file=sys.stderr, flush=True)
    report(arguments, workload, measured, about, failed)


def find_every(workload: Workload, questions: Sequence[int], num_batches: int) -> int:
    """Which share of the batches of some questions is about `num_batches` of them: every how many-th."""
    num_rows = sum(len(workload.ends[question]) for question in questions) * workload.num_branches
    return max(-(-num_rows // SLOW_BATCH) // num_batches, 1)


def describe(result: Measurement) -> str:
    """A line for whoever waits."""
    return (
        f"{result.tokens} tokens in {result.seconds:.1f} s, {result.tokens_per_s:.0f}/s, "
        f"{result.tokens / result.core_seconds:.0f} a core-second, others {result.others:.0%}"
    )


def report(
    arguments: argparse.Namespace,
    workload: Workload,
    measured: dict[str, list[Measurement]],
    about: dict[str, Any],
    failed: dict[str, str],
) -> None:
    """Print the environment, what each engine is, the table and the JSON line."""
    scored = range(NUM_WARM_UP, len(workload.prompts))
    tokens_each = sum(map(workload.num_tokens, scored)) / len(scored)
    num_prefixes = sum(len(workload.ends[question]) for question in scored) / len(scored)
    print(describe_machine())
    print(
        f"{arguments.shape}: {arguments.rounds} rounds of {arguments.questions} questions, {num_prefixes:.2f} prefixes "
        f"a question, {workload.num_branches} branches of {workload.num_new} tokens from each"
    )
    for name, said in about.items():
        print(f"  {name}: {json.dumps(said)}")
    for name, reason in failed.items():
        print(f"  {name}: did not run: {reason}")
    rates = {name: [60 * result.tokens_per_s / tokens_each for result in results] for name, results in measured.items()}
    print(
        f"\n{'engine':26} {'questions/min':>13} {'(min to max)':>16} {'tokens/s':>9} {'/core-s':>8} {'peak MB':>8} "
        f"{'others':>7}"
    )
    for name, results in measured.items():
        span = f"({min(rates[name]):.1f} to {max(rates[name]):.1f})"
        speed = statistics.median(result.tokens_per_s for result in results)
        core_speed = statistics.median(result.tokens / result.core_seconds for result in results)
        peak = max(result.peak_bytes for result in results) / 1e6
        others = statistics.median(result.others for result in results)
        print(
            f"{name:26} {statistics.median(rates[name]):13.1f} {span:>16} {speed:9.0f} {core_speed:8.0f} {peak:8.0f} "
            f"{others:7.0%}"
        )
    ratios = find_ratios(rates, {name: said["settings"].get("precision") for name, said in about.items()})
    print()
    for name, (low, middle, high) in ratios.items():
        print(f"{name:50} {middle:6.2f} ({low:.2f} to {high:.2f})")
    summary = {
        "shape": arguments.shape,
        "questions_per_min": {name: round(statistics.median(own), 2) for name, own in rates.items()},
        "tokens_per_s": {
            name: round(statistics.median(result.tokens_per_s for result in own), 1) for name, own in measured.items()
        },
        "ratios": {name: round(middle, 3) for name, (_, middle, _) in ratios.items()},
        "failed": failed,
    }
    print(json.dumps(summary))


def find_ratios(
    rates: dict[str, list[float]], precisions: dict[str, str | None]
) -> dict[str, tuple[float, float, float]]:
    """edgeelad int8 over each peer, and edgeelad fp32 over each fp32 peer, round by round.

    Returns:
        The smallest, the median and the largest ratio of a round, by "engine / peer".
    """
    ratios: dict[str, tuple[float, float, float]] = {}
    for ours, wanted in (("edgeelad-int8", None), ("edgeelad-fp32", "fp32")):
        for peer, own in rates.items():
            if ours not in rates or peer == ours or (wanted is not None and precisions[peer] != wanted):
                continue
            each = [a / b for a, b in zip(rates[ours], own, strict=True)]
            ratios[f"{ours} / {peer}"] = (min(each), statistics.median(each), max(each))
    return ratios


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="GSM8K's test.jsonl or train.jsonl")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="smollm2-135m")
    parser.add_argument("--questions", type=int, default=32, help="a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slow-batches", type=int, default=2, help="batches a round of a slow engine")
    parser.add_argument("--branches", type=int, default=4, help="from each prefix")
    parser.add_argument("--tokens", type=int, default=32, help="of each branch")
    parser.add_argument("--only", nargs="+", choices=list(Models.ENGINES), metavar="ENGINE", help="which engines")
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "edgeelad-bench")
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    return arguments


if __name__ == "__main__":
    main()
