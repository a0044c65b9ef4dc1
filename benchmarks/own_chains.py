"""How many of the student's own chains that would be accepted (rung L1) are wrong on the way.

    python benchmarks/own_chains.py TREES [TREES ...]

TREES are the trees of word problems that `benchmarks/evidence/run.py` leaves in its folder. The pool is taken to hold
the answers; the quickstart's exact solver judges every accepted chain, for the rule as it is, and for chains that only
reach the answer with true arithmetic. Prints the environment, a table, and a line of JSON.
"""

from __future__ import annotations

import argparse
import gzip
import json
import pickle
import platform
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from edgeelad.errors import InputError
from edgeelad.quickstart.solver import find_first_error, solve
from edgeelad.records import ReasoningTree
from edgeelad.teacher.revision.own_chain import own_chain
from edgeelad.teacher.revision.verify import find_flaw
from edgeelad.text import explanation
from edgeelad.text.answers import agree

# as the loop samples them by default
NUM_EXPLANATIONS = 3


def any_chain(tree: ReasoningTree, reference: str) -> tuple[str, ...] | None:
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


def supported_chain(tree: ReasoningTree, reference: str) -> tuple[str, ...] | None:
    """The chain that the ladder accepts."""
    own = own_chain(tree, reference)
    return None if own is None else own.steps


RULES: dict[str, Callable[[ReasoningTree, str], tuple[str, ...] | None]] = {
    "reaches the answer": any_chain,
    "and is supported": supported_chain,
}


def read_trees(path: Path) -> Iterator[tuple[ReasoningTree, str]]:
    """The trees whose question the solver can read, with their answers."""
    with gzip.open(path) as file:
        trees = pickle.load(file)
    for tree in trees:
        try:
            answer = solve(tree.question.text).answer
        except InputError:  # one of the task's questions that cannot be answered
            continue
        branches = (tree.branches[0][:NUM_EXPLANATIONS], *tree.branches[1:]) if tree.branches else ()
        yield replace(tree, branches=branches), str(answer)


def main() -> None:
    """Judge what would be accepted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trees", type=Path, nargs="+")
    print(f"{platform.platform()}, Python {platform.python_version()}")
    rows = []
    for path in parser.parse_args().trees:
        for name, rule in RULES.items():
            counts: Counter[str] = Counter()
            for tree, answer in read_trees(path):
                steps = rule(tree, answer)
                if steps is None:
                    counts["none"] += 1
                else:
                    kind = "greedy" if steps == tree.steps else "sampled"
                    is_right = find_first_error(tree.question.text, steps) is None
                    counts[f"{kind} {'right' if is_right else 'wrong'}"] += 1
            num_wrong = counts["greedy wrong"] + counts["sampled wrong"]
            num = counts.total() - counts["none"]
            print(
                f"{path}: {name:20} {num} accepted, {num_wrong} wrong ({num_wrong / max(1, num):.2%}); {dict(counts)}"
            )
            rows.append({"trees": str(path), "rule": name, **counts})
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
