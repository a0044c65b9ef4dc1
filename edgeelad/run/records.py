"""The records in a run folder's files; `folder` says which file holds which. Facts only: nothing is computed here.

`Annotation`, `Certificate` and `TeacherUsage` are in `edgeelad.records`, `ScoreRow` is in `run.scores`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from edgeelad.records import AuditCounts, Certificate, SelectionReason, TeacherUsage


@dataclass(frozen=True, slots=True)
class PoolSplit:
    """`pool.json`: how the pool was split when the run began, and what it was split from.

    Attributes:
        run_id: Distinguishes the run's spending from that of others in a shared ledger.
        fingerprints: Hashes of the pool, the test file and the seed examples, by the configuration key that names them.
        test: Ids of the questions held out for testing; empty if `pool.test_path` names a test file.
        audit: Ids of the audit sample, in random order.
        too_long: Ids of questions that leave no room for an explanation in the student's context.
    """

    run_id: str
    fingerprints: Mapping[str, str]
    test: tuple[str, ...]
    audit: tuple[str, ...]
    too_long: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunState:
    """`state.json`: the round and stage that the run is in, and seconds by "round:stage"."""

    round: int = 0
    stage: str = ""
    status: Literal["running", "ended"] = "ended"
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One row of `audit.jsonl`: the teacher's answer to an audited question, None if it gave no usable one.

    `second_answer` is its answer when it was asked again, as it is for the first few (`is_checked`).
    """

    id: str
    answer: str | None
    second_answer: str | None = None
    is_checked: bool = False


@dataclass(frozen=True, slots=True)
class SelectedRow:
    """One row of `selected.jsonl`: a question that was chosen for the teacher, why, and how probably.

    `score` is None if the strategy needs no scores.
    """

    id: str
    question: str
    choices: tuple[str, ...]
    reason: SelectionReason
    score: float | None
    propensity: float


@dataclass(frozen=True, slots=True)
class TeacherStage:
    """`teacher.json` of a round: how the teacher's work on the round ended (in round 0, on the audit).

    Attributes:
        usage: What the run has cost up to the end of this stage.
        limits: The caps and settings that the teacher was asked under; under others it may be worth asking again.
        budget: The cap that ended the stage early, in words; None if none did.
    """

    usage: TeacherUsage
    limits: Mapping[str, float | str | None]
    budget: str | None = None


@dataclass(frozen=True, slots=True)
class TrainingRecord:
    """`training.json` of a round: the outcome of its fine-tuning; see `training.TrainingResult`.

    `num_passes` is how often each example was seen.
    """

    num_examples: int
    num_skipped: int
    num_steps: int
    num_passes: float
    learning_rate: float
    final_loss: float
    losses: tuple[tuple[int, float], ...]
    held_out_losses: tuple[tuple[int, float], ...]
    warning: str | None


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """One row of `answers.jsonl`: a student's answer to an evaluated question, beside the reference answer.

    `package_answer` is the quantized student's, None if nothing is quantized or the question was trained on.
    """

    id: str
    split: Literal["test", "audit", "trained"]
    reference: str | None
    answer: str | None
    package_answer: str | None
    is_correct: bool


@dataclass(frozen=True, slots=True)
class RoundMetrics:
    """`metrics.json` of a round, and one line of `metrics.jsonl`.

    Attributes:
        round: 0 is the base student.
        selected: Questions in the round's batch.
        annotated: Verified explanations bought up to this round.
        set_aside: Annotations up to this round that could not be verified.
        accuracy: On the test questions, lenient; None without labeled test questions, as are the next four.
        accuracy_strict: Of answers in the stated format only.
        low: Lower end of the exact 95% interval of `accuracy`.
        high: Its upper end.
        num_unanswered: Test questions without an answer.
        num_test: Test questions.
        by_skill: Skill to (correct, total).
        package_accuracy: Of the quantized student.
        package_agreement: Share of questions on which the quantized student answers as fp32 does.
        shipping: The precision that would be packaged.
        agreement: Of the student that would be packaged with the teacher, on the audit; None without an audit.
        certificate: The look at the audit; None for the base student, which is no candidate.
        kappa: Cohen's κ of this student's answers with the last one's.
        num_changed: Answers to test and audit questions that differ from the last student's.
        warning: What is wrong with this student and how to fix it, or None.
        trained_wrong: Questions trained on and still answered wrong.
        outliers: Those among them that were also wrong after the last round.
        teacher: What the teacher has cost up to this round.
        rungs: Annotations that each rung of the ladder verified, up to this round.
        statuses: Annotations by status, up to this round.
        student_tokens: Tokens that scoring the pool took in this round.
        mean_score: Mean score of the pool in this round.
        seconds: By stage; in `metrics.jsonl` only, for they differ between runs that are otherwise the same.
    """

    round: int
    selected: int
    annotated: int
    set_aside: int
    accuracy: float | None
    accuracy_strict: float | None
    low: float | None
    high: float | None
    num_unanswered: int | None
    num_test: int
    by_skill: Mapping[str, tuple[int, int]]
    package_accuracy: float | None
    package_agreement: float | None
    shipping: Literal["fp32", "int8", "int4"]
    agreement: AuditCounts | None
    certificate: Certificate | None
    kappa: float | None
    num_changed: int | None
    warning: str | None
    trained_wrong: int
    outliers: tuple[str, ...]
    teacher: TeacherUsage
    rungs: Mapping[str, int]
    statuses: Mapping[str, int]
    student_tokens: int
    mean_score: float | None
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SelfAgreement:
    """How often the teacher gave the same answer when it was asked twice."""

    same: int
    asked_twice: int


@dataclass(frozen=True, slots=True)
class Summary:
    """`summary.json`: how the run ended.

    `package_accuracy` and `package_agreement` (same answers as fp32) are of the student that ships, whose precision is
    `quantization`. `pool` counts questions that are not held out, `too_long` those that do not fit the student,
    `set_aside` those on which the teacher's work could not be verified. `rounds` is 0 if nothing was taught; nothing is
    packaged then. `teacher` is all that the ledger holds, with `unusable_replies` (paid for, and of no use) and
    `requests_in_doubt` (possibly billed, without a reply).
    """

    stopped_because: str
    rounds: int
    pool: int
    too_long: int
    annotated: int
    set_aside: int
    base_accuracy: float | None
    accuracy: float | None
    package_accuracy: float | None
    package_agreement: float | None
    quantization: str
    certificate: Certificate | None
    teacher: TeacherUsage
    unusable_replies: int
    requests_in_doubt: int
    teacher_self_agreement: SelfAgreement | None
    seconds: Mapping[str, float]
    student: str | None
    strategy: str
    seed: int

    def to_json(self) -> dict[str, Any]:
        """The summary for a program."""
        row = asdict(self)
        if self.certificate is not None:
            row["certificate"] = self.certificate.to_json()
        return row
