"""Evidence for the choice of questions: detection of wrong answers and flawed steps, and learning, on four tasks.

    python benchmarks/evidence/run.py --data ../shared/data/svamp/mawps-asdiv-a.csv --seeds 10

On a GPU, if there is one, students are trained and generate. Results are appended to `results.jsonl` beside this file,
one row per measurement; a row that is there is not measured again, so the command resumes. A GPU's students are not a
CPU's: the learning of a task and seed that was begun on the other is left as it is. `page.py` makes tables and figures
of the rows.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from arms import LARGE, PRETRAINED, PRETRAINED_UPDATES, WITH_ANSWERS, num_rounds
from detection import detection_rows
from tasks import TASKS, make_task

HERE = Path(__file__).parent
STRATEGIES = ("random", "risk", "max-entropy", "disagreement", "elad", "lowest-window")
ARMS = (
    *((strategy, "rationale") for strategy in STRATEGIES),
    *(("risk", mode) for mode in ("auto", f"auto{WITH_ANSWERS}", "revise")),
    ("random", "revise"),
)


class Results:
    """The rows measured so far."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in lines]

    def has(self, **key: Any) -> bool:
        """Whether a row with these fields is there."""
        return any(all(row.get(name) == value for name, value in key.items()) for row in self.rows)

    def add(self, row: dict[str, Any]) -> None:
        """Append a row."""
        self.rows.append(row)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


def main() -> None:
    """Measure what is not measured yet, task by task and seed by seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="mawps-asdiv-a.csv; without it, the task mawps is left out")
    parser.add_argument("--work", type=Path, default=Path("runs/evidence"), help="students, exports and trees")
    parser.add_argument("--out", type=Path, default=HERE / "results.jsonl")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--tasks", nargs="*", choices=sorted(TASKS), default=list(TASKS))
    parser.add_argument("--only", choices=["detection", "learning"])
    parser.add_argument("--pretrained", type=Path, help="a checkpoint to start from, as real_weights.py makes one")
    parser.add_argument("--updates", type=int, default=PRETRAINED_UPDATES, help="per round of a pretrained student")
    parser.add_argument("--arms", nargs="*", help="STRATEGY/MODE, or 'STRATEGY/MODE, answers' for a pool with answers")
    arguments = parser.parse_args()
    results = Results(arguments.out)
    arms = [tuple(arm.split("/")) for arm in arguments.arms] if arguments.arms else list(ARMS)
    names = [
        name
        for name in arguments.tasks
        if (name != "mawps" or arguments.data is not None) and not (arguments.pretrained and name.endswith(LARGE))
    ]
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        for kind in ("detection", "learning"):
            for name in names:
                if arguments.only in (None, kind):
                    _measure(kind, name, seed, arguments, results, arms)


def _measure(
    kind: str, name: str, seed: int, arguments: argparse.Namespace, results: Results, arms: Sequence[tuple[str, ...]]
) -> None:
    from study import Study

    key = {"task": name if arguments.pretrained is None else name + PRETRAINED, "seed": seed}
    folder = arguments.work / f"{key['task']}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    study = Study(make_task(name, seed, arguments.data), folder, seed, arguments.pretrained, arguments.updates)
    if kind == "detection":
        for number in (0, 1):
            if not results.has(kind=kind, round=number, **key):
                for row in detection_rows(study, number):
                    results.add({"kind": kind, **key, "round": number, **row})
        return
    if not results.has(kind=kind, round=0, **key):
        accuracy = round(study.accuracy(study.base), 4)
        results.add({"kind": kind, **key, "round": 0, "annotated": 0, "accuracy": accuracy, "device": study.device})
    if not results.has(kind=kind, round=0, device=study.device, **key):
        print(f"{key['task']}, seed {seed}: begun on another device than {study.device}, so left as it is", flush=True)
        return
    for strategy, mode in arms:
        arm = {**key, "strategy": strategy, "mode": mode}
        if results.has(kind=kind, round=num_rounds(name, mode), **arm):
            continue
        for row in study.arm(strategy, mode, lambda number, arm=arm: results.has(kind=kind, round=number, **arm)):
            results.add({"kind": kind, **arm, **row})
    if not results.has(kind=kind, strategy="whole", **key):
        results.add({"kind": kind, **key, "strategy": "whole", "mode": "rationale", **study.whole_pool()})
    _drop_students(folder)


def _drop_students(folder: Path) -> None:
    """Remove the students of finished arms; the base student, round 1 and the trees stay."""
    for path in _inner(folder):
        if path.is_dir() and path.name not in {f"{kind}-{n}" for kind in ("student", "onnx") for n in "01"}:
            shutil.rmtree(path)


def _inner(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        yield from [Path(entry.path) for entry in entries]


if __name__ == "__main__":
    main()
