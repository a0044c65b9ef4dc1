"""Score a pool, or evaluate a student on labeled questions, with an exported student: what `edgeelad score` and
`edgeelad eval` do on a CPU server. Streams the pool; needs no torch.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgeelad.config import ScoringConfig
from edgeelad.engine.codec import Codec
from edgeelad.engine.student import Precision, fits
from edgeelad.engine.tree import greedy_params
from edgeelad.engine.workers import grow_trees, num_cores
from edgeelad.errors import PoolError, UsageError
from edgeelad.evaluate import evaluate
from edgeelad.files import write_jsonl
from edgeelad.pool import read_pool
from edgeelad.progress import Progress, track
from edgeelad.records import Question, ReasoningTree, TokenCounts
from edgeelad.uncertainty import STRATEGIES, score, tree_params
from edgeelad.uncertainty.scores_file import write_scores


class _Fitting:
    """Passes on the questions that fit the student's context, and keeps the others aside."""

    def __init__(self, codec: Codec, questions: Iterable[Question]) -> None:
        self.codec, self.questions = codec, questions
        self.too_long: list[str] = []

    def __iter__(self) -> Iterator[Question]:
        for question in self.questions:
            if not fits(self.codec, question):
                self.too_long.append(question.id)
            else:
                yield question


def score_pool(
    model: Path,
    pool: str,
    out: Path,
    progress: Progress,
    *,
    strategy: str,
    format_: str = "auto",
    workers: int | None = None,
    branches: int = 3,
    explanations: int = 3,
    max_tokens: int = 256,
    precision: Precision | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Score every question of a pool into `out` (a row a question, in the pool's order) and give a summary.

    Questions that do not fit the student's context are listed in `out` + `.set_aside.jsonl`.

    Raises:
        UsageError: An unknown strategy, or `out` exists.
        PoolError, ModelError: The pool or the model cannot be used.
    """
    if strategy not in STRATEGIES:
        raise UsageError(f"--strategy {strategy}: unknown; known: {', '.join(STRATEGIES)}")
    if out.exists():
        raise UsageError(f"{out} exists already; name another file with --out")
    config = ScoringConfig(
        num_branches=branches,
        num_explanations=explanations,
        max_explanation_tokens=max_tokens,
        max_branch_tokens=max_tokens,
    )
    fitting = _Fitting(Codec.load(model), read_pool(pool, format_))
    spent = TokenCounts()
    start = time.monotonic()
    progress.start("Student explains and is scored")

    def scored() -> Iterator[tuple[ReasoningTree, Any]]:
        nonlocal spent
        params = tree_params(strategy, config, seed)
        trees = grow_trees(model, fitting, params, num_workers=workers or num_cores(), precision=precision)
        for tree in track(trees, progress):
            spent = TokenCounts(*(a + b for a, b in zip(_counts(spent), _counts(tree.tokens), strict=True)))
            (value,) = score([tree], strategy, inter_weight=config.inter_weight, seed=seed)
            yield tree, value

    count = write_scores(out, scored())
    seconds = time.monotonic() - start
    if fitting.too_long:
        aside = out.with_name(out.name + ".set_aside.jsonl")
        reason = "prompt longer than the student's context"
        write_jsonl(aside, ({"id": id_, "reason": reason} for id_ in fitting.too_long))
        progress.warn(f"{len(fitting.too_long)} questions do not fit the student's context: listed in {aside}")
    progress.finish(f"{count / seconds * 60:,.0f} questions a minute" if seconds else "")
    return {
        "questions": count,
        "set_aside": len(fitting.too_long),
        "strategy": strategy,
        "tokens": asdict(spent),
        "seconds": round(seconds, 3),
        "questions_per_min": round(count / seconds * 60, 1),
    }


def evaluate_model(
    model: Path,
    data: str,
    progress: Progress,
    *,
    format_: str = "auto",
    limit: int | None = None,
    workers: int | None = None,
    max_tokens: int = 256,
    precision: Precision | None = None,
) -> dict[str, Any]:
    """Evaluate a student on labeled questions: the figures of `records.Evaluation`, as a dictionary.

    Raises:
        PoolError: The data cannot be read, or holds no answers.
    """
    fitting = _Fitting(Codec.load(model), read_pool(data, format_, limit=limit))
    questions = [question for question in fitting if question.answer is not None]
    if not questions:
        raise PoolError(f"{data}: no row has an answer; evaluation needs labeled questions")
    progress.start("Evaluating", len(questions))
    trees = grow_trees(
        model, questions, greedy_params(max_tokens), num_workers=workers or num_cores(), precision=precision
    )
    result = evaluate(list(track(trees, progress)), questions)
    progress.finish(f"accuracy {result.accuracy:.3f}")
    return {
        "accuracy": result.accuracy,
        "accuracy_strict": result.accuracy_strict,
        "low": result.low,
        "high": result.high,
        "num_questions": result.num_questions,
        "num_correct": result.num_correct,
        "num_unanswered": result.num_unanswered,
        "num_too_long": len(fitting.too_long),
        "by_skill": {skill: list(counts) for skill, counts in result.by_skill.items()},
    }


def _counts(counts: TokenCounts) -> tuple[int, int, int, int]:
    return counts.prompt, counts.explanation, counts.branch, counts.probe
