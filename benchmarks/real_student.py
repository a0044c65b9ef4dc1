"""Distill into SmolLM2-135M-Instruct or Gemma-3-270M with its real weights, from the pool to the package.

    python benchmarks/real_student.py problems --cache ~/.cache/edgeelad-bench --out runs/problems
    python benchmarks/real_student.py mawps-asdiv --data shared/data/svamp/mawps-asdiv-a.csv --out runs/mawps …

`problems` are the quickstart's generated word problems, and its exact solver is the teacher: it corrects the student's
own steps over HTTP as a paid teacher would. For `mawps-asdiv` the teacher is the data set: explanations made of its
equations. The student and its weights: real_weights.py. Trains on a GPU if there is one. The same command resumes a run
that was interrupted. Prints the machine, the table of rounds, the package's accuracy, and as its last line the summary
as JSON.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path

from real_weights import WEIGHTS, WeightsMissingError, checkpoint
from runs import distill, print_run

from edgeelad.files import write_jsonl
from edgeelad.quickstart.problems import make_split
from edgeelad.quickstart.run import problem_rows, serve_teacher
from edgeelad.quickstart.server import MODEL
from edgeelad.run.folder import RunFolder

POOLS = ("problems", "mawps-asdiv")


def main() -> None:
    """Make the checkpoint and the pool, run the distillation through the command line, print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pool", choices=POOLS)
    parser.add_argument("--data", type=Path, help="mawps-asdiv-a.csv, for the pool mawps-asdiv")
    parser.add_argument("--student", choices=sorted(WEIGHTS), default="smollm2")
    parser.add_argument("--cache", type=Path, required=True, help="where checkpoints are kept")
    parser.add_argument("--out", type=Path, required=True, help="run folder; resumed if it holds a run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--questions", type=int, help="use only the first questions of the pool")
    parser.add_argument("--test", type=int, default=200, help="test questions")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--batch", type=int, default=150, help="questions that the teacher sees per round")
    parser.add_argument("--steps", type=int, help="optimizer steps per round; default: by the product's rule")
    parser.add_argument("--scored", type=int, help="questions scored per round; default: the whole pool")
    parser.add_argument("--max-tokens", type=int, default=96, help="maximum tokens per explanation")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any other configuration key")
    arguments = parser.parse_args()
    if arguments.pool == "mawps-asdiv" and (arguments.data is None or not arguments.data.is_file()):
        print("skipped: mawps-asdiv needs --data with MAWPS and ASDiv-A as one csv file (SVAMP's repository has it)")
        return
    try:
        student = checkpoint(arguments.student, arguments.cache)
    except WeightsMissingError as error:
        print(f"skipped: {error}")
        return
    settings: dict[str, object] = {
        "student.model": str(student),
        "run.seed": arguments.seed,
        "pool.limit": arguments.questions,
        "pool.max_test": arguments.test,
        "selection.num_rounds": arguments.rounds,
        "selection.batch_size": arguments.batch,
        "scoring.max_questions": arguments.scored,
        "scoring.max_explanation_tokens": arguments.max_tokens,
        "scoring.max_branch_tokens": arguments.max_tokens,
        "training.max_steps": arguments.steps,
        "stopping.audit_size": 0,
        **dict(setting.split("=", 1) for setting in arguments.set),
    }
    with ExitStack() as stack:
        if arguments.pool == "mawps-asdiv":
            settings |= {"pool.path": str(arguments.data), "pool.format": "mawps-asdiv", "teacher.kind": "dataset"}
        else:
            server = stack.enter_context(serve_teacher(RunFolder(arguments.out)))
            data = arguments.out.with_name(arguments.out.name + "-data")
            settings |= _make_problems(data, arguments.seed, arguments.questions or 1000, arguments.test)
            settings |= {"teacher.url": server.url, "teacher.model": MODEL, "teacher.api_key_env": ""}
        distill(arguments.out, settings)
    print_run(arguments.out)


def _make_problems(folder: Path, seed: int, num_pool: int, num_test: int) -> dict[str, object]:
    """Write the pool, without answers, and the test questions; gives the configuration that names them."""
    pool, test = folder / "pool.jsonl", folder / "test.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    split = make_split(seed, 1, num_pool, num_test)
    write_jsonl(pool, problem_rows(split.pool, "pool", is_labeled=False))
    write_jsonl(test, problem_rows(split.test, "test", is_labeled=True))
    return {"pool.path": str(pool), "pool.test_path": str(test), "pool.kind": "number"}


if __name__ == "__main__":
    sys.exit(main())
