"""Engines taking turns: load them, run each round with one after the other, print the results."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines import Engine, Measurement, RunnerError, RunningEngine
from machine import describe_machine
from models import SLOW_BATCH
from shapes import SHAPES
from workload import Workload

NUM_WARM_UP = 1  # questions that are not measured


@dataclass(frozen=True, slots=True)
class Results:
    """The results of all rounds, by engine.

    Attributes:
        measured: One measurement per round.
        about: Versions and settings, as the engine's runner reports them.
        failed: Why an engine did not run.
    """

    measured: dict[str, list[Measurement]]
    about: dict[str, dict[str, Any]]
    failed: dict[str, str]

    def median(self, name: str, figure: Callable[[Measurement], float]) -> float:
        """The median of a figure over an engine's rounds."""
        return statistics.median(map(figure, self.measured[name]))


def take_turns(
    names: Sequence[str], make: Callable[[str], Engine], workload: Workload, rounds: int, arguments: argparse.Namespace
) -> Results:
    """Load engines, warm each up with the first questions, then run the rounds, each with questions of its own.

    Args:
        names: Which engines.
        make: An engine by its name.
        workload: NUM_WARM_UP questions, and as many for each round.
        rounds: Number of rounds.
        arguments: With `cache`, the folder for logs, and `slow_batches`, the batches of a slow engine per round.
    """
    results = Results({}, {}, {})
    path = arguments.cache / f"workload-{os.getpid()}.json"
    workload.save(path)
    per_round = (len(workload.prompts) - NUM_WARM_UP) // rounds
    with ExitStack() as stack:
        stack.callback(path.unlink)
        running: list[RunningEngine] = []
        for name in names:
            print(f"loading {name}", file=sys.stderr, flush=True)
            try:
                engine = make(name)
                runner = stack.enter_context(RunningEngine(engine, path, arguments.cache / f"{name}.log"))
                _run(runner, workload, range(NUM_WARM_UP), 1, 0.0)
            except RunnerError as error:
                results.failed[name] = str(error)
                print(f"{name}: {error}", file=sys.stderr, flush=True)
                continue
            running.append(runner)
            results.measured[name], results.about[name] = [], runner.about
        for number in range(rounds):
            first = NUM_WARM_UP + number * per_round
            for runner in running:
                scored = range(first, first + per_round)
                result = _run(runner, workload, scored, arguments.slow_batches, number / rounds)
                results.measured[runner.engine.name].append(result)
                print(f"round {number + 1} {runner.engine.name}: {describe(result)}", file=sys.stderr, flush=True)
    return results


def _run(
    runner: RunningEngine, workload: Workload, questions: Sequence[int], num_batches: int, place: float
) -> Measurement:
    every = find_every(workload, questions, num_batches) if runner.engine.is_slow else 1
    return runner.run(workload, questions, every, int(every * place))


def find_every(workload: Workload, questions: Sequence[int], num_batches: int) -> int:
    """Which share of the batches of some questions is about `num_batches` of them: every how many-th."""
    num_rows = sum(len(workload.ends[question]) for question in questions) * workload.num_branches
    return max(-(-num_rows // SLOW_BATCH) // num_batches, 1)


def describe(result: Measurement) -> str:
    """A line of progress."""
    return (
        f"{result.tokens} tokens in {result.seconds:.1f} s, {result.tokens_per_s:.0f}/s, "
        f"{result.tokens_per_core_s:.0f} per core-second, others {result.others:.0%}"
    )


def question_rates(results: Results, tokens_each: float) -> dict[str, list[float]]:
    """Questions per minute of every round, by engine, where a question has `tokens_each` tokens to generate."""
    return {name: [60 * one.tokens_per_s / tokens_each for one in own] for name, own in results.measured.items()}


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


def report(results: Results, rates: dict[str, list[float]], shape: str, work: str) -> None:
    """Print the environment, the work, what each engine is, the table, the ratios, and the JSON line."""
    print(describe_machine())
    print(f"{shape}: {work}")
    for name, said in results.about.items():
        print(f"  {name}: {json.dumps(said)}")
    for name, reason in results.failed.items():
        print(f"  {name}: did not run: {reason}")
    print(f"\n{'engine':26} questions/min (min to max)  tokens/s  /core-s  peak MB  others")
    for name, own in rates.items():
        span = f"({min(own):.1f} to {max(own):.1f})"
        peak = max(one.peak_bytes for one in results.measured[name]) / 1e6
        print(
            f"{name:26} {statistics.median(own):11.1f} {span:>16} {results.median(name, _speed):9.0f} "
            f"{results.median(name, _core_speed):8.0f} {peak:8.0f} "
            f"{results.median(name, _others):7.0%}"
        )
    precisions = {name: said["settings"].get("precision") for name, said in results.about.items()}
    core_rates = {name: [one.tokens_per_core_s for one in own] for name, own in results.measured.items()}
    ratios, core_ratios = find_ratios(rates, precisions), find_ratios(core_rates, precisions)
    print(f"\n{'ratio':50} {'by the clock':>12} (min to max)    by core-seconds")
    for name, (low, middle, high) in ratios.items():
        print(f"{name:50} {middle:12.2f} ({low:.2f} to {high:.2f})  {core_ratios[name][1]:8.2f}")
    summary = {
        "shape": shape,
        "questions_per_min": {name: round(statistics.median(own), 2) for name, own in rates.items()},
        "tokens_per_s": {name: round(results.median(name, _speed), 1) for name in rates},
        "tokens_per_core_s": {name: round(results.median(name, _core_speed), 1) for name in rates},
        "ratios": {name: round(middle, 3) for name, (_, middle, _) in ratios.items()},
        "core_ratios": {name: round(middle, 3) for name, (_, middle, _) in core_ratios.items()},
        "failed": results.failed,
    }
    print(json.dumps(summary))


def add_arguments(parser: argparse.ArgumentParser, names: Sequence[str]) -> None:
    """The options that all benchmarks of engines have."""
    parser.add_argument("--data", type=Path, required=True, help="GSM8K's test.jsonl or train.jsonl")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="smollm2-135m")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=list(names), default=list(names), metavar="ENGINE")
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "edgeelad-bench")
    parser.add_argument("--slow-batches", type=int, default=2, help="batches per round of a slow engine")


def _speed(one: Measurement) -> float:
    return one.tokens_per_s


def _core_speed(one: Measurement) -> float:
    return one.tokens_per_core_s


def _others(one: Measurement) -> float:
    return one.others
