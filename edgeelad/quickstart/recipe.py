"""The quickstart's figures: sizes of its data, its student and its training, chosen by experiment (docs/LOG.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Recipe:
    """Every figure of the quickstart.

    Attributes:
        num_seed_examples: The base student's training examples, of known skills only.
        num_pool: Questions in the pool.
        num_test: Questions in the test set.
        hidden_size: Width of the student.
        intermediate_size: Width of its MLPs.
        num_layers: Its layers.
        num_heads: Its attention heads.
        max_length: Its context, in tokens.
        base_steps: Optimizer steps of the base training.
        base_batch_size: Examples a step there.
        base_learning_rate: Peak learning rate there.
        num_rounds: Rounds of distillation.
        batch_size: Questions that the teacher sees a round.
        round_steps: Optimizer steps of each fine-tuning, which starts from the base student.
        round_batch_size: Examples a step there.
        round_learning_rate: Peak learning rate there.
        max_seed_examples: Seed examples mixed into each fine-tuning: enough to keep the known skills, few enough that
            the new ones are visited often.
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
        """What the recipe says of a run's configuration; the longest explanation has some 45 tokens."""
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
