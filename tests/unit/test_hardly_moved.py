"""A first student that answers as the base student did is warned of, with what its fine-tuning was."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgeelad.run.folder import RunFolder
from edgeelad.run.records import AnswerRow, TrainingRecord
from edgeelad.stages.evaluate import hardly_moved


def rows(num: int, num_wrong: int) -> list[AnswerRow]:
    return [
        AnswerRow(f"q{i}", "test" if i % 2 else "audit", "1", "2" if i < num_wrong else "1", None, i >= num_wrong)
        for i in range(num)
    ]


@pytest.mark.parametrize(
    ("num_changed", "num_wrong", "is_warned"),
    [
        (0, 40, True),
        (7, 40, True),
        (8, 40, False),  # 5% of 150 changed
        (0, 14, False),  # there was little to learn
        (0, 15, True),
    ],
)
def test_few_changed_answers_are_warned_of(tmp_path: Path, num_changed: int, num_wrong: int, is_warned: bool) -> None:
    folder = RunFolder(tmp_path)
    folder.round(1).training.write(TrainingRecord(96, 0, 36, 6.0, 2e-5, 1.23, ((36, 1.23),), (), None))
    run: Any = SimpleNamespace(folder=folder)
    warning = hardly_moved(run, rows(150, num_wrong), num_changed)
    assert (warning is not None) == is_warned
    if warning is not None:
        assert f"changed its answer to {num_changed} of 150 held-out questions" in warning
        assert f"still answers {num_wrong} wrong" in warning
        assert "36 steps, 6 passes over the examples, at a learning rate of 2.0e-05" in warning
        assert "training.learning_rate, training.epochs or training.min_steps" in warning


def test_questions_without_a_reference_answer_are_not_wrong(tmp_path: Path) -> None:
    unanswered = [AnswerRow(f"q{i}", "audit", None, "1", None, False) for i in range(150)]
    run: Any = SimpleNamespace(folder=RunFolder(tmp_path))
    assert hardly_moved(run, unanswered, 0) is None
