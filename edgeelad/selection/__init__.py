"""From scores to the batch that the teacher sees: by score, with a random slice, without near-duplicates.

Takes questions, scores and a Generator; gives the choices, each with its reason and the probability that it was to be
made. The result does not depend on the order of the questions: they are sorted by id first, so ties are broken by id.
Needs no student and no teacher; scikit-learn (extra `distill`) only where texts are compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgeelad.config import SelectionConfig
from edgeelad.records import Question, Score, Selected, SelectionReason
from edgeelad.selection.batch import Batch, interleave
from edgeelad.selection.diversity import k_center, typiclust
from edgeelad.selection.ranking import Indices, Ranking, rank_by_score, rank_uniformly
from edgeelad.selection.vectors import TextVectors
from edgeelad.uncertainty import find_strategy

__all__ = ["select"]


def select(
    questions: Sequence[Question],
    scores: Mapping[str, Score],
    config: SelectionConfig,
    *,
    num: int,
    first_round: bool,
    rng: np.random.Generator,
    already: Sequence[Question] = (),
) -> list[Selected]:
    """Choose a batch (docs/METHOD.md §3).

    An exploration share is drawn uniformly: only it finds what the student is confidently wrong about. The rest is
    drawn by Gumbel-top-k on log score (Kirsch et al. 2023), or is plainly the top. Near-duplicates of what is chosen,
    now or earlier, are passed over, and no cluster of questions fills more than its share. Where that would leave the
    batch short, first the cap and then the ban is lifted, which is logged. The choices come in an order in which every
    stretch holds its part of exploration, so that a budget that ends within the batch cuts both alike.

    Args:
        questions: What may be asked, in any order.
        scores: By question id; every question needs one where the strategy or the first batch goes by score.
        config: Strategy, shares and limits.
        num: Questions wanted; all of them are chosen where there are fewer.
        first_round: Whether `config.first_batch` decides.
        rng: Where all chance comes from.
        already: Questions chosen earlier.

    Raises:
        ConfigError: There is no such strategy.
        MissingExtraError: Texts must be compared and scikit-learn is not installed.
    """
    way = _way(config, first_round)
    pool = sorted(questions, key=lambda question: question.id)
    num = min(num, len(pool))
    if num == 0:
        return []
    is_seed = first_round and config.first_batch != "score"
    vectors = TextVectors(pool, already)
    batch = Batch(vectors, num, config, rng)

    num_explored = 0 if is_seed else round(config.exploration_share * num)
    chance = rank_uniformly(np.arange(len(pool)), num_explored, rng)
    explored = batch.fill(chance.order, num_explored, has_cap=False)
    rest = np.setdiff1d(np.arange(len(pool)), explored)
    ranking = _rank(way, pool, scores, vectors, rest, num - num_explored, rng)
    ranked = batch.fill(ranking.order, num - num_explored)
    return interleave(
        _choices(pool, ranked, "seed" if is_seed else "score", scores, ranking),
        _choices(pool, explored, "explore", scores, chance),
    )


def _way(config: SelectionConfig, first_round: bool) -> str:
    """How the ranked part of a batch is ranked: gumbel, top, random, k-center or typiclust."""
    strategy = find_strategy(config.strategy)
    if first_round and config.first_batch != "score":
        return {"representative": "typiclust", "random": "random"}[config.first_batch]
    if strategy.is_pool_only:
        return strategy.name
    if strategy.is_random:
        return "random"
    return "gumbel" if config.gumbel else "top"


def _rank(
    way: str,
    pool: Sequence[Question],
    scores: Mapping[str, Score],
    vectors: TextVectors,
    candidates: Indices,
    num: int,
    rng: np.random.Generator,
) -> Ranking:
    if way == "random":
        return rank_uniformly(candidates, num, rng)
    if way == "k-center":
        return k_center(vectors, candidates, num, rng)
    if way == "typiclust":
        return typiclust(vectors, candidates, num, rng)
    values = np.array([scores[pool[i].id].value for i in candidates], dtype=np.float64)
    return rank_by_score(candidates, values, num, rng if way == "gumbel" else None)


def _choices(
    pool: Sequence[Question],
    chosen: Sequence[int],
    reason: SelectionReason,
    scores: Mapping[str, Score],
    ranking: Ranking,
) -> list[Selected]:
    propensities = dict(zip(ranking.order.tolist(), ranking.propensities.tolist(), strict=True))
    student_scores = (scores.get(pool[i].id) for i in chosen)
    return [
        Selected(pool[i].id, reason, scored.value if scored is not None else 0.0, propensities[i])
        for i, scored in zip(chosen, student_scores, strict=True)
    ]
