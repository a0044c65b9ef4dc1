"""Fit the risk model of a round on what the teacher has checked so far."""

from __future__ import annotations

from edgeelad.stages.run import Run
from edgeelad.text.answers import agree
from edgeelad.uncertainty.risk import RiskModel, features, fit


def fit_risk(run: Run, number: int) -> RiskModel:
    """The model that estimates, in this round, how likely the student is wrong; the cold start in round 1.

    Its rows are the student's explanations of earlier batches as they were scored, before the student was taught them;
    its labels whether their answers agree with the verified ones. The audit sample takes no part: what it certifies
    must not depend on it.
    """
    rows: list[tuple[float, ...]] = []
    is_wrong: list[bool] = []
    for earlier in range(1, number):
        here = run.folder.round(earlier)
        checked = {item.question_id: item.answer for item in here.annotations.read_if_there() if item.answer}
        for row in here.scores.read_if_there():
            if row.id in checked and row.traces:
                rows.append(features(row.traces, row.steps, row.answer, run.pool[row.id].kind))
                is_wrong.append(not agree(row.answer, checked[row.id]))
    return fit(rows, is_wrong)
