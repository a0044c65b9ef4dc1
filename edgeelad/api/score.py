"""Score a pool or evaluate a student, with records instead of files."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeelad.api.events import EventProgress, OnEvent
from edgeelad.api.student import LoadedStudent, StudentInfo, describe
from edgeelad.config import ScoringConfig
from edgeelad.engine.graph_files import NO_LANES, find_graphs
from edgeelad.engine.options import EngineOptions
from edgeelad.engine.processes import check_main_guard
from edgeelad.engine.workers import SetAside, generate_trees
from edgeelad.errors import PoolError, UsageError
from edgeelad.package.open import is_package
from edgeelad.pool import read_pool
from edgeelad.pool.check import doubtful_kinds, other_kinds
from edgeelad.pool.items import read_items
from edgeelad.progress import Rate
from edgeelad.records import Evaluation, Question, ReasoningTree, Score
from edgeelad.run.scores import read_risk
from edgeelad.scoring.score import evaluate_questions
from edgeelad.selection import TEXT_STRATEGIES
from edgeelad.uncertainty import COLD_START, AnyStrategy, find_strategy, tree_params
from edgeelad.uncertainty import score as score_trees

Pool = str | Path | Iterable[Question | str | Mapping[str, Any]]
"""A pool's file (or Hugging Face dataset), or its items: question records, texts, or rows as dictionaries."""


@dataclass(frozen=True, slots=True)
class ScoredQuestion:
    """A question with the student's uncertainty about it.

    Attributes:
        question: The question.
        strategy: The strategy that scored it.
        score: The uncertainty, higher = more uncertain; None if it could not be scored.
        step_scores: One per step, if the strategy scores steps.
        steps: The steps of the student's greedy explanation.
        answer: The answer that it states; None if none.
        branch_answers: The answers of the sampled continuations of each step prefix 0..T; empty if none were needed.
        num_tokens: Student tokens that the score cost.
        reason: Why it could not be scored; "" if it was.
        risk: Estimated probability that the answer is wrong, whatever the strategy; None without an explanation.
    """

    question: Question
    strategy: str
    score: float | None
    step_scores: tuple[float, ...] = ()
    steps: tuple[str, ...] = ()
    answer: str | None = None
    branch_answers: tuple[tuple[str | None, ...], ...] = ()
    num_tokens: int = 0
    reason: str = ""
    risk: float | None = None


def score(
    student: LoadedStudent | str | Path,
    pool: Pool,
    strategy: AnyStrategy = "risk",
    *,
    branches: int = 3,
    explanations: int = 3,
    max_tokens: int | None = None,
    seed: int = 0,
    num_workers: int | None = None,
    num_threads: int = 1,
    risk_model: str | Path | None = None,
    on_event: OnEvent | None = None,
) -> Iterator[ScoredQuestion]:
    """Score every question of a pool by the student's uncertainty in its steps.

    The arguments are checked at once; questions are scored while the result is iterated over, so a pool of any size
    needs constant memory. The scores are those of `edgeelad score` with the same settings.

    >>> questions = ["What is 3 + 4?", "What is 9 + 9?"]
    >>> records = list(edgeelad.score(package, questions, branches=2, explanations=2, num_workers=1))
    >>> [record.question.text for record in records] == questions
    True
    >>> by_steps = edgeelad.score(package, questions, lambda tree: tree.num_steps, num_workers=1)
    >>> all(record.score == len(record.steps) for record in by_steps)
    True

    Args:
        student: A loaded student, or its folder.
        pool: A file of questions or a Hugging Face dataset; or question records, texts, or dictionaries with the fields
            of a pool file.
        strategy: A name (docs/METHOD.md §2, or an installed one), a `Strategy`, or a function from a `ReasoningTree` to
            a number, higher = more uncertain.
        branches: Sampled continuations per step prefix.
        explanations: Sampled explanations per question.
        max_tokens: Maximum tokens per explanation; default: as in the run that made the student.
        seed: Random seed.
        num_workers: Worker processes; default: one per core. Small pools are scored in this process.
        num_threads: Threads per worker.
        risk_model: A run's `rounds/NN/risk.json`, for `risk`; default: the model of a run's first round.
        on_event: Receives progress and warnings; default: warnings are logged.

    Returns:
        One record per question, in the pool's order.

    Raises:
        ConfigError: The strategy is unknown.
        UsageError: The strategy gives no scores, or there are fewer cores than workers.
        PoolError, PackageError, ModelError: The pool or the student cannot be used.
    """
    if isinstance(strategy, str) and strategy in TEXT_STRATEGIES:
        raise UsageError(f"strategy {strategy!r} selects questions by their texts and gives no scores")
    found, info = find_strategy(strategy), _info(student)
    model = COLD_START if risk_model is None else read_risk(Path(risk_model))
    options = EngineOptions.for_machine(num_workers, num_threads, precision=info.precision)
    limit = max_tokens or info.max_tokens
    config = ScoringConfig(
        num_branches=branches, num_explanations=explanations, max_explanation_tokens=limit, max_branch_tokens=limit
    )
    params = tree_params(found, config, seed)
    questions = questions_of(pool, info)
    if options.num_workers > 1:
        check_main_guard()

    def records() -> Iterator[ScoredQuestion]:
        progress, rate = EventProgress(on_event), Rate()
        aside: deque[SetAside] = deque()
        if find_graphs(info.path, info.precision).lacks_lanes:
            progress.warn(f"{info.path}: {NO_LANES}")
        progress.start("Scoring the pool")
        trees = generate_trees(info.path, questions, params, options, on_set_aside=aside.append)
        done = 0
        for tree in trees:
            (scored,) = score_trees([tree], found, seed=seed, risk=model)
            rate.add(tree.tokens)
            done += len(aside) + 1
            yield from _unscored(aside, found.name)
            yield _scored(tree, scored)
            progress.update(done, rate.note)
        yield from _unscored(aside, found.name)
        progress.finish(rate.note)

    return records()


def evaluate(
    student: LoadedStudent | str | Path,
    data: Pool,
    *,
    max_tokens: int | None = None,
    num_workers: int | None = None,
    num_threads: int = 1,
    on_event: OnEvent | None = None,
) -> Evaluation:
    """Measure how often a student answers labeled questions right, with the exact 95 % interval.

    Questions without an answer are ignored; those that do not fit the student's context are left out with a warning.

    >>> labeled = [edgeelad.Question("a", "What is 3 + 4?", answer="7")]
    >>> result = edgeelad.evaluate(package, labeled, num_workers=1)
    >>> result.num_questions, 0 <= result.low <= result.accuracy <= result.high <= 1
    (1, True)

    Args:
        student: A loaded student, or its folder.
        data: Questions with answers, as for `score`.
        max_tokens: Maximum tokens per explanation; default: as in the run that made the student.
        num_workers: Worker processes; default: one per core.
        num_threads: Threads per worker.
        on_event: Receives progress and warnings; default: warnings are logged.

    Raises:
        PoolError: The data cannot be read, has no answers, or its answers are of another type than the student's.
        PackageError, ModelError: The student cannot be used, or none of the questions fits it.
        UsageError: There are fewer cores than workers.
    """
    info, progress = _info(student), EventProgress(on_event)
    options = EngineOptions.for_machine(num_workers, num_threads, precision=info.precision)
    if options.num_workers > 1:
        check_main_guard()
    questions = [question for question in questions_of(data, info) if question.answer is not None]
    if not questions:
        raise PoolError("no question has an answer; evaluation needs labeled questions")
    kinds = Counter(question.kind for question in questions)
    if differences := other_kinds(kinds, info.answer_kind):
        raise PoolError(f"{differences}; evaluate it on questions like those that it was taught")
    if is_package(info.path) and (doubts := doubtful_kinds(kinds, info.answer_kind)):
        progress.warn(doubts)
    result, aside = evaluate_questions(info.path, questions, max_tokens or info.max_tokens, options, progress)
    if aside:
        left_out = f"{len(aside):,} of {len(questions):,} questions do not count"
        progress.warn(f"{left_out}: {aside[0].question.id}: {aside[0].reason}, …")
    return result


def questions_of(pool: Pool, info: StudentInfo) -> Iterator[Question]:
    """The questions of a pool; what does not tell its answer type has the student's.

    Raises:
        PoolError: The file or an item cannot be used.
    """
    kind = None if info.answer_kind == "text" else info.answer_kind
    return read_pool(pool, default_kind=kind) if isinstance(pool, str | Path) else read_items(pool, kind)


def _info(student: LoadedStudent | str | Path) -> StudentInfo:
    return student.info if isinstance(student, LoadedStudent) else describe(student)


def _scored(tree: ReasoningTree, scored: Score) -> ScoredQuestion:
    return ScoredQuestion(
        tree.question,
        scored.strategy,
        scored.value,
        scored.step_scores,
        tree.steps,
        tree.answer,
        tree.branch_answers,
        scored.num_tokens,
        risk=scored.risk,
    )


def _unscored(aside: deque[SetAside], strategy: str) -> Iterator[ScoredQuestion]:
    while aside:
        question = aside.popleft()
        yield ScoredQuestion(question.question, strategy, None, reason=question.reason)
