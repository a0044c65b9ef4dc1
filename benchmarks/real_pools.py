"""Distill published questions offline into a small student from scratch: MAWPS/ASDiv-A, or 300 questions of GSM8K.

The teacher is the data set itself (`--teacher dataset`): its explanations and answers. The student is a small Llama
whose tokenizer is trained on the texts of the questions and which has only practiced arithmetic (drills such as
`27 + 16 = 43`), so whatever it answers right in the end it learned from the pool.

    python benchmarks/real_pools.py mawps-asdiv --data ../shared/data/svamp/mawps-asdiv-a.csv --out runs/mawps
    python benchmarks/real_pools.py gsm8k --data ../shared/data/gsm8k/train.jsonl --out runs/gsm8k

Prints the environment, the table of rounds, and as its last line the run's summary as JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from edgeelad.config import TrainingConfig
from edgeelad.files import read_jsonl, write_jsonl
from edgeelad.pool import read_pool
from edgeelad.prompts import PromptFormat
from edgeelad.quickstart.tokenizer import EOS_TOKEN, PAD_TOKEN, save_tokenizer
from edgeelad.records import Example, Question
from edgeelad.show import rounds_table
from edgeelad.training import fine_tune

MAX_NUMBER = 200
# what differs between the two pools: (limit, rounds, questions a round, steps a round, context, explanation tokens)
SETTINGS = {"mawps-asdiv": (None, 3, 600, 900, 256, 48), "gsm8k": (300, 2, 60, 150, 512, 160)}


def main() -> None:
    """Make the student, run the distillation through the command line, print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pool", choices=sorted(SETTINGS))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--drill-steps", type=int, default=1500)
    arguments = parser.parse_args()
    limit, rounds, batch, steps, context, max_tokens = SETTINGS[arguments.pool]
    questions = list(read_pool(arguments.data, arguments.pool, limit=limit))
    work = arguments.out.with_name(arguments.out.name + "-student")
    start = time.monotonic()
    make_student(work, questions, context, arguments.seed, arguments.drill_steps)
    print(f"student practiced arithmetic for {time.monotonic() - start:.0f} s", flush=True)
    settings = {
        "pool.path": str(arguments.data),
        "pool.format": arguments.pool,
        "pool.limit": limit,
        "student.model": str(work / "student"),
        "teacher.kind": "dataset",
        "selection.num_rounds": rounds,
        "selection.batch_size": batch,
        "scoring.max_explanation_tokens": max_tokens,
        "scoring.max_branch_tokens": max_tokens,
        "training.max_steps": steps,
        "training.batch_size": 32,
        "training.learning_rate": 2e-3,
        "training.seed_examples": str(work / "drills.jsonl"),
        "training.max_seed_examples": 300,
    }
    flags = [f"--set={key}={json.dumps(value)}" for key, value in settings.items() if value is not None]
    command = [sys.executable, "-m", "edgeelad", "distill", "--pool", str(arguments.data), "--out", str(arguments.out)]
    done = subprocess.run([*command, "--seed", str(arguments.seed), "--student", str(work / "student"), *flags])
    if done.returncode:
        sys.exit(done.returncode)
    from rich.console import Console

    versions = (
        f"torch {torch.__version__}, transformers {transformers.__version__}, onnxruntime {onnxruntime.__version__}"
    )
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, {versions}")
    Console(width=120).print(rounds_table(read_jsonl(arguments.out / "metrics.jsonl")))
    print(json.dumps(json.loads((arguments.out / "summary.json").read_text(encoding="utf-8"))))


def make_student(work: Path, questions: list[Question], context: int, seed: int, num_steps: int) -> None:
    """A Llama of about 1 M parameters that has practiced arithmetic, in `work`/student; its drills in drills.jsonl."""
    tokenizer = train_tokenizer([PromptFormat().render(question) for question in questions])
    random = work / "random"
    random.mkdir(parents=True)
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        initializer_range=0.04,
        bos_token_id=None,
        pad_token_id=tokenizer.token_to_id(PAD_TOKEN),
        eos_token_id=tokenizer.token_to_id(EOS_TOKEN),
    )
    model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():  # numbers lie on circles from the start, as in the quickstart: addition is then turning
        for number in range(MAX_NUMBER + 1):
            (token,) = tokenizer.encode(f" {number}").ids
            angles = [2 * math.pi * number / period for period in (2, 5, 10, 20, 50, 100, 200)]
            circle = torch.tensor([[math.cos(a), math.sin(a)] for a in angles]).flatten() * 0.16
            model.get_input_embeddings().weight[token, : len(circle)] = circle
    model.save_pretrained(random)
    save_tokenizer(tokenizer, random, context)
    PromptFormat(eos_token=EOS_TOKEN).save(random)
    drills = make_drills(6000, np.random.default_rng(seed))
    write_jsonl(
        work / "drills.jsonl",
        (
            {"id": e.question.id, "question": e.question.text, "answer": e.answer, "explanation": e.steps}
            for e in drills
        ),
    )
    training = TrainingConfig(max_steps=num_steps, batch_size=32, learning_rate=3e-3, schedule="linear")
    fine_tune(random, drills, work / "student", training, seed)


def train_tokenizer(texts: list[str]) -> Tokenizer:
    """Byte-level BPE in which every number up to MAX_NUMBER is one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    numbers = "".join(f" {number}" for number in range(MAX_NUMBER + 1))
    trainer = trainers.BpeTrainer(
        vocab_size=2500,
        min_frequency=5,
        special_tokens=[PAD_TOKEN, EOS_TOKEN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*texts, *[numbers] * 1000], trainer)
    return tokenizer


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
