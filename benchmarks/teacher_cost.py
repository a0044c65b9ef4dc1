"""What teaching costs: revision against full rationales, on the quickstart's word problems.

    python benchmarks/teacher_cost.py cost [--num 150] [--seeds 2]
    python benchmarks/teacher_cost.py accuracy --out runs/2x2 [--seeds 6] [--rounds 2] [--batch 200] [SETTING ...]

`cost` needs no training: students that take each step rightly with a set probability, a teacher over HTTP that finds
errors and answers rightly as often as set; counts requests and tokens for each verified annotation, and how many of
these have a wrong answer. `accuracy` is the 2×2 of docs/METHOD.md §6 on the quickstart's data (`teacher_arms`); a
SETTING is section.key=value, as for `edgeelad distill --set`, and arms that are done are not run again. Both print the
environment, a table, and as the last line all figures as JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import platform
import random
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import teacher_arms

from edgeelad.config import TeacherConfig
from edgeelad.errors import InputError
from edgeelad.quickstart.planted import plant_error
from edgeelad.quickstart.problems import SKILLS, make_problems
from edgeelad.quickstart.replies import Faults
from edgeelad.quickstart.server import MODEL, TeacherServer
from edgeelad.quickstart.solver import continue_from as solve_from
from edgeelad.quickstart.solver import find_first_error, solve
from edgeelad.quickstart.steps import find_equations
from edgeelad.records import Branch, Question, ReasoningTree
from edgeelad.teacher import open_teacher
from edgeelad.teacher.revision.annotate import annotate
from edgeelad.text.explanation import join

NUM_BRANCHES = 3
# share of questions of a kind that the student knows; on these it takes a step rightly with probability KNOWN, on the
# others with UNKNOWN, whatever the branch: who does not know a kind errs again and again
STUDENTS = {"weak": 0.3, "middling": 0.6, "strong": 0.85}
KNOWN, UNKNOWN = 0.95, 0.3
FINDING = (0.9, 0.5, 0.3)
ANSWERING = (1.0, 0.95, 0.9)
METHODS = {
    "rationale": {"mode": "rationale"},
    "revise, single": {"mode": "revise", "walk": "single"},
    "revise, per_step": {"mode": "revise", "walk": "per_step"},
}


class PaperStudent:
    """A student that knows a share of the questions; the same words after the same steps."""

    def __init__(self, share: float, seed: int) -> None:
        self.share = share
        self.seed = seed

    def tree(self, question: Question) -> ReasoningTree:
        """Its greedy explanation, and branches from every prefix."""
        steps, answer = self._go_on(question, (), "greedy")
        branches = []
        for length in range(len(steps) + 1):
            group = []
            for index in range(NUM_BRANCHES):
                further, reached = self._go_on(question, steps[:length], f"branch {index}")
                group.append(Branch(join(further, reached), reached, -1.0 - index, 20))
            branches.append(tuple(group))
        text = join(steps, answer)
        return ReasoningTree(question, text, steps, answer, "eos", (), (), tuple(branches))

    def continue_from(self, items: Sequence[tuple[Question, tuple[str, ...]]]) -> list[str]:
        """What it writes after given steps."""
        return [join(*self._go_on(question, steps, "greedy")) for question, steps in items]

    def _go_on(self, question: Question, given: tuple[str, ...], kind: str) -> tuple[tuple[str, ...], str]:
        skill = KNOWN if self._dice(question.text).random() < self.share else UNKNOWN
        dice = self._dice(question.text, *given, kind)
        is_right = find_first_error(question.text, given) in (None, len(given))
        try:
            further = solve_from(question.text, given if is_right else ())
        except InputError:
            further = ()
        if not further:
            stated = find_equations(given[-1]) if given else ()
            return (), str(stated[-1].result if stated else solve(question.text).answer)
        slip = next((index for index in range(len(further)) if dice.random() >= skill), None)
        if not is_right and slip is None:
            slip = 0  # what follows from a wrong step is wrong
        if slip is not None:
            further = plant_error(further, slip, np.random.default_rng(dice.randrange(2**32)))
        return further, str(find_equations(further[-1])[-1].result)

    def _dice(self, *key: str) -> random.Random:
        return random.Random(hashlib.sha256(json.dumps([self.seed, *key]).encode()).hexdigest())


@dataclass(frozen=True, slots=True)
class CostRow:
    """What one method came to, for one student and teacher, over all seeds."""

    student: str
    pool_has_answers: bool
    finds: float
    answers: float
    method: str
    num: int
    verified: int
    wrong: int
    requests: float
    prompt_tokens: float
    completion_tokens: float
    rungs: dict[str, int]


def measure_cost(num: int, num_seeds: int) -> Iterator[CostRow]:
    """Every method for every student and teacher; figures are for each verified annotation."""
    for student, has_answers in itertools.product(STUDENTS, (True, False)):
        # where the pool holds the answers, the teacher's do not matter
        for finds, answers in itertools.product(FINDING, ANSWERING[: 1 if has_answers else None]):
            for method, settings in METHODS.items():
                yield _measure(student, has_answers, finds, answers, method, settings, num, num_seeds)


def _measure(
    student: str,
    has_answers: bool,
    finds: float,
    answers: float,
    method: str,
    settings: dict[str, Any],
    num: int,
    num_seeds: int,
) -> CostRow:
    made, wrong, requests, prompt_tokens, completion_tokens = [], 0, 0, 0, 0
    for seed in range(num_seeds):
        problems = make_problems(num, dict.fromkeys(SKILLS, 1.0), np.random.default_rng(seed))
        right = {f"q{index}": str(problem.answer) for index, problem in enumerate(problems)}
        questions = [
            Question(f"q{index}", problem.question, answer=right[f"q{index}"] if has_answers else None)
            for index, problem in enumerate(problems)
        ]
        paper = PaperStudent(STUDENTS[student], seed)
        trees = {question.id: paper.tree(question) for question in questions}
        faults = Faults(answer_error=round(1.0 - answers, 6), finding_error=round(1.0 - finds, 6))
        with TeacherServer(faults=faults) as server, tempfile.TemporaryDirectory() as folder:
            config = TeacherConfig(url=server.url, model=MODEL, api_key_env="", **settings)
            with open_teacher(config, Path(folder) / "ledger", {}) as teacher:
                batch = list(annotate(questions, trees, teacher, paper.continue_from, config))
                usage = teacher.usage()
        made += batch
        wrong += sum(item.is_usable and item.answer != right[item.question_id] for item in batch)
        requests += usage.requests
        prompt_tokens += usage.prompt_tokens
        completion_tokens += usage.completion_tokens
    usable = [item for item in made if item.is_usable]
    rungs = {f"L{rung}": sum(item.rung == f"L{rung}" for item in usable) for rung in range(1, 6)}
    verified = max(1, len(usable))
    return CostRow(
        student=student,
        pool_has_answers=has_answers,
        finds=finds,
        answers=answers,
        method=method,
        num=len(made),
        verified=len(usable),
        wrong=wrong,
        requests=requests / verified,
        prompt_tokens=prompt_tokens / verified,
        completion_tokens=completion_tokens / verified,
        rungs=rungs,
    )


def show_cost(rows: Sequence[CostRow]) -> None:
    """One line a row, with the ratio of completion tokens to the full rationales'."""
    print("student   pool     finds answers method            verified wrong  req. prompt compl. ratio  L1/L2/L3/L4/L5")
    full: dict[tuple[Any, ...], float] = {}
    for row in rows:
        key = (row.student, row.pool_has_answers, row.finds, row.answers)
        if row.method == "rationale":
            full[key] = row.completion_tokens
        ratio = row.completion_tokens / full[key]
        pool = "answers" if row.pool_has_answers else "bare"
        rungs = "/".join(str(count) for count in row.rungs.values())
        print(
            f"{row.student:9} {pool:8} {row.finds:5.0%} {row.answers:7.0%} {row.method:17} "
            f"{row.verified / row.num:8.1%} {row.wrong / max(1, row.verified):5.1%} {row.requests:5.2f} "
            f"{row.prompt_tokens:6.1f} {row.completion_tokens:6.1f} {ratio:5.2f}  {rungs}"
        )


def main() -> None:
    """Run one of the two measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    cost = commands.add_parser("cost")
    cost.add_argument("--num", type=int, default=150, help="questions for each seed")
    cost.add_argument("--seeds", type=int, default=2)
    accuracy = commands.add_parser("accuracy")
    accuracy.add_argument("--out", type=Path, required=True)
    accuracy.add_argument("--seeds", type=int, default=6)
    accuracy.add_argument("--rounds", type=int, default=2)
    accuracy.add_argument("--batch", type=int, default=200)
    accuracy.add_argument("settings", nargs="*", metavar="SETTING")
    arguments = parser.parse_args()
    print(f"{platform.platform()}, Python {platform.python_version()}, numpy {np.__version__}", flush=True)
    if arguments.command == "cost":
        rows = list(measure_cost(arguments.num, arguments.seeds))
        show_cost(rows)
        print(json.dumps([asdict(row) for row in rows]))
    else:
        results = teacher_arms.run_all(
            arguments.out, arguments.seeds, arguments.rounds, arguments.batch, arguments.settings
        )
        print(json.dumps(teacher_arms.show(results)))


if __name__ == "__main__":
    main()
