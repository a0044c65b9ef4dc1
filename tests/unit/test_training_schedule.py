"""Defaults of fine-tuning by size and number of examples."""

from pathlib import Path

import pytest

from edgeelad.config import TrainingConfig
from edgeelad.training.result import TrainingResult
from edgeelad.training.schedule import MAX_RATE, hold_out, learning_rate, num_steps


@pytest.mark.parametrize(
    ("num_parameters", "full", "lora"),
    [
        (900_000, 1.667e-3, 2e-3),
        (135_000_000, 1.361e-4, 1.361e-3),
        (494_000_000, 7.114e-5, 7.114e-4),
        (1_500_000_000, 4.082e-5, 4.082e-4),
        (7_000_000_000, 1.890e-5, 1.890e-4),
    ],
)
def test_the_rate_falls_with_the_square_root_of_the_size(num_parameters: int, full: float, lora: float) -> None:
    assert learning_rate(TrainingConfig(), num_parameters) == pytest.approx(full, rel=1e-3)
    assert learning_rate(TrainingConfig(method="lora"), num_parameters) == pytest.approx(lora, rel=1e-3)


def test_a_configured_rate_is_used_as_it_is() -> None:
    assert learning_rate(TrainingConfig(learning_rate=0.5), 10) == 0.5
    assert learning_rate(TrainingConfig(), 10) == MAX_RATE


def test_steps_are_epochs_or_the_fewest_or_exact() -> None:
    assert num_steps(TrainingConfig(), 16 * 100) == 300
    assert num_steps(TrainingConfig(), 16 * 100 + 1) == 303
    assert num_steps(TrainingConfig(), 20) == 100
    assert num_steps(TrainingConfig(min_steps=1), 20) == 6
    assert num_steps(TrainingConfig(max_steps=7), 16 * 100) == 7
    assert num_steps(TrainingConfig(gradient_accumulation=4, min_steps=1), 16 * 100) == 75


def test_a_share_is_held_out_by_seed_in_the_given_order() -> None:
    rows = list(range(100))
    trained, held_out = hold_out(rows, 0.05, 7)
    assert len(held_out) == 5
    assert sorted(trained + held_out) == rows
    assert (trained, held_out) == (sorted(trained), sorted(held_out))
    assert hold_out(rows, 0.05, 7) == (trained, held_out)
    assert hold_out(rows, 0.05, 8)[1] != held_out
    assert hold_out(rows, 0.0, 7) == (rows, [])
    assert hold_out(rows[:39], 0.5, 7) == (rows[:39], [])


def _result(*held_out: float) -> TrainingResult:
    losses = tuple((10 * i, loss) for i, loss in enumerate(held_out))
    return TrainingResult(Path(), 90, (), 100, 900, 2.0, 1.0, 1.0, 2e-5, 5, (), losses)


def test_what_the_held_out_losses_say() -> None:
    assert _result().warning is None
    assert _result(2.0, 1.5, 1.0).warning is None
    assert "hardly learned: the loss of held-out examples went from 2.000 to 1.960" in str(_result(2.0, 1.96).warning)
    overfit = str(_result(2.0, 1.0, 1.2).warning)
    assert "overfits" in overfit
    assert "lowest at step 10 (1.000) and ended at 1.200" in overfit
