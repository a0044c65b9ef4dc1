"""Distill published questions offline into a small student from scratch: MAWPS/ASDiv-A, or 300 questions of GSM8K.

The teacher is the data set itself (`--teacher dataset`): its explanations and answers. The student is a small Llama
from scratch whose tokenizer is trained on the texts of the questions too and which has practiced the quickstart's
generated problems and drills (`27 + 16 = 43`) only: nothing of the pool before the first round.

    python benchmarks/real_pools.py mawps-asdiv --data ../shared/data/svamp/mawps-asdiv-a.csv --out runs/mawps
    python benchmarks/real_pools.py gsm8k --data ../shared/data/gsm8k/train.jsonl --out runs/gsm8k

Prints the environment, the table of rounds, and as its last line the run's summary as JSON.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from runs import distill, print_run

from edgeelad.files import write_jsonl
from edgeelad.pool import read_pool
from edgeelad.quickstart.problems import SKILLS, Problem, make_problems
from edgeelad.quickstart.recipe import RECIPE
from edgeelad.quickstart.student import train_base_student
from edgeelad.records import Example, Question
from edgeelad.text.prompts import PromptFormat

MAX_NUMBER = 100
# what differs between the two pools: limit, rounds, questions a round, steps a round, context, explanation tokens,
# questions scored a round
SETTINGS = {"mawps-asdiv": (None, 2, 800, 1000, 256, 40, None), "gsm8k": (300, 2, 60, 120, 512, 80, 100)}


def main() -> None:
    """Make the student, run the distillation through the command line, print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pool", choices=sorted(SETTINGS))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--base-steps", type=int, default=1200)
    arguments = parser.parse_args()
    limit, rounds, batch, steps, context, max_tokens, num_scored = SETTINGS[arguments.pool]
    questions = list(read_pool(arguments.data, arguments.pool, limit=limit))
    work = arguments.out.with_name(arguments.out.name + "-student")
    start = time.monotonic()
    make_student(work, questions, context, arguments.seed, arguments.base_steps)
    print(f"base student trained for {time.monotonic() - start:.0f} s", flush=True)
    settings = {
        "pool.path": str(arguments.data),
        "pool.format": arguments.pool,
        "run.seed": arguments.seed,
        "pool.limit": limit,
        "student.model": str(work / "student"),
        "teacher.kind": "dataset",
        "selection.num_rounds": rounds,
        "selection.batch_size": batch,
        "scoring.max_questions": num_scored,
        "scoring.max_explanation_tokens": max_tokens,
        "scoring.max_branch_tokens": max_tokens,
        "training.max_steps": steps,
        "training.batch_size": 32,
        "training.learning_rate": 2e-3,
        "training.seed_examples": str(work / "practice.jsonl"),
        "training.max_seed_examples": 300,
    }
    distill(arguments.out, settings)
    print_run(arguments.out)


def make_student(work: Path, questions: list[Question], context: int, seed: int, num_steps: int) -> None:
    """A Llama of about 0.8 M parameters that knows the quickstart's problems and drills, in `work`/student."""
    rng = np.random.default_rng(seed)
    drills = make_drills(2000, rng)
    problems = make_problems(4000, dict.fromkeys(SKILLS, 1.0), rng)
    practice = [*problems, *(Problem(e.question.text, e.steps, int(e.answer), "drill") for e in drills)]
    write_jsonl(
        work / "practice.jsonl",
        (
            {"id": f"practice-{i}", "question": p.question, "answer": str(p.answer), "explanation": p.steps}
            for i, p in enumerate(practice)
        ),
    )
    recipe = replace(RECIPE, max_length=context, base_steps=num_steps)
    texts = [PromptFormat().render(question) for question in questions]
    train_base_student(practice, work / "student", seed, recipe=recipe, more_texts=texts)


def make_drills(num: int, rng: np.random.Generator) -> list[Example]:
    """Sums, differences, products and quotients with whole results up to MAX_NUMBER, each as a question of one step."""
    examples: dict[str, Example] = {}
    while len(examples) < num:
        operator = "+-*/"[int(rng.integers(4))]
        a, b = int(rng.integers(1, 100)), int(rng.integers(1, 100))
        if operator in "*/":
            a, b = int(rng.integers(1, 21)), int(rng.integers(1, 21))
        left, right, result = {"+": (a, b, a + b), "-": (a + b, b, a), "*": (a, b, a * b), "/": (a * b, b, a)}[operator]
        if max(left, right, result) > MAX_NUMBER:
            continue
        text = f"What is {left} {operator} {right} ?"
        if text in examples:
            continue
        step = f"{left} {operator} {right} = {result}"
        examples[text] = Example(Question(f"drill-{len(examples):04d}", text), (step,), str(result))
    return list(examples.values())


if __name__ == "__main__":
    main()
