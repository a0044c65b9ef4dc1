"""Detection with a pretrained student: how well each score tells which word problems it gets wrong.

    python benchmarks/real_student.py problems --cache DIR --out runs/problems …
    python benchmarks/evidence/pretrained.py --student runs/problems/rounds/01/onnx --round 1

The questions are new to the student and evenly of all ten kinds; the exact solver knows their answers. `risk` is fitted
on the first 60, which no score is measured on. Trees are kept in the work folder, so that the command resumes. Appends
to `results.jsonl`, as `run.py` does, and does not measure again what is there.
"""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path

import numpy as np
from detection import fitted, rows_of
from run import HERE, Results
from tasks import first_wrong_equation

from edgeelad.engine.options import EngineOptions
from edgeelad.engine.student import Student
from edgeelad.engine.tree import TreeParams
from edgeelad.quickstart.problems import SKILLS, make_problems
from edgeelad.records import Question, ReasoningTree

NUM_CHECKED, BLOCK = 60, 20
NUM_EXPLANATIONS, NUM_BRANCHES = 12, 3


def main() -> None:
    """Generate the trees that are missing, and add the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", type=Path, required=True, help="its exported folder")
    parser.add_argument("--round", type=int, required=True, help="the round after which it was exported")
    parser.add_argument("--questions", type=int, default=300, help="questions besides those that `risk` is fitted on")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", choices=["fp32", "int8", "int4"], default="int8")
    parser.add_argument("--work", type=Path, default=Path("runs/evidence/pretrained"))
    parser.add_argument("--out", type=Path, default=HERE / "results.jsonl")
    arguments = parser.parse_args()
    results, key = Results(arguments.out), {"kind": "detection", "task": "pretrained", "seed": 0}
    if results.has(round=arguments.round, **key):
        return
    rng = np.random.default_rng([0, 98])
    problems = make_problems(NUM_CHECKED + arguments.questions, dict.fromkeys(SKILLS, 1.0), rng)
    pool = [
        Question(f"problem-{i}", problem.question, "number", (), str(problem.answer), problem.steps, problem.skill)
        for i, problem in enumerate(problems)
    ]
    trees = _trees(arguments, pool)
    by_id = {question.id: question for question in pool}
    model = fitted(trees[:NUM_CHECKED], by_id)
    found = rows_of(
        trees[NUM_CHECKED:], by_id, lambda question, steps: first_wrong_equation(question.text, steps), model, seed=0
    )
    for row in found:
        results.add({**key, "round": arguments.round, **row})


def _trees(arguments: argparse.Namespace, pool: list[Question]) -> list[ReasoningTree]:
    """The trees of all questions, a file per block."""
    params = TreeParams(
        num_branches=NUM_BRANCHES,
        num_root_branches=NUM_EXPLANATIONS,
        temperature=0.7,
        top_k=0,
        top_p=1.0,
        max_explanation_tokens=arguments.max_tokens,
        max_branch_tokens=arguments.max_tokens,
        probe=False,
        seed=0,
    )
    arguments.work.mkdir(parents=True, exist_ok=True)
    options = EngineOptions(num_threads=arguments.threads, precision=arguments.precision)
    trees: list[ReasoningTree] = []
    with Student.open(arguments.student, options) as student:
        for start in range(0, len(pool), BLOCK):
            path = arguments.work / f"trees-{arguments.round}-{start:04}.pickle"
            if not path.exists():
                partial = path.with_suffix(".partial")
                partial.write_bytes(pickle.dumps(list(student.generate_trees(pool[start : start + BLOCK], params))))
                partial.rename(path)
            trees += pickle.loads(path.read_bytes())
    return trees


if __name__ == "__main__":
    main()
