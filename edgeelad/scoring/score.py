"""Score a pool, or evaluate a student on labeled questions, with an exported student: what `edgeelad score` and
`edgeelad eval` do on a CPU server. Streams the pool; needs no torch.

A pool is read twice: once to see that every row can be used and how many there are, then to score it. What is written
follows from the pool, the student and the settings alone: not from the number of workers, shards, or restarts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import edgeelad
from edgeelad.accuracy import evaluate
from edgeelad.config import ScoringConfig
from edgeelad.engine.codec import Codec
from edgeelad.engine.graph_files import Precision, find_graphs
from edgeelad.engine.memory import peak_memory_bytes
from edgeelad.engine.tree import greedy_params
from edgeelad.engine.workers import SetAside, generate_trees, num_cores, set_aside_lost, student_opener, tree_processes
from edgeelad.errors import ModelError, PoolError, UsageError
from edgeelad.files import read_jsonl
from edgeelad.pool import read_pool
from edgeelad.pool.check import Kind
from edgeelad.pool.fingerprint import pool_fingerprint
from edgeelad.progress import Progress, Rate, track
from edgeelad.records import Question, ReasoningTree, TokenCounts
from edgeelad.run.scores import score_line
from edgeelad.scoring.files import ScoreFiles, ScoreSettings, aside_path, open_score_files
from edgeelad.scoring.fingerprints import student_fingerprint
from edgeelad.scoring.shards import LARGEST_BLOCK, Shard, block_size
from edgeelad.selection import TEXT_STRATEGIES
from edgeelad.uncertainty import STRATEGIES, score, tree_params


@dataclass(frozen=True, slots=True)
class Workers:
    """How the work is spread, and what it may take.

    Attributes:
        num: Worker processes.
        threads: Threads of each.
        kv_bytes: Keys and values that each holds at most; None: what runs fastest.
    """

    num: int
    threads: int = 1
    kv_bytes: int | None = None

    @classmethod
    def choose(cls, num: int | None, threads: int = 1, kv_bytes: int | None = None) -> Workers:
        """By default a worker a core.

        Raises:
            UsageError: There are not so many cores.
        """
        cores = num_cores()
        if num is None:
            num = max(cores // threads, 1)
        if num * threads > cores:
            wanted = f"--workers {num}" + (f" with --threads {threads}" if threads > 1 else "")
            raise UsageError(
                f"{wanted}: this process may use {cores} {'core' if cores == 1 else 'cores'}, and more workers than "
                "cores only take memory; leave it out for one a core"
            )
        return cls(num, threads, kv_bytes)


@dataclass(frozen=True, slots=True)
class _Scored:
    """What leaves a worker for each question."""

    line: bytes
    tokens: TokenCounts


def score_pool(
    model: Path,
    pool: str,
    out: Path,
    progress: Progress,
    *,
    strategy: str,
    format_: str = "auto",
    kind: Kind = "auto",
    workers: Workers | None = None,
    branches: int = 3,
    explanations: int = 3,
    max_tokens: int = 256,
    precision: Precision | None = None,
    seed: int = 0,
    shard: Shard | None = None,
) -> dict[str, Any]:
    """Score every question of a pool into `out` (a row a question, in the pool's order) and give a summary.

    Goes on where an earlier run with the same settings ended. Questions that cannot be scored are listed, with the
    reason, in `out` + `.set_aside.jsonl`.

    Raises:
        UsageError: An unknown strategy, or `out` was begun with other settings.
        PoolError, ModelError: The pool or the model cannot be used, or no question can be scored.
        RunError: Another process writes `out`, or the workers die whatever they work on.
        StorageError: `out` cannot be written.
    """
    if strategy in TEXT_STRATEGIES:
        raise UsageError(
            f"--strategy {strategy}: selects questions by their texts and gives no scores; "
            f"use it in `edgeelad distill` with --set selection.strategy={strategy}"
        )
    if strategy not in STRATEGIES:
        raise UsageError(f"--strategy {strategy}: unknown; known: {', '.join(STRATEGIES)}")
    workers, shard = workers or Workers.choose(None), shard or Shard()
    Codec.load(model)
    graphs = find_graphs(model, precision)
    progress.start("Reading the pool")
    rows = read_pool(pool, format_, kind=kind)
    questions, count = pool_fingerprint(rows, answers=False, explanations=False)  # a score depends on neither
    progress.finish(f"{count:,} questions")
    settings = ScoreSettings(
        edgeelad=edgeelad.__version__,
        model=student_fingerprint(model, graphs),
        pool=questions,
        num_questions=count,
        strategy=strategy,
        branches=branches,
        explanations=explanations,
        max_tokens=max_tokens,
        precision=graphs.precision,
        seed=seed,
        shard=shard.number,
        num_shards=shard.total,
    )
    with open_score_files(out, settings) as files:
        places, size = shard.places(count), block_size(count)
        again = read_pool(pool, format_, kind=kind, is_known=True)
        source = islice(again, places.start, places.stop)
        blocks = iter(lambda: list(islice(source, size)), [])
        num_skipped, blocks = files.pass_over_done(blocks)
        num_done = files.num_scored + files.num_set_aside
        if num_done == len(places):
            progress.say(f"{out} is complete: {files.num_scored:,} scored, {files.num_set_aside:,} set aside")
        elif num_done:
            progress.say(f"{out} has {num_done:,} of {len(places):,} questions; going on")
        summary = _score_rest(model, settings, workers, files, blocks, num_skipped, len(places) - num_done, progress)
        if files.num_scored + files.num_set_aside != len(places):
            raise PoolError(f"{pool}: it became shorter while it was scored; restore it, then run the command again")
    if files.num_set_aside:
        progress.warn(f"{files.num_set_aside:,} questions were set aside: listed with the reasons in {aside_path(out)}")
        if not files.num_scored:
            raise ModelError(
                f"none of the {files.num_set_aside:,} questions can be scored: {_first_reason(out)}; "
                f"all are listed in {aside_path(out)}"
            )
    return summary


def _score_rest(
    model: Path,
    settings: ScoreSettings,
    workers: Workers,
    files: ScoreFiles,
    blocks: Iterator[list[Question]],
    num_skipped: int,
    num_left: int,
    progress: Progress,
) -> dict[str, Any]:
    """Score what is not scored yet; the first `num_skipped` questions of the first block are."""
    config = ScoringConfig(
        num_branches=settings.branches,
        num_explanations=settings.explanations,
        max_explanation_tokens=settings.max_tokens,
        max_branch_tokens=settings.max_tokens,
    )
    params = tree_params(settings.strategy, config, settings.seed)
    precision: Precision = "int8" if settings.precision == "int8" else "fp32"
    opener = student_opener(model, workers.num, workers.threads, LARGEST_BLOCK, precision, workers.kv_bytes)
    then = partial(_score_tree, strategy=settings.strategy, inter_weight=config.inter_weight, seed=settings.seed)
    before, rate = files.num_scored, Rate()
    if num_left:
        progress.start("Student explains and is scored", num_left)
    with tree_processes(opener, params, then, workers.num, progress.warn) as processes:
        results = set_aside_lost(processes.map(blocks))
        for done, result in enumerate(islice(results, num_skipped, None), start=1):
            if isinstance(result, SetAside):
                files.set_aside(result.question, result.reason)
            else:
                files.add(result.line)
                rate.add(result.tokens)
            progress.update(done, rate.note)
    if num_left:
        progress.finish(rate.note)
    return {
        "questions": files.num_scored,
        "set_aside": files.num_set_aside,
        "strategy": settings.strategy,
        **rate.figures(),
        "workers": workers.num,
        "replaced_workers": processes.num_replaced,
        "peak_memory_bytes": {"parent": peak_memory_bytes(), "largest_worker": processes.peak_bytes},
        "resumed_from": before,
    }


def _score_tree(tree: ReasoningTree, *, strategy: str, inter_weight: float, seed: int) -> _Scored:
    (value,) = score([tree], strategy, inter_weight=inter_weight, seed=seed)
    return _Scored(score_line(tree, value), tree.tokens)


def _first_reason(out: Path) -> str:
    return str(next(iter(read_jsonl(aside_path(out))))["reason"])


def evaluate_model(
    model: Path,
    data: str,
    progress: Progress,
    *,
    format_: str = "auto",
    kind: Kind = "auto",
    limit: int | None = None,
    workers: Workers | None = None,
    max_tokens: int = 256,
    precision: Precision | None = None,
) -> dict[str, Any]:
    """Evaluate a student on labeled questions: the figures of `records.Evaluation`, as a dictionary.

    Questions that do not fit the student's context, or that no worker survives, do not count; they are counted apart.

    Raises:
        UsageError: More workers than cores.
        PoolError: The data cannot be read, or holds no answers.
        ModelError: The model cannot be used, or none of the questions fits it.
    """
    workers = workers or Workers.choose(None)
    questions = [
        question for question in read_pool(data, format_, kind=kind, limit=limit) if question.answer is not None
    ]
    if not questions:
        raise PoolError(f"{data}: no row has an answer; evaluation needs labeled questions")
    progress.start("Evaluating", len(questions))
    aside: list[SetAside] = []
    trees = generate_trees(
        model,
        questions,
        greedy_params(max_tokens),
        num_workers=workers.num,
        num_threads=workers.threads,
        kv_bytes=workers.kv_bytes,
        precision=precision,
        on_set_aside=aside.append,
    )
    grown = list(track(trees, progress))
    if not grown:
        raise ModelError(f"{data}: none of its {len(questions):,} questions can be explained: {aside[0].reason}")
    result = evaluate(grown, [tree.question for tree in grown])
    progress.finish(f"accuracy {result.accuracy:.3f}")
    if aside:
        progress.warn(f"{len(aside):,} questions do not count: {aside[0].question.id}: {aside[0].reason}, …")
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
