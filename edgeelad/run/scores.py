"""scores.jsonl: one line a question, what the student did on it and how uncertain it is. The one writer and reader.

Rows stream in and out, so a pool of any size needs constant memory. Floats are written with six significant digits:
what lies below is the machine's rounding, and the same scores give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeelad.errors import RunError
from edgeelad.files import dump_json, read_jsonl, write_jsonl
from edgeelad.records import ReasoningTree, Score


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One row of a scores file.

    Attributes:
        id: The question.
        strategy: What scored it.
        score: Higher = more uncertain.
        explanation: The student's greedy explanation, as generated.
        steps: Its steps.
        answer: The answer that it states; None for none.
        branch_answers: A list for each prefix 0..T; empty where the strategy needs no branches.
        step_scores: One a step, where the strategy looks at steps.
        mean_logprob: Of the greedy explanation's tokens (nats).
        mean_entropy: Of the greedy explanation's tokens (nats).
        num_tokens: Student tokens that the score cost.
    """

    id: str
    strategy: str
    score: float
    explanation: str
    steps: tuple[str, ...]
    answer: str | None
    branch_answers: tuple[tuple[str | None, ...], ...]
    step_scores: tuple[float, ...]
    mean_logprob: float
    mean_entropy: float
    num_tokens: int


def write_scores(path: Path, rows: Iterable[tuple[ReasoningTree, Score]]) -> int:
    """Write a scores file whole, streaming; gives the number of rows.

    Raises:
        StorageError: The file cannot be written.
    """
    return write_jsonl(path, (asdict(make_row(tree, scored)) for tree, scored in rows))


def score_line(tree: ReasoningTree, scored: Score) -> bytes:
    """The row of one question as a line of a scores file."""
    return (dump_json(asdict(make_row(tree, scored))) + "\n").encode("utf-8")


def read_scores(path: Path) -> Iterator[ScoreRow]:
    """Read a scores file, one row at a time.

    Raises:
        RunError: The file is missing, or a line is not what `write_scores` writes; the message names file and line.
    """
    for number, row in enumerate(read_jsonl(path), start=1):
        try:
            yield _parse(row)
        except (TypeError, ValueError, KeyError) as error:
            what = f"no field {error}" if isinstance(error, KeyError) else str(error)
            raise RunError(f"{path}:{number}: not a row of a scores file ({what}); score the pool again") from error


def make_row(tree: ReasoningTree, scored: Score) -> ScoreRow:
    """The row of one question."""
    assert tree.question.id == scored.question_id, "a score belongs to its tree"
    return ScoreRow(
        id=scored.question_id,
        strategy=scored.strategy,
        score=_rounded(scored.value),
        explanation=tree.text,
        steps=tree.steps,
        answer=tree.answer,
        branch_answers=tree.branch_answers,
        step_scores=tuple(map(_rounded, scored.step_scores)),
        mean_logprob=_rounded(tree.mean_logprob),
        mean_entropy=_rounded(tree.mean_entropy),
        num_tokens=scored.num_tokens,
    )


def _rounded(value: float) -> float:
    return float(f"{value:.6g}") + 0.0  # + 0.0: no negative zero


def _parse(row: Any) -> ScoreRow:
    if not isinstance(row, dict):
        raise TypeError("not a JSON object")
    answer = row["answer"]
    return ScoreRow(
        id=_text(row, "id"),
        strategy=_text(row, "strategy"),
        score=_number(row, "score"),
        explanation=_text(row, "explanation"),
        steps=tuple(map(str, row["steps"])),
        answer=None if answer is None else str(answer),
        branch_answers=tuple(tuple(row_answers) for row_answers in row["branch_answers"]),
        step_scores=tuple(map(float, row["step_scores"])),
        mean_logprob=_number(row, "mean_logprob"),
        mean_entropy=_number(row, "mean_entropy"),
        num_tokens=int(row["num_tokens"]),
    )


def _text(row: dict[str, Any], name: str) -> str:
    if not isinstance(row[name], str):
        raise TypeError(f"{name} is not a string")
    return str(row[name])


def _number(row: dict[str, Any], name: str) -> float:
    if isinstance(row[name], bool) or not isinstance(row[name], int | float):
        raise TypeError(f"{name} is not a number")
    return float(row[name])
