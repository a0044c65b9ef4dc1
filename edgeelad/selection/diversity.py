"""Rank questions by their texts alone: typical questions of many clusters, or a cover of the pool.

Takes text vectors and returns rankings; needs no student. Only the clustering's seed is random, so propensities are 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeelad.selection.ranking import Indices, Ranking
from edgeelad.selection.vectors import TextVectors, cluster, single_threaded

MAX_CLUSTERS = 500  # as in Hacohen et al. 2022
NUM_NEIGHBORS = 20  # for the typicality, likewise


def typiclust(vectors: TextVectors, candidates: Indices, num: int, rng: np.random.Generator) -> Ranking:
    """Rank typical questions first, one per cluster (TypiClust, Hacohen et al. 2022).

    There are as many clusters as questions chosen earlier and now. Clusters without an earlier choice come first,
    larger before smaller; the most typical question of each, then the second of each, and so on. Typicality is the
    inverse mean distance to the nearest neighbors in the cluster. Deviation: the vectors are TF-IDF reduced to 64
    dimensions, not learned.
    """
    dense = vectors.dense(rng)
    labels = cluster(dense, max(1, min(vectors.num_already + num, MAX_CLUSTERS)), rng)
    covered = set(labels[vectors.num_questions :].tolist())
    members = [candidates[labels[candidates] == label] for label in range(int(labels.max()) + 1)]
    order = sorted(
        (label for label, group in enumerate(members) if len(group)),
        key=lambda label: (label in covered, -len(members[label]), members[label][0]),
    )
    ranked = [members[label][_by_typicality(dense[members[label]])] for label in order]
    depth = max((len(group) for group in ranked), default=0)
    flat = [int(group[rank]) for rank in range(depth) for group in ranked if rank < len(group)]
    return Ranking(np.array(flat, dtype=np.int64), np.ones(len(flat)))


def k_center(vectors: TextVectors, candidates: Indices, num: int, rng: np.random.Generator) -> Ranking:
    """Rank next the question farthest from all chosen before (greedy k-center, Sener & Savarese 2018).

    The very first is the most central one. Ranks `num` candidates by distance and the others by index. Deviation: the
    vectors are those of `typiclust`.
    """
    dense = vectors.dense(rng)
    points, earlier = dense[candidates], dense[vectors.num_questions :]
    similarity = np.full(len(points), -np.inf)
    for vector in earlier:
        np.maximum(similarity, points @ vector, out=similarity)
    chosen: list[int] = []
    is_left = np.ones(len(points), dtype=bool)
    for _ in range(min(num, len(points))):
        if not chosen and not len(earlier):
            farthest = int(np.argmax(points @ dense.mean(axis=0)))
        else:
            farthest = int(np.argmin(np.where(is_left, similarity, np.inf)))
        chosen.append(farthest)
        is_left[farthest] = False
        np.maximum(similarity, points @ points[farthest], out=similarity)
    order = np.concatenate([np.array(chosen, dtype=np.int64), np.flatnonzero(is_left)])
    return Ranking(candidates[order], np.ones(len(order)))


def _by_typicality(points: NDArray[np.float64]) -> Indices:
    """Indices of a cluster's points, most typical first; the smaller index wins a tie."""
    if len(points) < 3:  # both ends of a pair are equally typical
        return np.arange(len(points))
    with single_threaded():
        from sklearn.neighbors import NearestNeighbors

        neighbors = NearestNeighbors(n_neighbors=min(NUM_NEIGHBORS, len(points) - 1), algorithm="brute").fit(points)
        distances, _ = neighbors.kneighbors()
    # rounded, so that equal questions tie although their sums were computed in another order
    return np.argsort(np.round(distances.mean(axis=1), 9), kind="stable")
