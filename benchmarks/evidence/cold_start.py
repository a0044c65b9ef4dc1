"""Fit the risk model's cold start (`edgeelad.uncertainty.risk`) on the students of the evidence, and test it.

    python benchmarks/evidence/cold_start.py --data ../shared/data/svamp/mawps-asdiv-a.csv --seeds 0

Prints the constants for the module, and the AUROC on each task of a model fitted on the other tasks alone, beside that
of mean token entropy and of the module's present constants. Uses the trees that `run.py` has kept, and replaces the
rows of kind "transfer" in its results.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from detection import auroc
from numpy.typing import NDArray
from study import Study
from tasks import TASKS, make_task

from edgeelad.text.answers import agree
from edgeelad.uncertainty.risk import COLD_START, FEATURES, features, risk_of
from edgeelad.uncertainty.traces import step_traces

RIDGE = 0.02  # per cell of weight 1
Floats = NDArray[np.float64]
Cell = tuple[str, int, int]
Rows = dict[Cell, tuple[Floats, NDArray[np.bool_], Floats, Floats]]


def main() -> None:
    """Fit and test."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path, default=Path("runs/evidence"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results.jsonl")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    arguments = parser.parse_args()
    rows: Rows = {}
    for name in TASKS:
        for seed in arguments.seeds:
            folder = arguments.work / f"{name}-{seed}"
            if not (folder / "trees-1.pickle.gz").exists():
                continue
            study = Study(make_task(name, seed, arguments.data), folder, seed)
            for number in (0, 1):
                trees = study.trees(number)
                x = [features(step_traces(tree), tree.steps, tree.answer, tree.question.kind) for tree in trees]
                wrong = [not agree(tree.answer, study.pool[tree.question.id].answer) for tree in trees]
                present = [risk_of(tree, COLD_START) for tree in trees]
                entropy = [tree.mean_entropy for tree in trees]
                rows[name, seed, number] = np.array(x), np.array(wrong), np.array(present), np.array(entropy)
    stacked = np.vstack([x for x, *_ in rows.values()])
    means, scales = stacked.mean(axis=0).round(2), np.maximum(stacked.std(axis=0), 0.1).round(2)
    print(f"{'task, seed, round':22}{'wrong':>7}{'entropy':>9}{'present':>9}{'others':>9}{'all':>9}{'own':>9}")
    everything = _fit(list(rows), rows, means, scales)
    transfer = []
    for cell, (x, wrong, present, entropy) in rows.items():
        others = [other for other in rows if other[0] != cell[0]]
        weights = _fit(others, rows, means, scales) if others else everything
        own = _fit([cell], rows, means, scales)
        z = (x - means) / scales
        found = (entropy, present, z @ weights[:-1], z @ everything[:-1], z @ own[:-1])
        figures = [round(auroc(values, wrong), 4) for values in found]
        print(f"{', '.join(map(str, cell)):22}{wrong.mean():7.2f}{''.join(f'{figure:9.3f}' for figure in figures)}")
        key = dict(zip(("task", "seed", "round"), cell, strict=True))
        names = ("entropy", "present", "others", "all", "own")
        transfer.append({"kind": "transfer", **key, **dict(zip(names, figures, strict=True))})
    _replace(arguments.out, transfer)
    print(f"MEANS = {tuple(float(value) for value in means)}")
    print(f"SCALES = {tuple(float(value) for value in scales)}")
    rounded = [round(float(weight), 2) for weight in everything]
    print(f"COLD_START = RiskModel({tuple(rounded[:-1])}, {rounded[-1]})")
    for name, weight in zip(FEATURES, rounded, strict=False):
        print(f"  {weight:+.2f} {name}")


def _replace(path: Path, rows: list[dict[str, Any]]) -> None:
    """Put the rows in the place of those of the same kind."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    kept = [line for line in lines if json.loads(line)["kind"] != "transfer"]
    path.write_text("".join(line + "\n" for line in (*kept, *map(json.dumps, rows))), encoding="utf-8")


def _fit(cells: list[Cell], rows: Rows, means: Floats, scales: Floats) -> Floats:
    """Coefficients common to the cells and the mean of their own intercepts; each cell has the same weight."""
    num = len(FEATURES)
    x = np.vstack([(rows[cell][0] - means) / scales for cell in cells])
    owner = np.concatenate([np.full(len(rows[cell][0]), i) for i, cell in enumerate(cells)])
    x = np.column_stack([x, np.eye(len(cells))[owner]])
    y = np.concatenate([rows[cell][1] for cell in cells]).astype(float)
    share = np.concatenate([np.full(len(rows[cell][0]), 1 / len(rows[cell][0])) for cell in cells])
    penalty = np.array([RIDGE * len(cells)] * num + [1e-6] * len(cells))
    weights = np.zeros(x.shape[1])
    for _ in range(60):
        p = 1 / (1 + np.exp(-np.clip(x @ weights, -30, 30)))
        gradient = x.T @ (share * (p - y)) + penalty * weights
        curvature = (x.T * (share * p * (1 - p))) @ x + np.diag(penalty)
        step = np.linalg.solve(curvature, gradient)
        weights -= step * min(1.0, 2.0 / float(np.abs(step).max()))
    return np.array([*weights[:num], weights[num:].mean()])


if __name__ == "__main__":
    main()
