"""Teach the student: load it safely, turn verified explanations into tensors, fine-tune it with transformers' Trainer.

Takes a folder (or a hub id) and examples; gives plain transformers folders with `tokenizer.json` and `prompt.json`.
Torch and transformers are imported when a function is called: importing this package costs nothing and needs no extra.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from edgeelad.config import StudentConfig, TrainingConfig
from edgeelad.records import Example
from edgeelad.training.extra import distill_extra
from edgeelad.training.launcher import launched
from edgeelad.training.machine import check_machine
from edgeelad.training.result import SkippedExample, TrainingResult

__all__ = ["SkippedExample", "TrainingResult", "fine_tune", "prepare_student"]


def prepare_student(model: str, out: Path, config: StudentConfig) -> Path:
    """Load a causal LM or a T5 and save it as a student folder: safetensors, `tokenizer.json`, `prompt.json`.

    The prompt is `config.prompt_template` if it is set, else the one that a student folder was saved with (unless
    `config` sets a chat template, a system prompt or template options), else the model's chat template, else a plain
    prompt.

    Args:
        model: A folder, or a Hugging Face id. No remote code is run; only safetensors are read.
        out: The folder to create; it appears complete or not at all.
        config: The student's section of the run configuration.

    Raises:
        ModelError: The model cannot be used, and why.
        ConfigError: The prompt template cannot be rendered, or leaves out the question.
        MissingExtraError: The `distill` extra is not installed.
        StorageError: `out` cannot be written.
    """
    with distill_extra("loading a student"):
        from edgeelad.training import prepare
    return prepare.prepare_student(model, out, config)


def fine_tune(
    base: Path,
    examples: Sequence[Example],
    out: Path,
    config: TrainingConfig,
    seed: int,
    progress: Callable[[int, int, float], None] | None = None,
) -> TrainingResult:
    """Fine-tune the student in `base` on verified explanations and save it as a student folder in `out`.

    The loss is taken on the explanation, the answer line and the end-of-sequence token only. The same base, examples,
    configuration and seed give the same weights on one machine's CPU. With `config.num_processes` above 1, the work is
    done by as many processes, which end with this one. Under `torchrun` every process calls this function with the same
    arguments; the first one writes.

    Args:
        base: A student folder, with `prompt.json`.
        examples: What to learn; those too long for the student's context are skipped, and reported in the result.
        out: The folder to create; it appears complete or not at all. A LoRA is merged into the weights before saving.
        config: The training section of the run configuration.
        seed: Seed of everything random: order, dropout, adapters.
        progress: Called after each optimizer step with (step, total steps, loss in nats per token).

    Raises:
        TrainingError: Nothing to train on, a loss that is not finite, not enough memory, or a process that was killed.
        ModelError: `base` cannot be used.
        MissingExtraError: The `distill` extra is not installed.
        StorageError: `out` cannot be written.
    """
    with distill_extra("fine-tuning"):
        from edgeelad.training import processes, trainer
    check_machine(config)
    work = processes if config.num_processes > 1 and launched() is None else trainer
    return work.fine_tune(base, examples, out, config, seed, progress)
