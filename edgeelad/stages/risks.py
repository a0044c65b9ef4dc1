"""What the pool's answers tell of the student: where it is wrong, and how likely it is around there."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence

import numpy as np

from edgeelad.records import Question
from edgeelad.run.scores import ScoreRow
from edgeelad.selection.odds import Neighborhood, corrected
from edgeelad.selection.ranking import Floats
from edgeelad.stages.run import Run
from edgeelad.text.answers import agree

MAX_COMPARED = 10_000  # questions that are considered: the batch, and of the others as many at random


def outcomes(run: Run, number: int, questions: Sequence[Question]) -> Floats:
    """For each question 1 where the answer scored in a round is wrong, 0 where it is right, NaN where nothing tells."""
    known = {question.id: question for question in questions if question.answer is not None}
    # the scores of a bare pool are not read again
    rows = run.folder.round(number).scores.read_if_there() if known else ()
    scored = (row for row in rows if row.id in known and row.risk is not None)
    found = {row.id: float(not agree(row.answer, known[row.id].answer)) for row in scored}
    return np.array([found.get(question.id, math.nan) for question in questions], dtype=np.float64)


def scored_with_answers(run: Run, number: int) -> list[ScoreRow]:
    """A round's scored explanations of questions whose answer the pool has, by id; those of the batch among them."""
    if not run.pool.has_answers:
        return []
    here, rng = run.folder.round(number), run.rng(number, "answers")
    batch = {row.id for row in here.selected.read()}
    rows: Iterator[ScoreRow] = (
        row for row in here.scores.read_if_there() if row.risk is not None and run.pool[row.id].answer is not None
    )
    kept = heapq.nsmallest(MAX_COMPARED, rows, key=lambda row: (row.id not in batch, rng.random()))
    return sorted(kept, key=lambda row: row.id)


def corrected_risks(run: Run, rows: Sequence[ScoreRow]) -> dict[str, float]:
    """The probability that the student's answer is wrong, by its explanation and by what is wrong around it.

    Args:
        run: Whose pool has the answers.
        rows: `scored_with_answers`.

    Returns:
        By id of the same questions; what was scored if neighbors are off.
    """
    risks = np.array([row.risk for row in rows], dtype=np.float64)
    num_neighbors = run.config.selection.neighbors
    if num_neighbors and len(rows) > 1:
        questions = [run.pool[row.id] for row in rows]
        answers = zip(rows, questions, strict=True)
        is_wrong = np.array([not agree(row.answer, question.answer) for row, question in answers], dtype=np.float64)
        risks = corrected(risks, is_wrong, Neighborhood.of(questions, num_neighbors))
    return {row.id: risk for row, risk in zip(rows, risks.tolist(), strict=True)}
