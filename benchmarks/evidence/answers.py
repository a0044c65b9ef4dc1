"""What the pool's answers tell: where the student is wrong, and which of its right explanations are so by luck.

    python benchmarks/evidence/answers.py --data ../shared/data/svamp/mawps-asdiv-a.csv --seeds 0 1 2

Of each task's base student, which explains the pool greedily: AUROC for "the answer is wrong" of the cold start's risk,
of the risk with the nearest questions' (as a bare pool is chosen by), of the share of the nearest questions that are
wrong, and of the risk corrected by it; and of the explanations that reach the pool's answer, how many are taken for
right and how many of these are flawed, by the risk and by the corrected one. Students are those of `run.py`, in the
same folder. Prints a table.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from detection import auroc
from study import Study
from tasks import TASKS, make_task

from edgeelad.config import SelectionConfig
from edgeelad.records import ReasoningTree
from edgeelad.selection.odds import Neighborhood, corrected, pooled_log_odds
from edgeelad.teacher.plan.luck import MAX_SHARE, Luck, accidents, surest
from edgeelad.teacher.revision.own_chain import own_chain
from edgeelad.text.answers import agree
from edgeelad.uncertainty.risk import COLD_START, risk_of


def main() -> None:
    """Print a row per task and seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="mawps-asdiv-a.csv; without it, the task mawps is left out")
    parser.add_argument("--work", type=Path, default=Path("runs/evidence"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--tasks", nargs="*", choices=sorted(TASKS), default=["words", "varied", "chains", "mawps"])
    arguments = parser.parse_args()
    print(
        "| task, seed | wrong | risk | with neighbors' risk | neighbors wrong | corrected | taken, flawed | corrected |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name in arguments.tasks:
        for seed in arguments.seeds if name != "mawps" or arguments.data is not None else ():
            folder = arguments.work / f"{name}-{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            study = Study(make_task(name, seed, arguments.data), folder, seed)
            print(f"| {name}, {seed} | {' | '.join(_columns(study))} |", flush=True)


def _columns(study: Study) -> Iterator[str]:
    questions = sorted(study.task.pool, key=lambda question: question.id)
    with study.open(study.base) as student:
        trees = list(student.explain(questions, study.task.max_tokens))
    is_wrong = np.array([not agree(tree.answer, study.pool[tree.question.id].answer) for tree in trees])
    risks = np.array([risk_of(tree, COLD_START) for tree in trees])
    around = Neighborhood.of(questions, SelectionConfig().neighbors)
    outcomes = is_wrong.astype(np.float64)
    told = corrected(risks, outcomes, around)
    yield f"{is_wrong.mean():.2f}"
    for values in (risks, pooled_log_odds(risks, around), around.means(outcomes), told):
        yield f"{auroc(values, is_wrong):.3f}"
    for values in (risks, told):
        yield _taken(study, trees, dict(zip((q.id for q in questions), values.tolist(), strict=True)))


def _taken(study: Study, trees: list[ReasoningTree], risks: dict[str, float]) -> str:
    """How many explanations are taken for right, and how many of them are flawed."""
    by_id = {tree.question.id: tree for tree in trees}
    questions = [study.pool[id_] for id_ in by_id]
    found = accidents(questions, by_id, risks, Luck(questions, by_id))
    sure = surest(found, MAX_SHARE * len(found))
    num_flawed = 0
    for question in questions:
        own = own_chain(by_id[question.id], question.answer or "") if question.id in sure else None
        num_flawed += own is not None and study.task.first_flaw(question, own.steps) is not None
    return f"{len(sure)}, {num_flawed}"


if __name__ == "__main__":
    main()
