"""Whether a quantized student may ship instead of fp32."""

from __future__ import annotations

import pytest

from edgeelad.run.records import AnswerRow
from edgeelad.stages.evaluate import accuracy_lost, is_close


def row(reference: str | None, answer: str | None, package: str | None) -> AnswerRow:
    return AnswerRow("q", "test", reference, answer, package, reference is not None and answer == reference)


def test_accuracy_lost_counts_known_answers_only() -> None:
    rows = [row("1", "1", "2"), row("1", "1", None), row("1", "2", "1"), row("1", "3", "4"), row(None, "5", "6")]
    assert accuracy_lost(rows) == pytest.approx(1 / 4)  # 2 of 4 right, then 1 of 4
    assert accuracy_lost([row("7", "8", "7")]) == -1.0
    assert accuracy_lost([row(None, "5", "6")]) is None
    assert accuracy_lost([]) is None


@pytest.mark.parametrize(
    ("same", "lost", "ships"),
    [
        (0.95, None, True),
        (0.94, None, False),
        (0.83, 0.01, True),  # 0.32 and 0.31 of 100: many wrong answers became others
        (0.83, 1 - 0.95, True),  # just as much as 95 % of equal answers allow
        (0.83, 0.06, False),
        (0.83, -0.02, True),
        (0.96, 0.04, True),
    ],
)
def test_equal_answers_or_equal_accuracy(same: float, lost: float | None, ships: bool) -> None:
    assert is_close(same, lost, 0.95) is ships
