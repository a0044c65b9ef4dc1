"""Score a pool (`edgeelad score`) or evaluate a student on labeled questions (`edgeelad eval`) on a CPU server.

Needs no torch, and streams the pool: it is read once to check and count its rows, then again to score them; a question
that has changed meanwhile is an error. The output follows from the pool, the student and the settings alone, not from
the number of workers, shards or restarts.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import edgeelad
from edgeelad.accuracy import evaluate
from edgeelad.config import PoolConfig, ScoringConfig
from edgeelad.engine.codec import Codec
from edgeelad.engine.graph_files import NO_LANES, find_graphs
from edgeelad.engine.memory import peak_memory_bytes
from edgeelad.engine.options import EngineOptions
from edgeelad.engine.processes import check_main_guard
from edgeelad.engine.tree import greedy_params
from edgeelad.engine.workers import SetAside, generate_trees, set_aside_lost, tree_workers
from edgeelad.errors import ModelError, PoolError, UsageError
from edgeelad.files import read_jsonl
from edgeelad.package.open import is_package, open_package
from edgeelad.pool import open_pool
from edgeelad.pool.check import doubtful_kinds, other_kinds
from edgeelad.pool.fingerprint import QuestionDigests, pool_fingerprint
from edgeelad.progress import Progress, Rate, track
from edgeelad.records import AnswerKind, Evaluation, Question, ReasoningTree
from edgeelad.run.scores import read_risk, score_line
from edgeelad.scoring.ahead import Scored
from edgeelad.scoring.files import ScoreFiles, ScoreSettings, aside_path, count_finished, open_score_files
from edgeelad.scoring.fingerprints import student_fingerprint
from edgeelad.scoring.shards import LARGEST_BLOCK, Shard, block_size
from edgeelad.selection import TEXT_STRATEGIES
from edgeelad.uncertainty import COLD_START, RiskModel, find_strategy, score, tree_params

MAX_TOKENS = 256  # per explanation, for a student without a package


@dataclass(frozen=True, slots=True)
class _Learned:
    """What a package says that its student learned; None for an exported folder, which does not say.

    Attributes:
        kind: Type of the answers; "text" also for a pool of several types.
        max_tokens: Maximum tokens per explanation.
    """

    kind: AnswerKind | None = None
    max_tokens: int | None = None

    @classmethod
    def of(cls, model: Path) -> _Learned:
        """What a folder's manifest says, with its files checked.

        Raises:
            PackageError: The package is incomplete or damaged.
        """
        if not is_package(model):
            return cls()
        manifest = open_package(model).manifest
        return cls(manifest.answer_kind, manifest.max_explanation_tokens)


def score_pool(
    model: Path,
    pool: PoolConfig,
    out: Path,
    progress: Progress,
    *,
    strategy: str,
    options: EngineOptions | None = None,
    branches: int = 3,
    explanations: int = 3,
    max_tokens: int | None = None,
    seed: int = 0,
    shard: Shard | None = None,
    risk_model: Path | None = None,
) -> dict[str, Any]:
    """Score every question of a pool into `out` (one row per question, in the pool's order) and return a summary.

    Resumes an earlier run with the same settings. Questions that cannot be scored are listed, with the reason, in
    `out` + `.set_aside.jsonl`. How the student is run changes no score but for its precision; the batch size follows
    from the pool.

    Args:
        model: A package, or an exported folder.
        pool: Where the questions are. Questions of unknown answer type are of the package's type.
        out: The file of scores: JSON lines, or parquet if its name ends in .parquet.
        progress: Receives progress and warnings.
        strategy: A name in `uncertainty.STRATEGIES`.
        options: How the student is run.
        branches: Branches per step prefix.
        explanations: Explanations sampled from the bare question.
        max_tokens: Maximum tokens per explanation and branch; default: the package's, else 256.
        seed: Random seed.
        shard: Part of the pool to score.
        risk_model: A run's `rounds/NN/risk.json`; default: the model of a run's first round.

    Raises:
        ConfigError: An unknown strategy.
        UsageError: `out` was started with other settings.
        PoolError, ModelError, PackageError: The pool or the model cannot be used, no question can be scored, or the
            pool changed during scoring.
        RunError: Another process writes `out`, or the workers die on every question.
        StorageError: `out` cannot be written.
    """
    if strategy in TEXT_STRATEGIES:
        raise UsageError(
            f"--strategy {strategy}: selects questions by their texts and gives no scores; "
            f"use it in `edgeelad distill` with --set selection.strategy={strategy}"
        )
    find_strategy(strategy, "--strategy")
    check_main_guard()
    options, shard = options or EngineOptions.for_machine(), shard or Shard()
    risk = COLD_START if risk_model is None else read_risk(risk_model)
    learned = _Learned.of(model)
    Codec.load(model)
    graphs = find_graphs(model, options.precision)
    if graphs.lacks_lanes:
        progress.warn(f"{model}: {NO_LANES}")
    progress.start("Reading the pool")
    kinds: Counter[AnswerKind] = Counter()
    digests = QuestionDigests()
    rows = digests.keep(_counted(open_pool(pool, default_kind=learned.kind), kinds))
    questions, count = pool_fingerprint(rows, answers=False, explanations=False)  # a score depends on neither
    progress.finish(f"{count:,} questions")
    if pool.kind == "auto" and (differences := other_kinds(kinds, learned.kind)):
        progress.warn(f"{pool.path}: {differences}; set the answer type with --kind if it is another")
    settings = ScoreSettings(
        edgeelad=edgeelad.__version__,
        model=student_fingerprint(model, graphs),
        pool=questions,
        num_questions=count,
        strategy=strategy,
        branches=branches,
        explanations=explanations,
        max_tokens=max_tokens or learned.max_tokens or MAX_TOKENS,
        precision=graphs.precision,
        seed=seed,
        shard=shard.number,
        num_shards=shard.total,
        risk="" if risk == COLD_START else hashlib.sha256(repr(risk).encode()).hexdigest(),
    )
    if (finished := count_finished(out, settings)) is not None:
        num_scored, num_set_aside = finished
        progress.say(_complete(out, num_scored, num_set_aside))
        summary = _summary(settings, num_scored, num_set_aside, num_scored, Rate(), options.num_workers)
    else:
        with open_score_files(out, settings) as files:
            summary = _score_into(files, model, pool, learned, digests, settings, risk, options, progress)
            files.finish()
    if summary["set_aside"]:
        progress.warn(f"{summary['set_aside']:,} questions were set aside; {aside_path(out)} lists the reasons")
        if not summary["questions"]:
            raise ModelError(
                f"none of the {summary['set_aside']:,} questions can be scored: {_first_reason(out)}; "
                f"{aside_path(out)} lists all of them"
            )
    return summary


def _score_into(
    files: ScoreFiles,
    model: Path,
    pool: PoolConfig,
    learned: _Learned,
    digests: QuestionDigests,
    settings: ScoreSettings,
    risk: RiskModel,
    options: EngineOptions,
    progress: Progress,
) -> dict[str, Any]:
    """Score the questions of a pool or shard that have no rows yet."""
    count = settings.num_questions
    places, size = Shard(settings.shard, settings.num_shards).places(count), block_size(count)
    again = open_pool(pool, default_kind=learned.kind, is_known=True)
    source = digests.check(islice(again, places.start, places.stop), places.start, str(pool.path))
    blocks = iter(lambda: list(islice(source, size)), [])
    num_skipped, blocks = files.skip_done(blocks)
    num_done = files.num_scored + files.num_set_aside
    if num_done == len(places):
        progress.say(_complete(files.out, files.num_scored, files.num_set_aside))
    elif num_done:
        progress.say(f"{files.out} has {num_done:,} of {len(places):,} questions; resuming")
    num_left = len(places) - num_done
    summary = _score_rest(model, settings, risk, options, files, blocks, num_skipped, num_left, progress)
    if files.num_scored + files.num_set_aside != len(places):
        raise PoolError(f"{pool.path}: it became shorter during scoring; restore it, then run the command again")
    return summary


def _score_rest(
    model: Path,
    settings: ScoreSettings,
    risk: RiskModel,
    options: EngineOptions,
    files: ScoreFiles,
    blocks: Iterator[list[Question]],
    num_skipped: int,
    num_left: int,
    progress: Progress,
) -> dict[str, Any]:
    """Score the remaining questions; the first `num_skipped` of the first block already are."""
    config = ScoringConfig(
        num_branches=settings.branches,
        num_explanations=settings.explanations,
        max_explanation_tokens=settings.max_tokens,
        max_branch_tokens=settings.max_tokens,
    )
    params = tree_params(settings.strategy, config, settings.seed)
    options = replace(options, batch_size=LARGEST_BLOCK, precision=settings.precision)
    then = partial(
        _score_tree, strategy=settings.strategy, inter_weight=config.inter_weight, seed=settings.seed, risk=risk
    )
    num_before, rate = files.num_scored, Rate()
    if num_left:
        progress.start("Student explains and is scored", num_left)
    with tree_workers(model, options, params, then, progress.warn) as workers:
        results = set_aside_lost(workers.map(blocks, files.ahead))
        for done, result in enumerate(islice(results, num_skipped, None), start=1):
            if isinstance(result, SetAside):
                files.set_aside(result)
            else:
                files.add(result.line)
                if result.tokens is not None:
                    rate.add(result.tokens)
                else:
                    num_before += 1
            progress.update(done, rate.note)
    if num_left:
        progress.finish(rate.note)
    return _summary(
        settings, files.num_scored, files.num_set_aside, num_before, rate, options.num_workers,
        workers.num_replaced, workers.peak_bytes,
    )  # fmt: skip


def _summary(
    settings: ScoreSettings,
    num_scored: int,
    num_set_aside: int,
    num_before: int,
    rate: Rate,
    num_workers: int,
    num_replaced: int = 0,
    peak_bytes: int | None = None,
) -> dict[str, Any]:
    return {
        "questions": num_scored,
        "set_aside": num_set_aside,
        "strategy": settings.strategy,
        **rate.figures(),
        "workers": num_workers,
        "replaced_workers": num_replaced,
        "peak_memory_bytes": {"parent": peak_memory_bytes(), "largest_worker": peak_bytes},
        "resumed_from": num_before,
    }


def _complete(out: Path, num_scored: int, num_set_aside: int) -> str:
    return f"{out} is complete: {num_scored:,} scored, {num_set_aside:,} set aside"


def _score_tree(tree: ReasoningTree, *, strategy: str, inter_weight: float, seed: int, risk: RiskModel) -> Scored:
    (value,) = score([tree], strategy, inter_weight=inter_weight, seed=seed, risk=risk)
    return Scored(score_line(tree, value), tree.tokens)


def _counted(questions: Iterator[Question], kinds: Counter[AnswerKind]) -> Iterator[Question]:
    """Pass questions on and count the answers by kind."""
    for question in questions:
        if question.answer is not None:
            kinds[question.kind] += 1
        yield question


def _first_reason(out: Path) -> str:
    return str(next(iter(read_jsonl(aside_path(out))))["reason"])


def evaluate_model(
    model: Path,
    data: PoolConfig,
    progress: Progress,
    *,
    options: EngineOptions | None = None,
    max_tokens: int | None = None,
) -> dict[str, Any]:
    """Evaluate a student on labeled questions; returns the figures of `records.Evaluation` as a dictionary.

    Questions that do not fit the student's context, or that kill their workers, are left out and counted separately.

    Raises:
        UsageError: More workers than cores.
        PoolError: The data cannot be read, has no answers, or its answers are of another type than the package's.
        ModelError, PackageError: The model cannot be used, or none of the questions fits it.
    """
    check_main_guard()
    options, learned = options or EngineOptions.for_machine(), _Learned.of(model)
    pool = list(open_pool(data, default_kind=learned.kind))
    questions = [question for question in pool if question.answer is not None]
    if not questions:
        raise PoolError(f"{data.path}: no row has an answer; evaluation needs labeled questions")
    kinds = Counter(question.kind for question in questions)
    if data.kind == "auto" and (differences := other_kinds(kinds, learned.kind)):
        raise PoolError(
            f"{data.path}: {differences}; evaluate it on questions like those that it was taught, "
            "or set the answer type with --kind"
        )
    if doubts := doubtful_kinds(kinds, learned.kind):
        progress.warn(f"{data.path}: {doubts}")
    if len(questions) < len(pool):
        progress.warn(f"{len(pool) - len(questions):,} of {len(pool):,} questions have no answer and do not count")
    limit = max_tokens or learned.max_tokens or MAX_TOKENS
    result, aside = evaluate_questions(model, questions, limit, options, progress, source=f"{data.path}: ")
    if aside:
        progress.warn(f"{len(aside):,} questions are left out: {aside[0].question.id}: {aside[0].reason}, …")
    return {
        "accuracy": result.accuracy,
        "accuracy_strict": result.accuracy_strict,
        "low": result.low,
        "high": result.high,
        "num_questions": result.num_questions,
        "num_correct": result.num_correct,
        "num_unanswered": result.num_unanswered,
        "num_too_long": sum(question.is_too_long for question in aside),
        "num_lost": sum(not question.is_too_long for question in aside),
        "by_skill": {skill: list(counts) for skill, counts in result.by_skill.items()},
    }


def evaluate_questions(
    model: Path,
    questions: list[Question],
    max_tokens: int,
    options: EngineOptions,
    progress: Progress,
    source: str = "",
) -> tuple[Evaluation, list[SetAside]]:
    """Evaluate a student's greedy explanations of labeled questions; also returns those that have no explanation.

    Args:
        model: A package, or an exported folder.
        questions: Questions with answers.
        max_tokens: Maximum tokens per explanation.
        options: How the student is run.
        progress: Receives progress.
        source: What the error begins with.

    Raises:
        ModelError, PackageError: The model cannot be used, or none of the questions fits it.
    """
    aside: list[SetAside] = []
    progress.start("Evaluating", len(questions))
    trees = generate_trees(model, questions, greedy_params(max_tokens), options, on_set_aside=aside.append)
    explained = list(track(trees, progress))
    if not explained:
        raise ModelError(f"{source}none of the {len(questions):,} questions can be explained: {aside[0].reason}")
    result = evaluate(explained, [tree.question for tree in explained])
    progress.finish(f"accuracy {result.accuracy:.3f}")
    return result, aside
