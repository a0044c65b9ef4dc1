"""Defaults of fine-tuning by student and examples: learning rate, optimizer steps, held-out share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from edgeelad.config import TrainingConfig

# The peak learning rate of a student of a billion parameters that is trained whole; smaller students need more, with
# the square root of their size. It gives 2e-3 at 1M, 1.4e-4 at 135M, 4e-5 at 1.5B, 2e-5 at 7B parameters: what the
# quickstart's student was tuned to (docs/LOG.md), and what model cards of these sizes name for fine-tuning.
RATE_AT_A_BILLION = 5e-5
MAX_RATE = 2e-3
# a LoRA learns best at about ten times the rate of full fine-tuning, whatever its rank
LORA_FACTOR = 10.0
# fewer examples than this are all trained on
MIN_FOR_HOLD_OUT = 40

Item = TypeVar("Item")


def learning_rate(config: TrainingConfig, num_parameters: int) -> float:
    """The peak learning rate: as configured, else by the student's size and the method.

    >>> round(learning_rate(TrainingConfig(), 135_000_000), 6)
    0.000136
    >>> learning_rate(TrainingConfig(learning_rate=1e-5), 135_000_000)
    1e-05
    """
    if config.learning_rate is not None:
        return config.learning_rate
    factor = LORA_FACTOR if config.method == "lora" else 1.0
    return min(MAX_RATE, factor * RATE_AT_A_BILLION * math.sqrt(1e9 / num_parameters))


def num_steps(config: TrainingConfig, num_rows: int, num_processes: int = 1) -> int:
    """Optimizer steps: `max_steps` if set, else `epochs` passes over the rows, and never fewer than `min_steps`.

    Args:
        config: The training section.
        num_rows: Examples that are trained on.
        num_processes: Processes that share each step (under `torchrun`).
    """
    if config.max_steps is not None:
        return config.max_steps
    per_epoch = math.ceil(num_rows / (config.batch_size * config.gradient_accumulation * num_processes))
    return max(math.ceil(per_epoch * config.epochs), config.min_steps)


def hold_out(rows: Sequence[Item], share: float, seed: int) -> tuple[list[Item], list[Item]]:
    """Split rows into those to train on and those whose loss is only watched; the order of both is kept."""
    count = int(share * len(rows)) if len(rows) >= MIN_FOR_HOLD_OUT else 0
    out = set(np.random.default_rng(seed).choice(len(rows), count, replace=False).tolist())
    return [row for i, row in enumerate(rows) if i not in out], [rows[i] for i in sorted(out)]
