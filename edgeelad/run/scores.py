"""scores.jsonl: the student's explanation of each question and its uncertainty.

Floats are written with six significant digits. The digits below are rounding noise, so equal scores give equal bytes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from edgeelad.errors import RunError, UsageError
from edgeelad.files import dump_json
from edgeelad.record_files import RecordFile
from edgeelad.records import ReasoningTree, Score
from edgeelad.uncertainty.risk import FEATURES, RiskModel
from edgeelad.uncertainty.traces import StepTrace, step_traces


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One row of a scores file.

    Attributes:
        id: The question.
        strategy: The strategy that scored it.
        score: Higher = more uncertain.
        explanation: The student's greedy explanation, as generated.
        steps: Its steps.
        answer: The answer that it states, or None.
        branch_answers: The branches' answers for each prefix 0..T; empty if the strategy needs no branches.
        step_scores: One per step, if the strategy scores steps.
        mean_logprob: Of the greedy explanation's tokens (nats).
        mean_entropy: Of the greedy explanation's tokens (nats).
        num_tokens: Student tokens that the score cost.
        risk: Probability that the answer is wrong (`uncertainty.risk`), whatever the strategy; None without an
            explanation.
        traces: Per step, and last for the answer line: number of tokens, mean log-probability, lowest mean of four
            tokens in a row, mean entropy, largest entropy; number of tokens with digits or operators, their mean
            entropy (nats).
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
    risk: float | None = None
    traces: tuple[StepTrace, ...] = ()


def read_risk(path: Path) -> RiskModel:
    """Read the risk model of a run's round.

    Raises:
        UsageError: There is no such file.
        RunError: It is not a risk model.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file; name a run's rounds/NN/risk.json")
    model = RecordFile(path, RiskModel).read()
    if len(model.coefficients) != len(FEATURES):
        raise RunError(
            f"{path}: has {len(model.coefficients)} coefficients and not {len(FEATURES)}: another version of edgeelad "
            "wrote it; take the model of a run of this version"
        )
    return model


def make_row(tree: ReasoningTree, scored: Score) -> ScoreRow:
    """Make the row of one question."""
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
        risk=None if scored.risk is None else _rounded(scored.risk),
        traces=tuple(map(_rounded_trace, step_traces(tree))),
    )


def score_line(tree: ReasoningTree, scored: Score) -> bytes:
    """Make the line of one question, as `edgeelad score` appends it."""
    return (dump_json(asdict(make_row(tree, scored))) + "\n").encode("utf-8")


def _rounded_trace(trace: StepTrace) -> StepTrace:
    return trace._replace(
        mean_logprob=_rounded(trace.mean_logprob),
        lowest_window=_rounded(trace.lowest_window),
        mean_entropy=_rounded(trace.mean_entropy),
        max_entropy=_rounded(trace.max_entropy),
        symbol_entropy=_rounded(trace.symbol_entropy),
    )


def _rounded(value: float) -> float:
    return float(f"{value:.6g}") + 0.0  # + 0.0: no negative zero
