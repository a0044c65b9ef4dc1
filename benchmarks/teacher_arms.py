"""Arms of strategy and teaching mode, such as the 2×2 of docs/METHOD.md §6: whole runs of the loop on paired seeds.

Takes a folder and sizes, gives accuracy against questions annotated and against teacher tokens. The same base student,
pool, test set and updates per round in all arms of a seed. One thing differs from §6: `random` chooses round 1 at
random and the others by their scores, since with two rounds a common first batch would hide half of what is compared;
within a strategy the first batch is the same in all modes. Started by `teacher_cost.py accuracy`; by itself it is one
arm.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import sqlite3
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from paired import Comparison, compare_all

from edgeelad.files import read_json, read_jsonl
from edgeelad.progress import Silent

Arm = tuple[str, str]
ARMS: tuple[Arm, ...] = tuple(itertools.product(("random", "elad"), ("rationale", "revise")))
_TOKENS = """
    SELECT json_extract(requests.canonical, '$.prompt_id'), SUM(completion_tokens), SUM(prompt_tokens), COUNT(*)
    FROM attempts JOIN requests USING (key) WHERE outcome = 'answered' GROUP BY 1"""


@dataclass(frozen=True, slots=True)
class ArmResult:
    """One arm on one seed.

    Attributes:
        seed: The seed.
        strategy: How questions were chosen.
        mode: What the teacher was paid for.
        accuracy: On the test questions, of the base student and after each round.
        annotated: Verified annotations bought until then.
        tokens: Completion tokens paid until then.
        by_prompt: Prompt id -> completion tokens, prompt tokens, replies, at the end.
        rungs: Rung -> annotations, at the end.
    """

    seed: int
    strategy: str
    mode: str
    accuracy: list[float]
    annotated: list[int]
    tokens: list[int]
    by_prompt: dict[str, tuple[int, int, int]]
    rungs: dict[str, int]

    @property
    def answer_tokens(self) -> int:
        """Completion tokens paid for reference answers, which a pool with answers would have had."""
        return self.by_prompt.get("answer", (0, 0, 0))[0]


def run_all(
    out: Path, num_seeds: int, num_rounds: int, batch: int, settings: Sequence[str], arms: Sequence[Arm] = ARMS
) -> list[ArmResult]:
    """Run the arms on each seed, or read those that are done."""
    results = []
    for seed in range(num_seeds):
        data: Path | None = None
        for strategy, mode in arms:
            folder = out / f"seed{seed}-{strategy}-{mode}"
            if not (folder / "summary.json").exists():
                _start_arm(folder, data, seed, strategy, mode, num_rounds, batch, settings)
            # the same questions and base student in all arms of a seed
            data = data or folder / "quickstart"
            results.append(read_arm(folder, seed, strategy, mode))
            print(json.dumps(asdict(results[-1])), flush=True)
    return results


def _start_arm(
    folder: Path,
    data: Path | None,
    seed: int,
    strategy: str,
    mode: str,
    num_rounds: int,
    batch: int,
    settings: Sequence[str],
) -> None:
    if data is not None and not (folder / "quickstart").exists():
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copytree(data, folder / "quickstart")
    own = {
        "selection.strategy": strategy,
        "selection.num_rounds": num_rounds,
        "selection.batch_size": batch,
        "selection.first_batch": "random" if strategy == "random" else "score",
        "teacher.mode": mode,
        "stopping.audit_size": 0,
        "stopping.stop_when_certified": "false",
    }
    command = [sys.executable, __file__, "--out", str(folder), "--seed", str(seed)]
    # a process of its own, so that no arm has what another left in memory
    subprocess.run([*command, *(f"{name}={value}" for name, value in own.items()), *settings], check=True)


def read_arm(folder: Path, seed: int, strategy: str, mode: str) -> ArmResult:
    """What a finished run came to."""
    rounds = list(read_jsonl(folder / "metrics.jsonl"))
    connection = sqlite3.connect(f"file:{folder / 'ledger.sqlite'}?mode=ro", uri=True)
    try:
        by_prompt = {name: tuple(counts) for name, *counts in connection.execute(_TOKENS)}
    finally:
        connection.close()
    return ArmResult(
        seed=seed,
        strategy=strategy,
        mode=mode,
        accuracy=[metrics["accuracy"] for metrics in rounds],
        annotated=[metrics["annotated"] for metrics in rounds],
        tokens=[metrics["teacher"]["completion_tokens"] for metrics in rounds],
        by_prompt=by_prompt,
        rungs=dict(rounds[-1]["rungs"]),
    )


def area(amounts: Sequence[float], accuracy: Sequence[float], limit: float) -> float:
    """Mean accuracy over amounts from 0 to `limit`, straight lines between the rounds (level after the last one).

    >>> area([0, 100, 200], [0.4, 0.6, 0.8], 200), area([0, 100, 200], [0.4, 0.6, 0.8], 100)
    (0.6, 0.5)
    """
    points = [*zip(amounts, accuracy, strict=True), (max(limit, amounts[-1]), accuracy[-1])]
    total = 0.0
    for (start, low), (end, high) in itertools.pairwise(points):
        stop = min(end, limit)
        if stop > start:
            at_stop = low + (high - low) * (stop - start) / (end - start)
            total += (stop - start) * (low + at_stop) / 2
    return total / limit


Figures = dict[Arm, list[float]]


def show(results: Sequence[ArmResult]) -> dict[str, Any]:
    """Print the arms and the paired differences; gives all of it for a program."""
    seeds = sorted({result.seed for result in results})
    arms = list(dict.fromkeys((result.strategy, result.mode) for result in results))
    by_arm = {
        arm: [next(r for r in results if r.seed == seed and (r.strategy, r.mode) == arm) for seed in seeds]
        for arm in arms
    }
    # to the same amount in all arms of a seed
    most = {seed: min(r.annotated[-1] for r in results if r.seed == seed) for seed in seeds}
    spent = {seed: min(r.tokens[-1] for r in results if r.seed == seed) for seed in seeds}
    figures: dict[str, Callable[[ArmResult], float]] = {
        "final accuracy": lambda r: r.accuracy[-1],
        "area, questions": lambda r: area(r.annotated, r.accuracy, most[r.seed]),
        "area, tokens": lambda r: area(r.tokens, r.accuracy, spent[r.seed]),
        "tokens each": lambda r: r.tokens[-1] / r.annotated[-1],
        "without answers": lambda r: (r.tokens[-1] - r.answer_tokens) / r.annotated[-1],
    }
    values = {name: {arm: [figure(r) for r in by_arm[arm]] for arm in arms} for name, figure in figures.items()}
    print(f"{'arm':24}" + "".join(f"{name:>20}" for name in figures))
    for arm in arms:
        print(f"{'/'.join(arm):24}" + "".join(f"{_spread(values[name][arm]):>20}" for name in figures))
    compared = {name: _contrasts(name, values[name]) for name in list(figures)[:3]} if len(seeds) > 1 else {}
    return {
        "seeds": seeds,
        "arms": {name: {"/".join(arm): column for arm, column in columns.items()} for name, columns in values.items()},
        "comparisons": {
            name: {contrast: asdict(comparison) for contrast, comparison in found.items()}
            for name, found in compared.items()
        },
    }


def contrasts(arms: Sequence[Arm]) -> dict[str, tuple[Arm, Arm]]:
    """The pairs of arms that differ in one thing, the later one first.

    >>> contrasts([("random", "revise"), ("elad", "rationale"), ("elad", "revise")])
    {'elad - random, revise': (('elad', 'revise'), ('random', 'revise')),
     'revise - rationale, elad': (('elad', 'revise'), ('elad', 'rationale'))}
    """
    found = {}
    for second, first in itertools.combinations(arms, 2):
        if first[1] == second[1]:
            found[f"{first[0]} - {second[0]}, {first[1]}"] = (first, second)
        elif first[0] == second[0]:
            found[f"{first[1]} - {second[1]}, {first[0]}"] = (first, second)
    return found


def _contrasts(name: str, columns: Figures) -> dict[str, Comparison]:
    found = compare_all(
        {
            contrast: [a - b for a, b in zip(columns[first], columns[second], strict=True)]
            for contrast, (first, second) in contrasts(list(columns)).items()
        }
    )
    print(f"\n{name}")
    for contrast, c in found.items():
        print(
            f"  {contrast:36} {c.mean:+.4f}  95 % [{c.low:+.4f}, {c.high:+.4f}]  "
            f"p = {c.p_t:.3f} (t), {c.p_wilcoxon:.3f} (Wilcoxon), {c.p_holm:.3f} (t, Holm)"
        )
    return found


def _spread(values: Sequence[float]) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):.3f} ± {spread:.3f}"


def main() -> None:
    """Run one arm: the loop on the quickstart's data."""
    from edgeelad.loop import distill
    from edgeelad.quickstart.run import quickstart

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("settings", nargs="*", help="section.key=value")
    arguments = parser.parse_args()
    progress = Silent()
    with quickstart(arguments.out, arguments.seed, arguments.settings, progress) as config:
        distill(config, progress)
    assert read_json(arguments.out / "summary.json")


if __name__ == "__main__":
    main()
