"""Frozen records that the stages exchange.

Fields are facts; anything derived is a property. Answers are canonical strings (see `answers.canonical`), so equality
of answers is equality of strings; `None` means that no answer was found; it agrees with nothing, not even with itself.
Token counts are in the student's tokens unless a name says otherwise; log-probabilities and entropies are in nats.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

AnswerKind = Literal["number", "choice", "boolean", "text"]
AnnotationStatus = Literal["accepted", "revised", "completed", "rationale", "set_aside"]
TeachingWay = Literal["own", "answer", "check", "correct", "rationale"]
SelectionReason = Literal["score", "explore", "seed"]
FinishReason = Literal["eos", "stop", "length"]


@dataclass(frozen=True, slots=True)
class Question:
    """One row of a pool.

    Attributes:
        id: Unique in its pool.
        text: What is asked; for `choice` without the list of choices, which `prompts` appends.
        kind: How its answers are read and compared.
        choices: The choices' texts in order (labels are A, B, C …); empty unless `kind` is "choice".
        answer: The canonical reference answer, or None.
        explanation: The steps of a reference explanation, or None.
        skill: A free label from the pool (for reports and balanced splits), or None.
    """

    id: str
    text: str
    kind: AnswerKind = "number"
    choices: tuple[str, ...] = ()
    answer: str | None = None
    explanation: tuple[str, ...] | None = None
    skill: str | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """A training example: a question with an explanation to learn.

    Attributes:
        question: The question.
        steps: The explanation.
        answer: The answer that it reaches.
        others: Further explanations that reach the answer: they take turns with `steps`, one in each pass.
    """

    question: Question
    steps: tuple[str, ...]
    answer: str
    others: tuple[tuple[str, ...], ...] = ()

    @property
    def explanations(self) -> tuple[tuple[str, ...], ...]:
        """All that take turns."""
        return (self.steps, *self.others)


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """Student tokens spent on one question, by kind: prompt (prefilled), explanation, branches, probes."""

    prompt: int = 0
    explanation: int = 0
    branch: int = 0
    probe: int = 0

    @property
    def generated(self) -> int:
        """Tokens that were generated, not prefilled."""
        return self.explanation + self.branch + self.probe


@dataclass(frozen=True, slots=True)
class Branch:
    """One sampled continuation from a step prefix: its text after the prefix, and the answer that it reaches."""

    text: str
    answer: str | None
    mean_logprob: float
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Probe:
    """The answer forced right after a step prefix: its first-token argmax decoded, and the entropy there (nats)."""

    answer: str | None
    entropy: float


@dataclass(frozen=True, slots=True)
class ReasoningTree:
    """The student's greedy explanation of one question, and the branches from each step prefix.

    Attributes:
        question: The question.
        text: The greedy explanation with its answer line, as generated.
        steps: The T steps of `text`, without the answer line.
        answer: The answer that the greedy explanation states.
        finish_reason: Why the greedy explanation ended.
        token_logprobs: Log-probability of each token of the greedy explanation (nats, <= 0).
        token_entropies: Entropy of the distribution that each token was taken from (nats, >= 0).
        branches: T+1 groups; group i holds the branches sampled after steps 1..i.
        probes: T+1 forced answers; empty if none were requested.
        tokens: Student tokens spent.
        step_ends: For each step the number of tokens of the explanation up to its end; empty if unknown.
        is_symbol: For each token whether it holds a digit or an operator; empty if unknown.
        removals: T groups; group i holds the branches sampled after all steps but step i (0-based); empty if none were
            requested.
    """

    question: Question
    text: str
    steps: tuple[str, ...]
    answer: str | None
    finish_reason: FinishReason
    token_logprobs: tuple[float, ...]
    token_entropies: tuple[float, ...]
    branches: tuple[tuple[Branch, ...], ...]
    probes: tuple[Probe, ...] = ()
    tokens: TokenCounts = field(default_factory=TokenCounts)
    step_ends: tuple[int, ...] = ()
    is_symbol: tuple[bool, ...] = ()
    removals: tuple[tuple[Branch, ...], ...] = ()

    @property
    def num_steps(self) -> int:
        """T, the number of steps."""
        return len(self.steps)

    @property
    def branch_answers(self) -> tuple[tuple[str | None, ...], ...]:
        """The branches' answers, a tuple for each prefix 0..T."""
        return tuple(tuple(branch.answer for branch in group) for group in self.branches)

    @property
    def mean_logprob(self) -> float:
        """Mean token log-probability of the greedy explanation (nats); 0 for an empty one."""
        return sum(self.token_logprobs) / len(self.token_logprobs) if self.token_logprobs else 0.0

    @property
    def mean_entropy(self) -> float:
        """Mean token entropy of the greedy explanation (nats); 0 for an empty one."""
        return sum(self.token_entropies) / len(self.token_entropies) if self.token_entropies else 0.0


@dataclass(frozen=True, slots=True)
class Score:
    """The uncertainty of one question: higher = more uncertain = more worth asking the teacher.

    `step_scores` has one number per step if the strategy scores steps, else it is empty. `num_tokens` counts the
    student tokens that this strategy needed (not those generated for other strategies). `risk` is the estimated
    probability that the answer is wrong, whatever the strategy; None without a greedy explanation.
    """

    question_id: str
    strategy: str
    value: float
    step_scores: tuple[float, ...] = ()
    num_tokens: int = 0
    risk: float | None = None


@dataclass(frozen=True, slots=True)
class Selected:
    """One question chosen for the teacher: why, its score (None if it was not scored), and its propensity.

    The propensity is the probability with which it was to be chosen in its part of the batch, before bans and caps.
    """

    question_id: str
    reason: SelectionReason
    score: float | None
    propensity: float


@dataclass(frozen=True, slots=True)
class TeacherUsage:
    """What teacher calls cost: requests sent, tokens billed, dollars (None if prices are unknown).

    `num_estimated` counts the replies that did not tell their usage: their tokens and cost are estimates.
    """

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = None
    num_estimated: int = 0

    @property
    def is_estimated(self) -> bool:
        """Whether tokens and cost are estimates, in part at least."""
        return self.num_estimated > 0

    @property
    def about(self) -> str:
        """What stands before tokens and cost where they are shown: "~" if they are estimates."""
        return "~" if self.is_estimated else ""

    def __add__(self, other: TeacherUsage) -> TeacherUsage:
        # a part with requests of unknown cost makes the sum unknown
        known = [part.cost_usd for part in (self, other) if part.requests or part.cost_usd is not None]
        return TeacherUsage(
            self.requests + other.requests,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            sum(cost for cost in known if cost is not None) if known and None not in known else None,
            self.num_estimated + other.num_estimated,
        )


@dataclass(frozen=True, slots=True)
class TeacherCall:
    """One reply that was bought: which prompt asked for it, and what it cost (in two requests, if it was repeated)."""

    prompt: str
    usage: TeacherUsage


@dataclass(frozen=True, slots=True)
class Correction:
    """One flaw that was found and corrected: the step's index (0-based), its text before and after, who found it."""

    step: int
    before: str
    after: str
    source: Literal["teacher", "student"]


@dataclass(frozen=True, slots=True)
class Annotation:
    """The result of the teacher's work on one question.

    Attributes:
        question_id: The question.
        status: accepted (the student's own chain), revised, completed, rationale, or set_aside.
        rung: The rung of the ladder that verified it, "L1" … "L5" (docs/METHOD.md §4); "" when set aside.
        steps: The verified explanation; empty when set aside.
        answer: The reference answer a*, or None if it could not be determined.
        reason: Why it was set aside; "" otherwise.
        student_steps: The student's greedy steps that the teacher was shown.
        corrections: The flaws corrected on the way, in order.
        usage: Its cost.
        calls: The calls that make up the cost, in order.
    """

    question_id: str
    status: AnnotationStatus
    rung: str
    steps: tuple[str, ...]
    answer: str | None
    reason: str = ""
    student_steps: tuple[str, ...] = ()
    corrections: tuple[Correction, ...] = ()
    usage: TeacherUsage = field(default_factory=TeacherUsage)
    calls: tuple[TeacherCall, ...] = ()

    @property
    def is_usable(self) -> bool:
        """Whether it can be trained on."""
        return self.status != "set_aside"


@dataclass(frozen=True, slots=True)
class TeachingPlan:
    """How a question will be taught with `teacher.mode = "auto"`, decided before anything is paid for it.

    Attributes:
        question_id: The question.
        way: own: an explanation of the student's own reaches the pool's answer, and nothing is bought. answer: buy an
            answer, for a student that is probably right. check: buy an answer and a correction in one reply. correct:
            buy a correction that leads to the pool's answer. rationale: buy an explanation.
        max_depth: Maximum corrections before an explanation is bought.
        risk: Probability that the student's answer is wrong; 0 or 1 if the pool's answer tells.
        num_steps: Steps of the student's explanation; 0 without one.
        expected: Cost of each way that is possible, an explanation included if the way fails.
        unit: What the costs are in; prompt tokens if prices are unknown, and then a completion token counts as four.
        is_trial: Whether the way is not the cheapest by what is known, but may be, with more experience.
    """

    question_id: str
    way: TeachingWay
    max_depth: int
    risk: float
    num_steps: int
    expected: Mapping[str, float]
    unit: Literal["usd", "tokens"]
    is_trial: bool = False


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Accuracy on a labeled set, with its exact 95 % interval; strict counts only the stated answer format.

    `by_skill` maps a skill to (correct, total), lenient, for questions that carry one.
    """

    num_questions: int
    num_correct: int
    num_correct_strict: int
    num_unanswered: int
    low: float
    high: float
    by_skill: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def accuracy(self) -> float:
        """Share answered right (lenient); 0 for an empty set."""
        return self.num_correct / self.num_questions if self.num_questions else 0.0

    @property
    def accuracy_strict(self) -> float:
        """Share answered right in the stated format; 0 for an empty set."""
        return self.num_correct_strict / self.num_questions if self.num_questions else 0.0


@dataclass(frozen=True, slots=True)
class AuditCounts:
    """Audited questions, those that student and teacher answer differently, and those without a teacher answer.

    The last are among the disagreements.
    """

    num_audited: int
    num_disagreements: int
    num_unanswered: int = 0


@dataclass(frozen=True, slots=True)
class Certificate:
    """The outcome of one look at the audit sample (docs/METHOD.md §5).

    Attributes:
        look: t, counted from 1.
        num_audited: n, questions in the sample that the teacher was asked.
        num_disagreements: k, those that student and teacher answer differently, `num_unanswered` included.
        population: N, the pool's size; None for an unbounded stream (Clopper-Pearson).
        alpha: α_t, the share of the error budget spent on this look.
        epsilon: ε, the disagreement to be certified.
        upper: Exact one-sided upper bound on the disagreement at level α_t.
        lower: Exact one-sided lower bound on the disagreement at level α_t.
        confidence: 1 − α, of the whole sequence of looks.
        num_unanswered: Questions to which the teacher gave no usable answer; they count as disagreements.
    """

    look: int
    num_audited: int
    num_disagreements: int
    population: int | None
    alpha: float
    epsilon: float
    upper: float
    lower: float
    confidence: float
    num_unanswered: int = 0

    @property
    def is_certified(self) -> bool:
        """Whether disagreement ≤ ε is certified at this look."""
        return self.upper <= self.epsilon

    def to_json(self) -> dict[str, Any]:
        """The certificate for a program."""
        return {**asdict(self), "is_certified": self.is_certified}
