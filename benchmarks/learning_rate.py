"""How much a student learns from few verified explanations, by learning rate and number of optimizer steps.

Fine-tunes one base student on the same examples under each setting, exports it, and measures its accuracy on test
questions. "default" is what edgeelad chooses for a student of this size; "2e-5, 3 epochs" is the usual advice for
models a thousand times larger.

    python benchmarks/learning_rate.py                                     # the quickstart's student, word problems
    python benchmarks/learning_rate.py --student DIR --train train.jsonl --test test.jsonl --num 100 --max-tokens 128
    python benchmarks/learning_rate.py --student DIR --train train.jsonl --num-test 0 --batch-size 4 --steps 40

Prints its environment, a table, and as its last line JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import transformers

from edgeelad.accuracy import evaluate
from edgeelad.config import ExportConfig, StudentConfig, TrainingConfig
from edgeelad.engine.student import Student
from edgeelad.export import export_student
from edgeelad.pool import read_pool
from edgeelad.quickstart.problems import Problem, make_split
from edgeelad.quickstart.recipe import RECIPE
from edgeelad.quickstart.student import train_base_student
from edgeelad.records import Example, Question
from edgeelad.training import fine_tune, prepare_student

SETTINGS: dict[str, dict[str, object]] = {
    "2e-5, 3 epochs": {"learning_rate": 2e-5, "min_steps": 1},
    "default, 3 epochs": {"min_steps": 1},
    "0.1 x default": {"factor": 0.1},
    "0.3 x default": {"factor": 0.3},
    "default": {},
    "3 x default": {"factor": 3.0},
    "default, 300 steps": {"min_steps": 300},
    "LoRA, default": {"method": "lora"},
}


def main() -> None:
    """Sweep the settings and print accuracy, losses and seconds of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", help="folder or id; default: the quickstart's student, trained here")
    parser.add_argument("--train", type=Path, help="labeled questions with explanations")
    parser.add_argument("--test", type=Path, help="labeled questions")
    parser.add_argument("--num", type=int, default=100, help="explanations to learn from")
    parser.add_argument("--num-test", type=int, default=200, help="0: compare the held-out losses only")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, help="the same number for all settings")
    parser.add_argument("--held-out", type=float, default=0.1, help="share of explanations not trained on")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--only", nargs="*", choices=sorted(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, {versions}")
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        base, examples, test = _material(arguments, work)
        accuracy = _accuracy(base, work / "base-onnx", test, arguments.max_tokens) if test else math.nan  # shown as nan
        rows = [{"setting": "base", "accuracy": accuracy}]
        print(f"{'setting':20} {'rate':>8} {'steps':>6} {'loss':>13} {'held out':>13} {'accuracy':>9} {'s':>5}")
        print(f"{'base':20} {'':8} {'':6} {'':13} {'':13} {rows[0]['accuracy']:9.3f}", flush=True)
        for name in arguments.only:
            rows.append(_measure(name, base, examples, test, work / name.replace(" ", "-"), arguments))
    print(json.dumps(rows))


def _measure(
    name: str, base: Path, examples: list[Example], test: list[Question], work: Path, arguments: argparse.Namespace
) -> dict[str, object]:
    settings = dict(SETTINGS[name])
    factor = settings.pop("factor", None)
    if factor is not None:
        from edgeelad.training.schedule import learning_rate

        size = sum(value.numel() for value in transformers.AutoModelForCausalLM.from_pretrained(base).parameters())
        settings["learning_rate"] = factor * learning_rate(TrainingConfig(), size)
    settings |= {"batch_size": arguments.batch_size, "max_steps": arguments.steps, "held_out_share": arguments.held_out}
    start = time.monotonic()
    result = fine_tune(base, examples, work / "student", TrainingConfig(**settings), arguments.seed)
    seconds = time.monotonic() - start
    accuracy = _accuracy(result.folder, work / "onnx", test, arguments.max_tokens) if test else math.nan
    held_out = " ".join(f"{loss:.3f}" for _, loss in (result.held_out_losses[0], result.held_out_losses[-1]))
    losses = f"{result.first_loss:.3f} {result.final_loss:.3f}"
    print(
        f"{name:20} {result.learning_rate:8.1e} {result.num_steps:6} {losses:>13} {held_out:>13} {accuracy:9.3f} "
        f"{seconds:5.0f}",
        flush=True,
    )
    return {
        "setting": name,
        "learning_rate": result.learning_rate,
        "steps": result.num_steps,
        "loss": [result.first_loss, result.final_loss],
        "held_out": result.held_out_losses,
        "accuracy": accuracy,
        "seconds": seconds,
        "warning": result.warning,
    }


def _material(arguments: argparse.Namespace, work: Path) -> tuple[Path, list[Example], list[Question]]:
    """The base student, the examples to learn from, and the test questions."""
    rng = np.random.default_rng(arguments.seed)
    if arguments.student is None:
        split = make_split(arguments.seed, RECIPE.num_seed_examples, RECIPE.num_pool, RECIPE.num_test)
        train_base_student(split.seed_examples, work / "raw", arguments.seed, recipe=RECIPE)
        base = prepare_student(str(work / "raw"), work / "base", StudentConfig(model=str(work / "raw")))
        unknown = [problem for problem in split.pool if problem.skill in _unknown_skills(split)]
        chosen = rng.choice(len(unknown), arguments.num, replace=False)
        examples = [_example(f"q{i}", unknown[i]) for i in sorted(chosen)]
        test = [_example(f"t{i}", problem).question for i, problem in enumerate(split.test)]
        return base, examples, [q for q in test if q.skill in _unknown_skills(split)][: arguments.num_test]
    base = prepare_student(arguments.student, work / "base", StudentConfig(model=arguments.student))
    pool = [q for q in read_pool(arguments.train) if q.explanation and q.answer is not None]
    chosen = rng.choice(len(pool), min(arguments.num, len(pool)), replace=False)
    examples = [Example(pool[i], pool[i].explanation or (), pool[i].answer or "") for i in sorted(chosen)]
    test = list(read_pool(arguments.test, limit=arguments.num_test)) if arguments.num_test else []
    return base, examples, test


def _unknown_skills(split: object) -> set[str]:
    known = {problem.skill for problem in split.seed_examples}  # type: ignore[attr-defined]
    return {problem.skill for problem in split.pool} - known  # type: ignore[attr-defined]


def _example(id_: str, problem: Problem) -> Example:
    question = Question(id_, problem.question, "number", answer=str(problem.answer), skill=problem.skill)
    return Example(question, tuple(problem.steps), str(problem.answer))


def _accuracy(student: Path, onnx: Path, test: list[Question], max_tokens: int) -> float:
    export_student(student, onnx, ExportConfig(quantize="none"), parity_questions=test[:2], previous=None)
    with Student.open(onnx, num_threads=torch.get_num_threads()) as opened:
        trees = opened.explain(test, max_tokens)
    return evaluate(trees, test).accuracy


if __name__ == "__main__":
    main()
