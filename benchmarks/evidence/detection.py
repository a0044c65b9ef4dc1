"""How well each score tells which questions the student gets wrong, and which explanations have a flawed step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from candidates import CANDIDATES
from numpy.typing import NDArray
from scipy.stats import rankdata

from edgeelad.config import SelectionConfig
from edgeelad.records import Question, ReasoningTree, Score
from edgeelad.selection.odds import Neighborhood, pooled_log_odds
from edgeelad.text.answers import agree
from edgeelad.uncertainty import STRATEGIES, score
from edgeelad.uncertainty.risk import COLD_START, RiskModel, features, fit
from edgeelad.uncertainty.traces import step_traces

if TYPE_CHECKING:
    from study import Study

BATCH = 150  # of "precision in the batch": the highest scores
NUM_FEW = 3  # branches of the strategies at their defaults; the trees hold more
Floats = NDArray[np.float64]


def detection_rows(study: Study, number: int) -> Iterator[dict[str, Any]]:
    """A row per strategy and target ("answer": it is wrong; "step": one of the steps is flawed)."""
    trees = study.trees(number)
    # what is trained on is not asked again
    asked = {q.id for q in study.first_batch()} if number else set()
    checked = [tree for tree in study.trees(0) if tree.question.id in {q.id for q in study.first_batch()}]
    trees = [tree for tree in trees if tree.question.id not in asked]
    # as a run has it in round 2
    model = fitted(checked, study.pool) if number else COLD_START
    yield from rows_of(trees, study.pool, study.task.first_flaw, model, study.seed)


def rows_of(
    trees: Sequence[ReasoningTree],
    pool: Mapping[str, Question],
    first_flaw: Callable[[Question, Sequence[str]], int | None],
    model: RiskModel,
    seed: int,
) -> Iterator[dict[str, Any]]:
    """A row per strategy and target.

    Args:
        trees: Of the questions to score.
        pool: The same questions with their reference answers, by id.
        first_flaw: The 0-based index of the first wrong step; None if all are right.
        model: For `risk`.
        seed: For `random`.
    """
    targets = {
        "answer": np.array([not agree(tree.answer, pool[tree.question.id].answer) for tree in trees]),
        "step": np.array([first_flaw(tree.question, tree.steps) is not None for tree in trees]),
    }
    for name, scores in all_scores(trees, model, seed).items():
        values = np.array([scored.value for scored in scores])
        tokens = sum(scored.num_tokens for scored in scores) / len(scores)
        for target, is_positive in targets.items():
            yield {
                "strategy": name,
                "target": target,
                "num": len(trees),
                "positive": int(is_positive.sum()),
                "auroc": round(auroc(values, is_positive), 4),
                "average_precision": round(average_precision(values, is_positive), 4),
                "precision": round(precision(values, is_positive, BATCH), 4),
                "tokens": round(tokens, 1),
            }


def all_scores(trees: Sequence[ReasoningTree], model: RiskModel, seed: int) -> dict[str, list[Score]]:
    """The scores of every strategy whose branches the trees hold; `disagreement` also with all their explanations."""
    few = [_with_few(tree) for tree in trees]
    has_probes, has_removals = any(tree.probes for tree in trees), any(tree.removals for tree in trees)
    strategies = [
        strategy
        for strategy in (*STRATEGIES.values(), *CANDIDATES)
        if (has_probes or not strategy.needs_probe) and (has_removals or not strategy.needs_removals)
    ]
    found = {strategy.name: list(score(few, strategy, seed=seed, risk=model)) for strategy in strategies}
    found["disagreement, 12"] = list(score(trees, "disagreement"))
    around = Neighborhood.of([tree.question for tree in trees], SelectionConfig().neighbors)
    found["risk, alone"] = found["risk"]
    found["risk"] = _with_neighbors(found["risk"], around)
    found["risk, cold"] = _with_neighbors(list(score(few, "risk", risk=COLD_START)), around)
    return found


def _with_neighbors(scores: Sequence[Score], around: Neighborhood) -> list[Score]:
    """The risks as a batch is chosen by them: with those of the nearest questions."""
    risks = np.array([scored.value for scored in scores])
    values = pooled_log_odds(risks, around)
    return [replace(scored, value=value) for scored, value in zip(scores, values.tolist(), strict=True)]


def _with_few(tree: ReasoningTree) -> ReasoningTree:
    return replace(tree, branches=(tree.branches[0][:NUM_FEW], *tree.branches[1:]))


def fitted(checked: Sequence[ReasoningTree], pool: Mapping[str, Question]) -> RiskModel:
    """The risk model as a run fits it on the questions that the teacher checked."""
    rows = [features(step_traces(tree), tree.steps, tree.answer, tree.question.kind) for tree in checked]
    return fit(rows, [not agree(tree.answer, pool[tree.question.id].answer) for tree in checked])


def auroc(values: Floats, is_positive: NDArray[np.bool_]) -> float:
    """Probability that a positive has a higher score than a negative; ties count half. 0.5 if one side is empty.

    >>> auroc(np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, False, True, True]))
    0.875
    """
    num, num_positive = len(values), int(is_positive.sum())
    if num_positive in (0, num):
        return 0.5
    ranks = rankdata(values)
    above = ranks[is_positive].sum() - num_positive * (num_positive + 1) / 2
    return float(above / (num_positive * (num - num_positive)))


def average_precision(values: Floats, is_positive: NDArray[np.bool_]) -> float:
    """Mean precision at each positive, in order of score; tied questions share their mean precision.

    >>> average_precision(np.array([0.9, 0.8, 0.7]), np.array([True, False, True]))
    0.8333333333333333
    """
    if not is_positive.any():
        return 0.0
    total, seen, found = 0.0, 0, 0
    for value in np.unique(values)[::-1]:
        group = is_positive[values == value]
        seen, found = seen + len(group), found + int(group.sum())
        total += int(group.sum()) * found / seen
    return float(total / is_positive.sum())


def precision(values: Floats, is_positive: NDArray[np.bool_], num: int) -> float:
    """Share of positives among the `num` highest scores; those tied at the border count in proportion.

    >>> precision(np.array([0.9, 0.5, 0.5, 0.1]), np.array([True, True, False, True]), 2)
    0.75
    """
    num = min(num, len(values))
    border = np.sort(values)[::-1][num - 1]
    above, tied = values > border, values == border
    return float((is_positive[above].sum() + (num - above.sum()) * is_positive[tied].mean()) / num)
