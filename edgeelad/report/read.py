"""Read what the report shows from a run folder; works for a run in progress, too.

Scores are streamed: a pool of a million questions costs eight megabytes.
"""

from __future__ import annotations

import sys
from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeelad.errors import RunError
from edgeelad.files import read_errors
from edgeelad.record_files import RowFile
from edgeelad.records import Annotation, SelectionReason, TeachingPlan
from edgeelad.run.folder import RoundFolder, RunFolder
from edgeelad.run.records import RoundMetrics, SelectedRow, Summary, TrainingRecord
from edgeelad.run.scores import ScoreRow, read_risk
from edgeelad.run.teacher_check import KeptCheck, read_check
from edgeelad.run.teaching import TeachingTotals, teaching_totals
from edgeelad.text.answers import agree
from edgeelad.uncertainty.risk import RiskModel

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib

MAX_SHOWN_PER_ROUND = 40


@dataclass(frozen=True, slots=True)
class CheckedRisk:
    """A risk that was estimated before the teacher was asked, why the question was chosen, and the outcome."""

    risk: float
    reason: SelectionReason
    is_wrong: bool


@dataclass(frozen=True, slots=True)
class RoundQuestions:
    """The questions of one round.

    Attributes:
        number: The round, from 1.
        num_selected: Questions selected.
        shown: The most uncertain verified ones, up to MAX_SHOWN_PER_ROUND.
        set_aside: Those set aside, up to MAX_SHOWN_PER_ROUND.
        num_settled: Verified questions, shown or not.
        num_set_aside: Questions set aside, shown or not.
        statuses: Annotations by status.
        rungs: Annotations by the rung of the ladder that verified them.
        reasons: Questions set aside, by reason.
        annotations: Annotations of the questions in `shown` and `set_aside`, by question id.
        explanations: The scored explanations of the same questions, by question id.
        pool_scores: The scores of all questions scored in this round.
        selected_scores: The scores of the selected ones.
        risk_model: The model of how likely the student is wrong; None in runs of earlier versions.
        checked: The selected questions that the teacher settled and that had been given a risk.
        plans: How the questions in `shown` and `set_aside` were to be taught, with the mode "auto", by question id.
    """

    number: int
    num_selected: int
    shown: tuple[SelectedRow, ...]
    set_aside: tuple[SelectedRow, ...]
    num_settled: int
    num_set_aside: int
    statuses: Mapping[str, int]
    rungs: Mapping[str, int]
    reasons: Mapping[str, int]
    annotations: Mapping[str, Annotation]
    explanations: Mapping[str, ScoreRow]
    pool_scores: array[float]
    selected_scores: tuple[float, ...]
    risk_model: RiskModel | None = None
    checked: tuple[CheckedRisk, ...] = ()
    plans: Mapping[str, TeachingPlan] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReportedRun:
    """All that the page shows; `summary` is None for a run that has not ended, `trainings` is by round.

    `teaching` adds up the ways that the mode "auto" chose; None with another mode.
    """

    path: Path
    summary: Summary | None
    metrics: tuple[RoundMetrics, ...]
    rounds: tuple[RoundQuestions, ...]
    trainings: Mapping[int, TrainingRecord]
    settings: Mapping[str, Mapping[str, Any]]
    teacher_check: KeptCheck | None = None
    teaching: TeachingTotals | None = None


def read_run(path: Path) -> ReportedRun:
    """Read a run folder.

    Raises:
        RunError: It is no run folder, it has no results yet, or a file in it is damaged.
    """
    if not path.is_dir():
        raise RunError(f"{path}: no such run folder; give the folder that `edgeelad distill --out` wrote")
    folder = RunFolder(path)
    for path_of_file in (folder.config, folder.summary.path, folder.metrics.path):
        folder.digests.check(path_of_file)
    summary = folder.summary.read() if folder.summary.exists() else None
    metrics = tuple(folder.metrics.read_if_there())
    if summary is None and not metrics:
        raise RunError(
            f"{path}: no results to report: neither summary.json nor metrics.jsonl is there; "
            "if this is a run, resume it: edgeelad distill FOLDER --resume"
        )
    for here in folder.rounds():
        taught = (here.annotations, here.own, here.reworded, here.training)
        for file in (here.selected, here.plan, here.risk, here.scores, *taught):
            folder.digests.check(file.path)
    rounds = tuple(_read_round(here) for here in folder.rounds() if here.selected.exists())
    trainings = {here.number: here.training.read() for here in folder.rounds() if here.training.exists()}
    check = read_check(folder.teacher_check) if folder.teacher_check.exists() else None
    return ReportedRun(
        path, summary, metrics, rounds, trainings, _settings(folder.config), check, teaching_totals(folder)
    )


def _read_round(here: RoundFolder) -> RoundQuestions:
    """Read one round; of annotations and scores, only those of questions that will be shown are kept."""
    selected = list(here.selected.read())
    selected.sort(key=lambda row: (-(row.score or 0.0), row.id))
    annotations = {item.question_id: item for item in here.annotations.read_if_there()}
    aside = [row for row in selected if row.id in annotations and not annotations[row.id].is_usable]
    settled = [row for row in selected if row.id in annotations and annotations[row.id].is_usable]
    shown = (*settled[:MAX_SHOWN_PER_ROUND], *aside[:MAX_SHOWN_PER_ROUND])
    explanations, pool_scores = _read_scores(here.scores, {row.id for row in selected})
    are_shown = {row.id for row in shown}
    return RoundQuestions(
        number=here.number,
        num_selected=len(selected),
        shown=tuple(settled[:MAX_SHOWN_PER_ROUND]),
        set_aside=tuple(aside[:MAX_SHOWN_PER_ROUND]),
        num_settled=len(settled),
        num_set_aside=len(aside),
        statuses=Counter(item.status for item in annotations.values()),
        rungs=Counter(item.rung for item in annotations.values() if item.rung),
        reasons=Counter(item.reason for item in annotations.values() if not item.is_usable),
        annotations={row.id: annotations[row.id] for row in shown},
        explanations={id_: row for id_, row in explanations.items() if id_ in are_shown},
        pool_scores=pool_scores,
        selected_scores=tuple(row.score for row in selected if row.score is not None),
        risk_model=read_risk(here.risk.path) if here.risk.exists() else None,
        checked=tuple(
            CheckedRisk(found.risk, row.reason, not agree(found.answer, annotations[row.id].answer))
            for row in selected
            if row.id in annotations
            and annotations[row.id].answer is not None
            and (found := explanations.get(row.id)) is not None
            and found.risk is not None
        ),
        plans={plan.question_id: plan for plan in here.plan.read_if_there() if plan.question_id in are_shown},
    )


def _read_scores(file: RowFile[ScoreRow], wanted: set[str]) -> tuple[dict[str, ScoreRow], array[float]]:
    explanations: dict[str, ScoreRow] = {}
    scores: array[float] = array("d")
    for row in file.read_if_there():
        scores.append(row.score)
        if row.id in wanted:
            explanations[row.id] = row
    return explanations, scores


def _settings(path: Path) -> dict[str, dict[str, Any]]:
    if not path.exists():
        return {}
    with read_errors(path):
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    return {section: keys for section, keys in data.items() if isinstance(keys, dict)}
