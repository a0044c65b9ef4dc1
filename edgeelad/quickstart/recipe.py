"""The quickstart's parameters: sizes of its data, student and training, chosen by experiment (docs/LOG.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Recipe:
    """Every parameter of the quickstart.

    Attributes:
        num_seed_examples: Training examples of the base student, of known skills only.
        num_pool: Questions in the pool.
        num_test: Questions in the test set.
        hidden_size: Hidden size of the student.
        intermediate_size: Hidden size of its MLPs.
        num_layers: Number of its layers.
        num_heads: Number of its attention heads.
        max_length: Its context in tokens.
        base_steps: Optimizer steps of the base training.
        base_batch_size: Examples per step of the base training.
        base_learning_rate: Peak learning rate of the base training.
        num_rounds: Rounds of distillation.
        batch_size: Questions per round.
        round_steps: Optimizer steps per fine-tuning, which starts from the base student.
        round_batch_size: Examples per step of fine-tuning.
        round_learning_rate: Peak learning rate of fine-tuning.
        max_seed_examples: Seed examples mixed into each fine-tuning: enough to keep the known skills, so few that the
            new skills are seen often.
    """

    num_seed_examples: int = 3000
    num_pool: int = 2000
    num_test: int = 400
    hidden_size: int = 128
    intermediate_size: int = 352
    num_layers: int = 3
    num_heads: int = 4
    max_length: int = 256
    base_steps: int = 900
    base_batch_size: int = 16
    base_learning_rate: float = 4e-3
    num_rounds: int = 3
    batch_size: int = 300
    round_steps: int = 700
    round_batch_size: int = 16
    round_learning_rate: float = 2e-3
    max_seed_examples: int = 500

    @property
    def sections(self) -> dict[str, dict[str, Any]]:
        """The recipe's part of a run's configuration; the longest explanation has about 45 tokens."""
        return {
            "scoring": {"max_explanation_tokens": 64, "max_branch_tokens": 64},
            "selection": {"num_rounds": self.num_rounds, "batch_size": self.batch_size},
            "training": {
                "max_steps": self.round_steps,
                "batch_size": self.round_batch_size,
                "learning_rate": self.round_learning_rate,
                "schedule": "linear",
                "held_out_share": 0.0,  # its figures were measured without
                "max_seed_examples": self.max_seed_examples,
            },
        }


RECIPE = Recipe()
