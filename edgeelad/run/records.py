"""What a run folder says of a run, as records: the border between its files and the page.

Facts only, as the run wrote them; a figure that it did not write is None.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeelad.records import Annotation, Certificate, TeacherUsage
from edgeelad.run.teacher_check import KeptCheck

MAX_SHOWN_PER_ROUND = 40


@dataclass(frozen=True, slots=True)
class SelfAgreement:
    """How often the teacher gave the same answer when it was asked twice."""

    num_same: int
    num_asked_twice: int


@dataclass(frozen=True, slots=True)
class RunSummary:
    """`summary.json`: how the run ended. None where the run did not say."""

    stopped_because: str | None = None
    pool: int | None = None
    too_long: int | None = None
    annotated: int | None = None
    set_aside: int | None = None
    base_accuracy: float | None = None
    accuracy: float | None = None
    package_accuracy: float | None = None
    package_agreement: float | None = None
    certificate: Certificate | None = None
    teacher: TeacherUsage | None = None
    teacher_self_agreement: SelfAgreement | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    quantization: str | None = None
    student: str | None = None
    strategy: str | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class AuditLook:
    """One look at the audit: k of n disagree; the exact one-sided bounds, None where the look was free (round 0)."""

    num_disagreements: int
    num_audited: int
    upper: float | None
    lower: float | None


@dataclass(frozen=True, slots=True)
class RoundMetrics:
    """One line of `metrics.jsonl`; `annotated`, `set_aside` and `teacher` are totals up to this round.

    `package_accuracy` and `package_agreement` (same answers as fp32) are of the quantized student.
    """

    round: int
    annotated: int
    set_aside: int
    selected: int
    accuracy: float | None
    accuracy_strict: float | None
    low: float | None
    high: float | None
    num_test: int | None
    package_accuracy: float | None
    package_agreement: float | None
    by_skill: Mapping[str, tuple[int, int]]
    agreement: AuditLook | None
    kappa: float | None
    teacher: TeacherUsage
    student_tokens: int | None
    seconds: Mapping[str, float]
    mean_score: float | None


@dataclass(frozen=True, slots=True)
class SelectedQuestion:
    """One row of `selected.jsonl`: a question that was chosen for the teacher, and why."""

    id: str
    text: str
    choices: tuple[str, ...]
    reason: str
    score: float | None
    propensity: float | None


@dataclass(frozen=True, slots=True)
class ScoredExplanation:
    """What `scores.jsonl` says of one question: the student's steps with the uncertainty of each."""

    steps: tuple[str, ...]
    step_scores: tuple[float, ...]
    answer: str | None
    branch_answers: tuple[tuple[str | None, ...], ...]


@dataclass(frozen=True, slots=True)
class RoundQuestions:
    """The questions of one round.

    Attributes:
        number: The round, from 1.
        num_selected: How many were selected.
        shown: The most uncertain ones that the teacher settled, at most MAX_SHOWN_PER_ROUND.
        set_aside: Those set aside, at most MAX_SHOWN_PER_ROUND.
        num_settled: How many were settled, shown or not.
        num_set_aside: How many were set aside, shown or not.
        statuses: How many annotations ended in each status.
        rungs: How many annotations each rung of the ladder verified.
        reasons: How many were set aside for each reason.
        annotations: Annotations of the questions in `shown` and `set_aside`, by question id.
        explanations: Scored explanations of the same, by question id, where they were scored.
        pool_scores: The scores of all questions scored in this round.
        selected_scores: The scores of the selected ones.
    """

    number: int
    num_selected: int
    shown: tuple[SelectedQuestion, ...]
    set_aside: tuple[SelectedQuestion, ...]
    num_settled: int
    num_set_aside: int
    statuses: Mapping[str, int]
    rungs: Mapping[str, int]
    reasons: Mapping[str, int]
    annotations: Mapping[str, Annotation]
    explanations: Mapping[str, ScoredExplanation]
    pool_scores: array[float]
    selected_scores: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """All that the page shows."""

    path: Path
    summary: RunSummary | None
    metrics: tuple[RoundMetrics, ...]
    rounds: tuple[RoundQuestions, ...]
    settings: Mapping[str, Mapping[str, Any]]
    teacher_check: KeptCheck | None = None
