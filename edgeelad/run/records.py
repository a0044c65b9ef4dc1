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
        copies: Ids of questions with the text of a test or audit question.
    """

    run_id: str
    fingerprints: Mapping[str, str]
    test: tuple[str, ...]
    audit: tuple[str, ...]
    too_long: tuple[str, ...]
    copies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RunState:
    """`state.json`: the round and stage that the run is in, and how long each stage took.

    Attributes:
        round: The current round.
        stage: The current stage, by the name of its function in `stages`.
        status: Whether that stage is running.
        seconds: Seconds by "round:stage".
    """

    round: int = 0
    stage: str = ""
    status: Literal["running", "ended"] = "ended"
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One row of `audit.jsonl`: the teacher's answer to an audited question.

    Attributes:
        id: The question.
        answer: The teacher's answer; None if it gave no usable one.
        second_answer: Its answer when it was asked again.
        is_checked: Whether it was asked again, as it is for the first few questions.
        usage: What the answers cost.
    """

    id: str
    answer: str | None
    second_answer: str | None = None
    is_checked: bool = False
    usage: TeacherUsage = field(default_factory=TeacherUsage)


@dataclass(frozen=True, slots=True)
class SelectedRow:
    """One row of `selected.jsonl`: a question that was chosen for the teacher.

    Attributes:
        id: The question.
        question: Its text.
        choices: Its choices, if it has any.
        reason: Why it was chosen: its score, exploration, or as a representative of the pool.
        score: Its uncertainty; None if the strategy needs no scores.
        propensity: The probability that it was to be chosen in its part of the batch, before bans and caps.
    """

    id: str
    question: str
    choices: tuple[str, ...]
    reason: SelectionReason
    score: float | None
    propensity: float


@dataclass(frozen=True, slots=True)
class OwnRow:
    """One row of `own.jsonl`: an explanation of the student's own that is right, of a question that was not asked.

    A row of `reworded.jsonl` is a verified explanation of one that was.

    Attributes:
        id: The question.
        steps: The explanation.
        answer: The answer, which it reaches.
        others: Further wordings of the explanation, the student's own.
    """

    id: str
    steps: tuple[str, ...]
    answer: str
    others: tuple[tuple[str, ...], ...] = ()


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

    Attributes:
        num_examples: Examples that were trained on.
        num_skipped: Examples that do not fit the student's context.
        num_steps: Optimizer steps.
        num_passes: How often each example was seen.
        learning_rate: Peak learning rate.
        final_loss: Mean training loss of the last steps (nats per token).
        losses: Training loss by step.
        held_out_losses: Loss of the held-out examples by step, from step 0; empty without any.
        warning: What the losses say about the training; None if they look right.
        num_own: Those among the examples that are the student's own explanations of questions that were not asked.
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
    num_own: int = 0


@dataclass(frozen=True, slots=True)
class Tracked:
    """`tracked.json` of a round: the trackers that have its losses and figures.

    Attributes:
        runs: The tracker's id of the run, by the tracker's name; "" if it has none of its own.
    """

    runs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """One row of `answers.jsonl`: a student's answer to an evaluated question, beside the reference answer.

    Attributes:
        id: The question.
        split: Why it was asked: a test question, an audited one, or one that was trained on.
        reference: The reference answer; of audited and trained questions the teacher's.
        answer: The fp32 student's answer; None if it stated none.
        package_answer: The quantized student's; None if nothing is quantized or the question was trained on.
        is_correct: Whether `answer` agrees with `reference`.
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
        package_accuracy_lost: Accuracy of fp32 less that of the quantized student, on test and audit questions with a
            known answer; None if there are none, or nothing is quantized.
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
        elad_tokens: Tokens that `elad` would have taken instead, by estimate; 0 if nothing was explained.
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
    package_accuracy_lost: float | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    elad_tokens: int = 0


@dataclass(frozen=True, slots=True)
class SelfAgreement:
    """How often the teacher gave the same answer when it was asked twice."""

    same: int
    asked_twice: int


@dataclass(frozen=True, slots=True)
class Summary:
    """`summary.json`: how the run ended.

    Attributes:
        stopped_because: The reason to stop (docs/METHOD.md §5).
        rounds: Finished rounds; 0 if nothing was taught, and then nothing is packaged.
        pool: Questions that are not held out.
        too_long: Questions that do not fit the student.
        annotated: Verified explanations.
        set_aside: Questions on which the teacher's work could not be verified.
        base_accuracy: Accuracy of the base student; None without labeled test questions.
        accuracy: Accuracy of the last student, in fp32.
        package_accuracy: Accuracy of the student that ships.
        package_agreement: Share of questions on which the student that ships answers as fp32 does.
        quantization: Precision of the student that ships.
        certificate: The last look at the audit.
        teacher: All that the ledger holds for this run.
        unusable_replies: Replies that were paid for and of no use.
        requests_in_doubt: Requests that were possibly billed, without a reply.
        teacher_self_agreement: How often the teacher repeated its answer; None if it was not asked twice.
        seconds: Seconds by stage, of all rounds.
        student: The base student's folder or id.
        strategy: The selection strategy.
        seed: The run's seed.
        student_tokens: Tokens that scoring the pool took, in all rounds.
        elad_tokens: Tokens that `elad` would have taken instead, by estimate; 0 if nothing was explained.
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
    student_tokens: int = 0
    elad_tokens: int = 0

    def to_json(self) -> dict[str, Any]:
        """The summary for a program."""
        row = asdict(self)
        if self.certificate is not None:
            row["certificate"] = self.certificate.to_json()
        return row
