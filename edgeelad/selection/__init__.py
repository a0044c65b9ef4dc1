"""Select the batch that the teacher sees: by score or by text, with a random share, without near-duplicates.

Takes questions in the order of their ids, scores and a Generator; returns the choices, each with its reason and
propensity. Ties are broken by id. Only the texts of the best candidates are read and compared, so beyond some numbers
per question memory does not grow with the pool. Needs no student and no teacher, and scikit-learn (extra `distill`)
only if texts are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from edgeelad.config import SelectionConfig
from edgeelad.records import Question, Selected, SelectionReason
from edgeelad.selection.batch import Batch, interleave
from edgeelad.selection.diversity import k_center, typiclust
from edgeelad.selection.odds import LARGEST_TOLD_ODDS, Neighborhood, corrected, log_odds, pooled_log_odds, weights
from edgeelad.selection.ranking import Floats, Indices, Ranking, rank_by_score, rank_uniformly
from edgeelad.selection.vectors import TextVectors
from edgeelad.uncertainty import Strategy, find_strategy

__all__ = ["TEXT_STRATEGIES", "select", "selection_strategy"]

TEXT_STRATEGIES: dict[str, Callable[[TextVectors, Indices, int, np.random.Generator], Ranking]] = {
    "k-center": k_center,
    "typiclust": typiclust,
}
"""Strategies that choose questions by their texts. They need no scores and give none."""
MAX_COMPARED = 20_000
"""Questions whose texts are compared with each other; of a larger pool the best by rank, and as many at random."""
COMPARED_PER_CHOICE = 20  # of a batch so large that these are more


def select(
    pool: Sequence[Question],
    scores: Floats,
    config: SelectionConfig,
    *,
    num: int,
    first_round: bool,
    rng: np.random.Generator,
    already: Sequence[Question] = (),
    strategy: Strategy | None = None,
    outcomes: Callable[[Sequence[Question]], Floats] | None = None,
) -> list[Selected]:
    """Select a batch (docs/METHOD.md §3).

    An exploration share is drawn uniformly: it finds what the student gets wrong with confidence, of any kind.
    The rest is drawn by Gumbel-top-k on the log score (Kirsch et al. 2023), is the plain top, or is ranked by a
    text strategy. A score that is a probability counts by its odds, times the geometric mean of the odds of the
    questions nearest by text; where most of the pool has answers, by its own, corrected by what is wrong around it.
    Near-duplicates of questions chosen now or earlier are skipped, and no cluster of
    questions exceeds its share. If too few questions remain, first the cap and then the ban is lifted, which is
    logged. Exploration is spread evenly over the batch, so that a budget that ends within the batch cuts both parts
    alike.

    The texts of `MAX_COMPARED` questions are compared, and the batch is chosen among them. In a larger pool, half of
    them are the first by rank (a text strategy ranks a random half), and half are drawn at random. Neighbors are found
    among that many random ones.

    Args:
        pool: The candidates, in the order of their ids; those whose texts are needed are read from it.
        scores: The score of each candidate; NaN if it has none, and neither strategy nor first batch may use it then.
        config: Strategy, shares and limits.
        num: Number of questions to select; all of them if there are fewer.
        first_round: Whether `config.first_batch` applies.
        rng: The source of all randomness.
        already: Questions chosen earlier.
        strategy: The strategy that gave the scores; default: the one that `config` names.
        outcomes: Gives for candidates 1 where the student is wrong, 0 where it is right, and NaN where the pool
            does not tell.

    Raises:
        ConfigError: The strategy is unknown.
        MissingExtraError: Texts must be compared and scikit-learn is not installed.
    """
    strategy = strategy or selection_strategy(config.strategy)
    way = _way(config, strategy, first_round)
    num = min(num, len(pool))
    if num == 0:
        return []
    is_seed = first_round and config.first_batch != "score"
    num_explored = 0 if is_seed else round(config.exploration_share * num)
    num_ranked = num - num_explored
    is_risk = way in ("gumbel", "top") and strategy is not None and strategy.is_probability
    has_neighbors = is_risk and config.neighbors > 0 and num < len(pool)
    values = _odds(way, log_odds(scores)) if is_risk else scores
    chance = first = None
    share = 1.0
    if len(pool) > (limit := max(MAX_COMPARED, COMPARED_PER_CHOICE * num)):
        kept, chance, first = _shortlist(
            way, values, limit // 2 if has_neighbors else num_ranked, num_explored, limit // 2, rng
        )
        share = limit // 2 / len(pool)
        pool, scores, values = [pool[i] for i in kept.tolist()], scores[kept], values[kept]
    vectors = TextVectors(pool, already)
    fair = None if chance is None else np.sort(chance.order)  # stand for the pool, which the best do not
    batch = Batch(vectors, num, config, rng, fair)
    chance = chance or rank_uniformly(np.arange(len(pool)), num_explored, rng)
    explored = batch.fill(chance.order, num_explored, has_cap=False)
    if has_neighbors:
        around = Neighborhood(vectors, config.neighbors, np.sort(chance.order[: MAX_COMPARED // 2]))
        values = _told_by_neighbors(way, pool, scores, around, outcomes)
    if first is not None and not has_neighbors:
        ranking = first
    else:
        ranking = _rank(way, values, vectors, np.setdiff1d(np.arange(len(pool)), explored), num_ranked, rng)
        if first is not None:
            ranking = ranking.given(first, share)
    ranked = batch.fill(ranking.order, num_ranked)
    return interleave(
        _choices(pool, ranked, "seed" if is_seed else "score", scores, ranking),
        _choices(pool, explored, "explore", scores, chance),
    )


def selection_strategy(name: str) -> Strategy | None:
    """The scoring strategy that a value of `selection.strategy` names; None for a text strategy.

    Raises:
        ConfigError: The strategy is unknown; the message suggests the nearest.
    """
    return None if name in TEXT_STRATEGIES else find_strategy(name, "selection.strategy", tuple(TEXT_STRATEGIES))


def _way(config: SelectionConfig, strategy: Strategy | None, first_round: bool) -> str:
    """How the ranked part of a batch is ranked: gumbel, top, random, or by a text strategy."""
    if first_round and config.first_batch != "score":
        return {"representative": "typiclust", "random": "random"}[config.first_batch]
    if strategy is None:
        return config.strategy
    if strategy.is_random:
        return "random"
    return "gumbel" if config.gumbel else "top"


def _odds(way: str, log_odds: Floats) -> Floats:
    """What questions are ranked by if their scores are probabilities; only a draw needs the odds themselves."""
    return weights(log_odds) if way == "gumbel" else log_odds


def _told_by_neighbors(
    way: str,
    pool: Sequence[Question],
    probabilities: Floats,
    around: Neighborhood,
    outcomes: Callable[[Sequence[Question]], Floats] | None,
) -> Floats:
    """What questions are ranked by, with what is known around each: outcomes if most are known, else probabilities."""
    if outcomes is not None:
        is_wrong = outcomes(pool)
        known = around.among[~np.isnan(is_wrong[around.among])]
        if 2 * len(known) > len(around.among) >= 2:
            told = log_odds(corrected(probabilities, is_wrong, replace(around, among=known)))
            return weights(told, LARGEST_TOLD_ODDS) if way == "gumbel" else told
    return _odds(way, pooled_log_odds(probabilities, around))


def _shortlist(
    way: str, scores: Floats, num_ranked: int, num_explored: int, limit: int, rng: np.random.Generator
) -> tuple[Indices, Ranking, Ranking | None]:
    """The questions of a large pool whose texts are compared, and their places in both rankings of the whole pool.

    There is no second ranking if texts decide it: then a random half of the shortlist stands for the pool.
    """
    everything = np.arange(len(scores))
    chance = rank_uniformly(everything, num_explored, rng).first(limit)
    if way in TEXT_STRATEGIES:
        kept = np.union1d(chance.order, rng.choice(len(scores), limit, replace=False))
        return kept, chance.among(kept), None
    ranking = _rank_by_value(way, scores, everything, num_ranked, rng)
    kept = np.union1d(chance.order, ranking.order[:limit])
    return kept, chance.among(kept), ranking.among(kept)


def _rank(
    way: str, scores: Floats, vectors: TextVectors, candidates: Indices, num: int, rng: np.random.Generator
) -> Ranking:
    if way in TEXT_STRATEGIES:
        return TEXT_STRATEGIES[way](vectors, candidates, num, rng)
    return _rank_by_value(way, scores, candidates, num, rng)


def _rank_by_value(way: str, scores: Floats, candidates: Indices, num: int, rng: np.random.Generator) -> Ranking:
    if way == "random":
        return rank_uniformly(candidates, num, rng)
    values = scores[candidates]
    assert not np.isnan(values).any(), "every candidate has a score"
    return rank_by_score(candidates, values, num, rng if way == "gumbel" else None)


def _choices(
    pool: Sequence[Question],
    chosen: Sequence[int],
    reason: SelectionReason,
    scores: Floats,
    ranking: Ranking,
) -> list[Selected]:
    propensities = dict(zip(ranking.order.tolist(), ranking.propensities.tolist(), strict=True))
    values = [None if np.isnan(score) else score for score in scores[chosen].tolist()]
    return [Selected(pool[i].id, reason, value, propensities[i]) for i, value in zip(chosen, values, strict=True)]
