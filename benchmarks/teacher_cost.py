"""What teaching costs: auto against revision and full rationales, on word problems and on long chains.

    python benchmarks/teacher_cost.py cost [--num 150] [--seeds 2] [--style 1] [--best-teacher]
    python benchmarks/teacher_cost.py accuracy --out runs/2x2 [--seeds 6] [--rounds 2] [--batch 200]
        [--arms random/rationale elad/revise ...] [-- SETTING ...]

`cost` needs no training: students that take each step rightly with a set probability, a teacher over HTTP that finds
errors and answers rightly as often as set; counts requests, tokens and money for each verified annotation, and how many
of these have a wrong answer or a wrong step. Two price lists: completion tokens at four times the price of prompt
tokens, and the same with hidden reasoning tokens billed. `--style` shows the teacher N examples.
`accuracy` compares arms on the quickstart's data (`teacher_arms`), by default the 2×2 of docs/METHOD.md §6; a SETTING
is section.key=value, as for `edgeelad distill --set`, and arms that are done are not run again. Both print the
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
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import long_chains
import numpy as np
import teacher_arms
from numpy.random import Generator

from edgeelad.config import TeacherConfig
from edgeelad.errors import InputError
from edgeelad.quickstart import solver
from edgeelad.quickstart.planted import plant_error
from edgeelad.quickstart.problems import SKILLS, Problem, make_problems
from edgeelad.quickstart.replies import Faults, Solver
from edgeelad.quickstart.server import MODEL, TeacherServer
from edgeelad.quickstart.steps import find_equations
from edgeelad.records import Branch, Example, Question, ReasoningTree
from edgeelad.teacher import open_teacher
from edgeelad.teacher.revision.annotate import annotate
from edgeelad.teacher.style import with_examples
from edgeelad.text.explanation import join

NUM_BRANCHES = 3
# share of questions of a kind that the student knows; on these it takes a step rightly with probability KNOWN, on the
# others with UNKNOWN, whatever the branch: who does not know a kind errs again and again
STUDENTS = {"weak": 0.3, "middling": 0.6, "strong": 0.85}
KNOWN, UNKNOWN = 0.95, 0.3
TASKS: dict[str, Solver] = {"words": solver, "chains": long_chains}
FINDING = (0.9, 0.5)
ANSWERING = (1.0, 0.95)
# dollars per million prompt tokens, and hidden reasoning tokens per reply; completion tokens cost four times as much
PRICES = {"1:4": (0.4, 0), "reasoning": (0.4, 256)}
COMPLETION_FACTOR = 4
METHODS: dict[str, dict[str, Any]] = {
    "rationale": {"mode": "rationale"},
    "revise": {"mode": "revise"},
    "auto": {"mode": "auto"},
}


class PaperStudent:
    """A student that knows a share of the questions; the same words after the same steps."""

    def __init__(self, share: float, seed: int, solved_by: Solver) -> None:
        self.share = share
        self.seed = seed
        self.solver = solved_by

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
        is_right = self.solver.find_first_error(question.text, given) in (None, len(given))
        try:
            further = self.solver.continue_from(question.text, given if is_right else ())
        except InputError:
            further = ()
        if not further:
            stated = find_equations(given[-1]) if given else ()
            return (), str(stated[-1].result if stated else self.solver.solve(question.text).answer)
        slip = next((index for index in range(len(further)) if dice.random() >= skill), None)
        if not is_right and slip is None:
            slip = 0  # what follows from a wrong step is wrong
        if slip is not None:
            further = plant_error(further, slip, np.random.default_rng(dice.randrange(2**32)))
        return further, str(find_equations(further[-1])[-1].result)

    def _dice(self, *key: str) -> random.Random:
        return random.Random(hashlib.sha256(json.dumps([self.seed, *key]).encode()).hexdigest())


@dataclass(frozen=True, slots=True)
class Cell:
    """One setting of everything but the method."""

    task: str
    student: str
    pool_has_answers: bool
    finds: float
    answers: float
    prices: str


@dataclass(frozen=True, slots=True)
class CostRow:
    """What one method came to in one cell, over all seeds; tokens, requests and money for each verified annotation.

    Attributes:
        cell: The setting.
        method: The method.
        num: Questions.
        verified: Verified annotations.
        wrong: Of these, those with a wrong answer.
        flawed: Of these, those with the right answer and a wrong step.
        flawed_own: Of the last, those that are the student's own (L1).
        rungs: Verified annotations by rung.
    """

    cell: Cell
    method: str
    num: int
    verified: int
    wrong: int
    flawed: int
    flawed_own: int
    requests: float
    prompt_tokens: float
    completion_tokens: float
    usd: float
    rungs: dict[str, int]


def cells() -> Iterator[Cell]:
    """The grid."""
    for task, prices, student, has_answers in itertools.product(TASKS, PRICES, STUDENTS, (True, False)):
        # where the pool holds the answers, the teacher's do not matter
        for finds, answers in itertools.product(FINDING, ANSWERING[: 1 if has_answers else None]):
            yield Cell(task, student, has_answers, finds, answers, prices)


def measure_cost(num: int, num_seeds: int, num_examples: int = 0, *, best_teacher: bool = False) -> Iterator[CostRow]:
    """Every method in every cell, or in those of the best teacher.

    With `num_examples` also "auto" with so many examples of style in the prompts.
    """
    methods = dict(METHODS)
    if num_examples:
        methods["auto+style"] = {"mode": "auto", "style_examples": num_examples}
    for cell in cells():
        if best_teacher and (cell.finds, cell.answers) != (FINDING[0], ANSWERING[0]):
            continue
        for method, settings in methods.items():
            yield _measure(cell, method, settings, num, num_seeds)


def _measure(cell: Cell, method: str, settings: dict[str, Any], num: int, num_seeds: int) -> CostRow:
    solved_by = TASKS[cell.task]
    made, flawed = [], []
    num_wrong, totals = 0, np.zeros(4)
    for seed in range(num_seeds):
        problems = _problems(cell.task, num, np.random.default_rng(seed))
        right = {f"q{index}": str(problem.answer) for index, problem in enumerate(problems)}
        questions = [
            Question(f"q{index}", problem.question, answer=right[f"q{index}"] if cell.pool_has_answers else None)
            for index, problem in enumerate(problems)
        ]
        paper = PaperStudent(STUDENTS[cell.student], seed, solved_by)
        trees = {question.id: paper.tree(question) for question in questions}
        usd, reasoning_tokens = PRICES[cell.prices]
        with (
            TeacherServer(
                faults=Faults(round(1.0 - cell.answers, 6), round(1.0 - cell.finds, 6)),
                solved_by=solved_by,
                reasoning_tokens=reasoning_tokens,
            ) as server,
            tempfile.TemporaryDirectory() as folder,
        ):
            prices = {"usd_per_million_prompt": usd, "usd_per_million_completion": COMPLETION_FACTOR * usd}
            config = TeacherConfig(url=server.url, model=MODEL, api_key_env="", **prices, **settings)
            if "style_examples" in settings:
                config = with_examples(config, _examples(cell.task))
            with open_teacher(config, Path(folder) / "ledger", {}) as teacher:
                batch = list(annotate(questions, trees, teacher, paper.continue_from, config))
                usage = teacher.usage()
        texts = {question.id: question.text for question in questions}
        usable = [item for item in batch if item.is_usable]
        num_wrong += sum(item.answer != right[item.question_id] for item in usable)
        flawed += [
            item.rung
            for item in usable
            if item.answer == right[item.question_id]
            and solved_by.find_first_error(texts[item.question_id], item.steps) is not None
        ]
        made += batch
        totals += (usage.requests, usage.prompt_tokens, usage.completion_tokens, usage.cost_usd or 0.0)
    rungs = Counter(item.rung for item in made if item.is_usable)
    verified = max(1, rungs.total())
    requests, prompt_tokens, completion_tokens, cost = map(float, totals / verified)
    return CostRow(
        cell=cell,
        method=method,
        num=len(made),
        verified=rungs.total(),
        wrong=num_wrong,
        flawed=len(flawed),
        flawed_own=flawed.count("L1"),
        requests=requests,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        usd=cost,
        rungs={f"L{rung}": rungs[f"L{rung}"] for rung in range(1, 6)},
    )


def _problems(task: str, num: int, rng: Generator) -> list[Problem]:
    if task == "chains":
        return long_chains.make_chains(num, rng)
    return make_problems(num, dict.fromkeys(SKILLS, 1.0), rng)


def _examples(task: str) -> list[Example]:
    problems = _problems(task, 50, np.random.default_rng(97))
    return [Example(Question(str(i), p.question), p.steps, str(p.answer)) for i, p in enumerate(problems)]


def show_cost(rows: Sequence[CostRow]) -> None:
    """One line per row, with the ratio of its money to that of the cheaper one of the two other methods."""
    print(
        "task   prices    student  pool    finds answers method     verified wrong flawed  req. prompt compl.  "
        "µ$/each ratio  L1/L2/L3/L4/L5"
    )
    plain = {name for name in METHODS if "auto" not in name}
    cheapest = {
        cell: min(row.usd for row in rows if row.cell == cell and row.method in plain) for cell in cells_of(rows)
    }
    for row in rows:
        cell, ratio = row.cell, row.usd / cheapest[row.cell]
        rungs = "/".join(str(count) for count in row.rungs.values())
        print(
            f"{cell.task:6} {cell.prices:9} {cell.student:8} {'answers' if cell.pool_has_answers else 'bare':7} "
            f"{cell.finds:5.0%} {cell.answers:7.0%} {row.method:10} {row.verified / row.num:8.1%} "
            f"{row.wrong / max(1, row.verified):5.1%} {row.flawed / max(1, row.verified):6.1%} {row.requests:5.2f} "
            f"{row.prompt_tokens:6.1f} {row.completion_tokens:6.1f} {1e6 * row.usd:8.1f} {ratio:5.2f}  {rungs}"
        )
    autos = [(row.usd / cheapest[row.cell], row.cell) for row in rows if row.method == "auto"]
    worst, cell = max(autos, key=lambda pair: pair[0])
    print(f"auto against the cheaper of the others: {worst:.3f} at most ({cell})")


def cells_of(rows: Sequence[CostRow]) -> list[Cell]:
    """The cells that were measured, in order."""
    return list(dict.fromkeys(row.cell for row in rows))


def _arm(text: str) -> teacher_arms.Arm:
    strategy, separator, mode = text.partition("/")
    if not (strategy and separator and mode):
        raise argparse.ArgumentTypeError(f"{text!r} is not STRATEGY/MODE, such as risk/auto")
    return strategy, mode


def main() -> None:
    """Run one of the two measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    cost = commands.add_parser("cost")
    cost.add_argument("--num", type=int, default=150, help="questions for each seed")
    cost.add_argument("--seeds", type=int, default=2)
    cost.add_argument("--style", type=int, default=0, metavar="N", help="examples of style in the prompts")
    cost.add_argument("--best-teacher", action="store_true", help="only the one that finds and answers best")
    accuracy = commands.add_parser("accuracy")
    accuracy.add_argument("--out", type=Path, required=True)
    accuracy.add_argument("--seeds", type=int, default=6)
    accuracy.add_argument("--rounds", type=int, default=2)
    accuracy.add_argument("--batch", type=int, default=200)
    accuracy.add_argument("--arms", nargs="+", type=_arm, default=teacher_arms.ARMS, metavar="STRATEGY/MODE")
    accuracy.add_argument("settings", nargs="*", metavar="SETTING")
    arguments = parser.parse_args()
    print(f"{platform.platform()}, Python {platform.python_version()}, numpy {np.__version__}", flush=True)
    if arguments.command == "cost":
        rows = list(measure_cost(arguments.num, arguments.seeds, arguments.style, best_teacher=arguments.best_teacher))
        show_cost(rows)
        print(json.dumps([asdict(row) for row in rows]))
    else:
        results = teacher_arms.run_all(
            arguments.out, arguments.seeds, arguments.rounds, arguments.batch, arguments.settings, arguments.arms
        )
        print(json.dumps(teacher_arms.show(results)))


if __name__ == "__main__":
    main()
