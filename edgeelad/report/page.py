"""Render the report: lay out figures and charts for the template, and write the page."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2

from edgeelad import __version__
from edgeelad.certificate import agreement_bounds
from edgeelad.files import write_text
from edgeelad.report import charts, figures
from edgeelad.report.claims import make_headline, stop_sentence
from edgeelad.report.questions import QuestionCard, make_cards
from edgeelad.report.read import MAX_SHOWN_PER_ROUND, ReportedRun, RoundQuestions, read_run
from edgeelad.report.risk import RiskSection, risk_section
from edgeelad.run.records import RoundMetrics, TrainingRecord

REPORT_FILE = "report.html"
STATUSES = ("accepted", "revised", "completed", "rationale", "set_aside")
RUNGS = ("L1", "L2", "L3", "L4", "L5")
_SECRET_KEYS = frozenset({"extra_headers", "extra_body"})
_USER_INFO = re.compile(r"(?<=://)[^/@\s]+@")


@dataclass(frozen=True, slots=True)
class SkillBar:
    """Accuracy on one skill before and after; None if that evaluation did not include it."""

    skill: str
    base: float | None
    final: float | None
    total: int


@dataclass(frozen=True, slots=True)
class RoundSection:
    """A round's questions as they are shown."""

    number: int
    cards: list[QuestionCard]
    set_aside: list[QuestionCard]
    questions: RoundQuestions
    histogram: charts.Histogram | None
    risk: RiskSection | None

    @property
    def num_hidden(self) -> int:
        """Settled questions that are not shown."""
        return self.questions.num_settled - len(self.cards)

    @property
    def num_hidden_aside(self) -> int:
        """Questions set aside that are not shown."""
        return self.questions.num_set_aside - len(self.set_aside)


def write_report(run_folder: Path) -> Path:
    """Write `report.html` into a run folder from the files there; returns its path.

    The page is one file without scripts that loads nothing.

    Raises:
        RunError: The folder is no run, has no results yet, or a file in it is damaged.
        StorageError: The page cannot be written.
    """
    path = run_folder / REPORT_FILE
    write_text(path, render(read_run(run_folder)))
    return path


def render(run: ReportedRun) -> str:
    """The page's HTML."""
    summary = run.summary
    sections = _sections(run)
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            title=run.path.resolve().name,
            version=__version__,
            summary=summary,
            headline=make_headline(run),
            stop=stop_sentence(summary.stopped_because if summary else None),
            metrics=run.metrics,
            taught=[row for row in run.metrics if row.round > 0],
            accuracy_by_questions=_accuracy_chart(run.metrics, "questions annotated"),
            accuracy_by_tokens=_accuracy_chart(run.metrics, "teacher tokens"),
            agreement=_agreement_chart(run.metrics, _epsilon(run)),
            skills=_skills(run.metrics),
            trainings=[(number, record, _loss_chart(record)) for number, record in run.trainings.items()],
            warnings=_warnings(run),
            seconds=sorted(_seconds(run).items(), key=lambda item: -item[1]),
            statuses=STATUSES,
            rungs=RUNGS,
            teaching=run.teaching,
            rounds=sections,
            check=run.teacher_check,
            is_other_teacher=_is_other_teacher(run),
            max_shown=MAX_SHOWN_PER_ROUND,
            settings=_shown_settings(run.settings),
            chart_size=(charts.WIDTH, charts.HEIGHT, charts.LEFT, charts.RIGHT, charts.TOP, charts.BOTTOM),
        )
    )


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for function in (
        figures.percent,
        figures.points,
        figures.count,
        figures.short_count,
        figures.dollars,
        figures.duration,
        figures.loss,
    ):
        environment.filters[function.__name__] = function
    environment.filters["figure"] = figures.score
    environment.filters["words"] = lambda name: str(name).replace("_", " ")
    return environment


def _accuracy_chart(metrics: Sequence[RoundMetrics], against: str) -> charts.LineChart | None:
    points = []
    for row in metrics:
        if row.accuracy is None:
            continue
        tokens = row.teacher.prompt_tokens + row.teacher.completion_tokens
        bounds = f" ({figures.percent(row.low)} to {figures.percent(row.high)})" if row.low is not None else ""
        name = f"round {row.round}" if row.round else "base student"
        title = f"{name}: {figures.percent(row.accuracy)}{bounds}, {row.annotated:,} annotated, {tokens:,} tokens"
        x = tokens if against == "teacher tokens" else row.annotated
        points.append(charts.Point(x, row.accuracy, title, row.low, row.high))
    if points and points[0].x == points[-1].x:
        return None
    return charts.line_chart(
        points,
        name=f"Test accuracy against {against}",
        x_label=against,
        x_format=figures.short_count,
        y_format=figures.percent,
    )


def _agreement_chart(metrics: Sequence[RoundMetrics], epsilon: float | None) -> charts.LineChart | None:
    points = []
    for row in metrics:
        look = row.agreement
        if look is None or not look.num_audited:
            continue
        agreed = 1 - look.num_disagreements / look.num_audited
        name = f"round {row.round}" if row.round else "base student"
        title = f"{name}: {look.num_audited - look.num_disagreements} of {look.num_audited} agree"
        low = high = None
        if row.certificate is not None:
            low, high = agreement_bounds(row.certificate)
            title += f"; bounds {figures.percent(low)} and {figures.percent(high)}"
        points.append(charts.Point(row.round, agreed, title, low, high))
    return charts.line_chart(
        points,
        name="Agreement with the teacher on the audit sample, with its exact bounds",
        x_label="round",
        x_format=figures.short_count,
        y_format=figures.percent,
        reference=None if epsilon is None else (1 - epsilon, f"target {figures.percent(1 - epsilon, 0)}"),
        whole_x=True,
    )


def _loss_chart(record: TrainingRecord) -> charts.LineChart | None:
    def points(losses: Sequence[tuple[int, float]]) -> list[charts.Point]:
        return [charts.Point(step, loss, f"step {step}: {figures.loss(loss)}") for step, loss in losses]

    return charts.line_chart(
        points(record.losses),
        other=points(record.held_out_losses),
        name="Loss by optimizer step",
        x_label="optimizer step",
        x_format=figures.short_count,
        y_format=figures.loss,
        y_max=math.inf,
        has_dots=False,
    )


def _warnings(run: ReportedRun) -> list[str]:
    """What the rounds warned of, each once."""
    by_round = {row.round: row.warning for row in run.metrics}
    found = [
        (number, warning)
        for number in sorted({*by_round, *run.trainings})
        for warning in (run.trainings[number].warning if number in run.trainings else None, by_round.get(number))
        if warning is not None
    ]
    return [f"Round {number}: {warning}." for number, warning in found]


def _epsilon(run: ReportedRun) -> float | None:
    looks = [row.certificate for row in run.metrics if row.certificate is not None]
    if looks:
        return looks[-1].epsilon
    epsilon = run.settings.get("stopping", {}).get("epsilon")
    return float(epsilon) if isinstance(epsilon, int | float) else None


def _skills(metrics: Sequence[RoundMetrics]) -> list[SkillBar]:
    measured = [row for row in metrics if row.by_skill]
    if not measured:
        return []
    base = measured[0].by_skill if measured[0].round == 0 else {}
    final = measured[-1].by_skill if measured[-1].round > 0 else {}
    bars = []
    for skill in {**base, **final}:
        total = (final.get(skill) or base[skill])[1]
        bars.append(SkillBar(skill, _share(base.get(skill)), _share(final.get(skill)), total))
    return sorted(bars, key=lambda bar: (-((bar.final or 0) - (bar.base or 0)), bar.skill))


def _share(tally: tuple[int, int] | None) -> float | None:
    return tally[0] / tally[1] if tally is not None and tally[1] else None


def _seconds(run: ReportedRun) -> Mapping[str, float]:
    if run.summary is not None:
        return run.summary.seconds
    total: dict[str, float] = {}
    for row in run.metrics:
        for stage, seconds in row.seconds.items():
            total[stage] = total.get(stage, 0.0) + seconds
    return total


def _sections(run: ReportedRun) -> list[RoundSection]:
    step_scores = [
        score
        for questions in run.rounds
        for explanation in questions.explanations.values()
        for score in explanation.step_scores
    ]
    heat_scale = max(1.0, max(step_scores, default=1.0))
    return [
        RoundSection(
            number=questions.number,
            cards=make_cards(questions.shown, questions, heat_scale),
            set_aside=make_cards(questions.set_aside, questions, heat_scale),
            questions=questions,
            histogram=charts.histogram(questions.pool_scores, questions.selected_scores),
            risk=risk_section(questions),
        )
        for questions in run.rounds
    ]


def _is_other_teacher(run: ReportedRun) -> bool:
    """Whether the teacher check in the run folder is of another teacher than the run's."""
    if run.teacher_check is None:
        return False
    teacher = run.settings.get("teacher", {})
    return (teacher.get("url"), teacher.get("model")) != (run.teacher_check.url, run.teacher_check.model)


def _shown_settings(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """The settings as text, without values that may be secret: reports are shared."""
    return {
        section: {key: _shown_value(key, value) for key, value in keys.items()} for section, keys in settings.items()
    }


def _shown_value(key: str, value: Any) -> str:
    if key in _SECRET_KEYS and value:
        return "(set, not shown)"
    return _USER_INFO.sub("…@", str(value))
