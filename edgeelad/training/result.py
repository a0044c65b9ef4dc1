"""What a fine-tuning did."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class SkippedExample:
    """An example that was not trained on, and why."""

    question_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a fine-tuning did.

    Attributes:
        folder: The student folder that was written.
        num_examples: Examples that were trained on.
        skipped: Examples that were not, with reasons.
        num_steps: Optimizer steps.
        num_label_tokens: Tokens that the loss was taken on, in one pass over the examples.
        first_loss: Loss of the first step (nats per token).
        final_loss: Mean loss of the last steps (about the last fiftieth of them; nats per token).
        seconds: Wall-clock time, loading and saving included.
    """

    folder: Path
    num_examples: int
    skipped: tuple[SkippedExample, ...]
    num_steps: int
    num_label_tokens: int
    first_loss: float
    final_loss: float
    seconds: float

    @property
    def num_skipped(self) -> int:
        """Examples that were not trained on."""
        return len(self.skipped)
