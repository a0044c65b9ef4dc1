"""The outcome of one fine-tuning."""

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
    """The outcome of one fine-tuning.

    Attributes:
        folder: The student folder that was written.
        num_examples: Examples that were trained on.
        skipped: Examples that were not, with reasons.
        num_steps: Optimizer steps.
        num_label_tokens: Tokens that the loss was taken on, in one pass over the examples.
        first_loss: Loss of the first step (nats per token).
        final_loss: Mean loss of the last steps (about the last fiftieth of them; nats per token).
        seconds: Wall-clock time, loading and saving included.
        learning_rate: Peak learning rate that was used.
        num_held_out: Examples that were watched, not trained on.
        losses: Training loss by step, as (step, nats per token).
        held_out_losses: Loss of the held-out examples by step, from step 0 (before training); empty without any.
    """

    folder: Path
    num_examples: int
    skipped: tuple[SkippedExample, ...]
    num_steps: int
    num_label_tokens: int
    first_loss: float
    final_loss: float
    seconds: float
    learning_rate: float = 0.0
    num_held_out: int = 0
    losses: tuple[tuple[int, float], ...] = ()
    held_out_losses: tuple[tuple[int, float], ...] = ()

    @property
    def num_skipped(self) -> int:
        """Examples that did not fit the student's context."""
        return len(self.skipped)

    @property
    def warning(self) -> str | None:
        """What the losses say about the training, and what to change; None if they look right."""
        if len(self.held_out_losses) < 2:
            return None
        first, *_, last = (loss for _, loss in self.held_out_losses)
        if last > 0.97 * first:
            return (
                f"the student hardly learned: the loss of held-out examples went from {first:.3f} to {last:.3f} in "
                f"{self.num_steps} steps at a learning rate of {self.learning_rate:.1e}; raise training.learning_rate, "
                "training.epochs or training.min_steps"
            )
        best_step, best = min(self.held_out_losses, key=lambda point: point[1])
        if last > 1.1 * best:
            return (
                f"the student overfits: the loss of held-out examples was lowest at step {best_step} ({best:.3f}) and "
                f"ended at {last:.3f}; lower training.epochs, training.min_steps or training.learning_rate"
            )
        return None
