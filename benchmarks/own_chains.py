"""How many of the student's own chains that would be accepted (rung L1) are wrong on the way.

    python benchmarks/own_chains.py --task chains --seed 0 [--riskiest 150] TREES [TREES ...]

TREES are the trees that `benchmarks/evidence/run.py --only detection` leaves in its folder for this task and seed. The
pool is taken to hold the answers, and its questions that can be answered, or the riskiest of them, to be one batch; the
task's checker judges every accepted chain: for chains that only reach the answer with true arithmetic, for those that
other own chains support, and for those that are also no accident (`teacher.plan.luck`). Prints the environment, a
table, and a line of JSON.
"""

from __future__ import annotations

import argparse
import gzip
import json
import pickle
import platform
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "evidence"))
from tasks import TASKS, Task, make_task

from edgeelad.records import ReasoningTree
from edgeelad.teacher.plan.luck import Luck, doubtful
from edgeelad.teacher.revision.own_chain import own_chain
from edgeelad.teacher.revision.verify import find_flaw
from edgeelad.text import explanation
from edgeelad.text.answers import agree
from edgeelad.uncertainty.risk import risk_of

# as the loop samples them by default
NUM_EXPLANATIONS = 3
RULES = ("reaches the answer", "and is supported", "and is no accident")
Chain = tuple[str, ...] | None


def any_chain(tree: ReasoningTree, reference: str) -> Chain:
    """The greedy chain if it reaches the answer with true arithmetic, else the likeliest branch that does."""
    if find_flaw(tree.steps, tree.answer, reference, "number") is None:
        return tree.steps
    found = [
        (branch.mean_logprob, tree.steps[:length] + explanation.split(branch.text).steps)
        for length, group in enumerate(tree.branches)
        for branch in group
        if agree(branch.answer, reference)
    ]
    right = [item for item in found if find_flaw(item[1], reference, reference, "number") is None]
    return max(right)[1] if right else None


def supported_chain(tree: ReasoningTree, reference: str) -> Chain:
    """The chain that the ladder accepts if it is no accident."""
    own = own_chain(tree, reference)
    return None if own is None else own.steps


def read_trees(path: Path, task: Task, riskiest: int | None) -> list[ReasoningTree]:
    """The trees of the questions that have an answer, with it, as a run has them."""
    answers = {question.id: question.answer for question in task.pool if question.id not in task.unlearnable}
    with gzip.open(path) as file:
        trees = [tree for tree in pickle.load(file) if tree.question.id in answers]
    trees = [
        replace(
            tree,
            branches=(tree.branches[0][:NUM_EXPLANATIONS], *tree.branches[1:]) if tree.branches else (),
            question=replace(tree.question, answer=answers[tree.question.id], explanation=None),
        )
        for tree in trees
    ]
    return sorted(trees, key=lambda tree: -risk_of(tree))[:riskiest]


def chains_of(rule: str, trees: list[ReasoningTree]) -> list[Chain]:
    """What a rule accepts, tree by tree."""
    if rule == "reaches the answer":
        return [any_chain(tree, tree.question.answer or "") for tree in trees]
    found = [supported_chain(tree, tree.question.answer or "") for tree in trees]
    if rule == "and is supported":
        return found
    questions, by_id = [tree.question for tree in trees], {tree.question.id: tree for tree in trees}
    doubts = doubtful(questions, by_id, {id_: risk_of(tree) for id_, tree in by_id.items()}, Luck(questions, by_id))
    return [None if tree.question.id in doubts else steps for tree, steps in zip(trees, found, strict=True)]


def main() -> None:
    """Judge what would be accepted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=sorted(TASKS), default="words")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, help="mawps-asdiv-a.csv, for the task mawps")
    parser.add_argument("--riskiest", type=int, help="questions of the batch; default: all")
    parser.add_argument("trees", type=Path, nargs="+")
    arguments = parser.parse_args()
    task = make_task(arguments.task, arguments.seed, arguments.data)
    pool = {question.id: question for question in task.pool}
    print(f"{platform.platform()}, Python {platform.python_version()}")
    rows = []
    for path in arguments.trees:
        trees = read_trees(path, task, arguments.riskiest)
        for rule in RULES:
            counts: Counter[str] = Counter()
            for tree, steps in zip(trees, chains_of(rule, trees), strict=True):
                if steps is not None:
                    kind = "greedy" if steps == tree.steps else "sampled"
                    is_right = task.first_flaw(pool[tree.question.id], steps) is None
                    counts[f"{kind} {'right' if is_right else 'wrong'}"] += 1
            num_wrong = counts["greedy wrong"] + counts["sampled wrong"]
            print(
                f"{path}: {rule:20} {counts.total()} of {len(trees)} accepted, {num_wrong} wrong "
                f"({num_wrong / max(1, len(trees)):.2%} of the batch); {dict(counts)}"
            )
            rows.append({"trees": str(path), "rule": rule, "num": len(trees), **counts})
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
