"""Fill a batch from a ranking, without near-duplicates and with a cap per cluster.

If too few questions remain, the cap and then the ban on near-duplicates is lifted: a batch is never short.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgeelad.config import SelectionConfig
from edgeelad.records import Selected
from edgeelad.selection.ranking import Indices
from edgeelad.selection.vectors import ROUNDING, TextVectors, cluster

# more than the four that fill a batch at the default cap, and few enough that a cluster is a kind of question
NUM_CLUSTERS = 10

_log = logging.getLogger(__name__)


class Batch:
    """A batch that is being filled: the questions taken, those banned, and the number taken per cluster.

    Nothing is compared if all questions fit into the batch.

    Args:
        vectors: The pool's texts.
        num: Size of the full batch; the cap is a share of it.
        config: `max_similarity` (1: no ban) and `cluster_cap` (1: no cap).
        rng: Randomness for the clusters.
        among: Indices of questions that stand for the pool, whose clusters are those of the cap; default: all do.
    """

    def __init__(
        self,
        vectors: TextVectors,
        num: int,
        config: SelectionConfig,
        rng: np.random.Generator,
        among: Indices | None = None,
    ) -> None:
        num_questions = vectors.num_questions
        self._vectors = vectors
        self._is_taken = np.zeros(num_questions, dtype=bool)
        self._is_banned = np.zeros(num_questions, dtype=bool)
        self._max_similarity = config.max_similarity + ROUNDING if num < num_questions else math.inf
        if config.max_similarity >= 1.0:
            self._max_similarity = math.inf
        self._labels: NDArray[np.int64] | None = None
        self._cap = math.ceil(config.cluster_cap * num)
        self._filled = np.zeros(NUM_CLUSTERS, dtype=np.int64)
        if config.cluster_cap < 1.0 and num < num_questions > NUM_CLUSTERS:
            self._labels = cluster(vectors.dense(rng)[:num_questions], NUM_CLUSTERS, rng, among)
        if vectors.num_already and self._max_similarity < math.inf:
            self._is_banned |= vectors.similarity_to_already() > self._max_similarity

    def fill(self, order: Indices, num: int, *, has_cap: bool = True) -> list[int]:
        """Take `num` questions in order of preference and return their indices in the order taken.

        Near-duplicates and full clusters are skipped; if too few remain, first the cap is lifted, then the ban.
        """
        chosen: list[int] = []
        for cap, ban in ((True, True), (False, True), (False, False)):
            if cap and not has_cap:
                continue
            taken = self._pass(order, num - len(chosen), cap, ban)
            if taken and not ban:
                _log.warning("%d near-duplicates were chosen: there are too few other questions", len(taken))
            elif taken and has_cap and not cap:
                _log.info("%d questions were chosen above the cluster cap: the other clusters are used up", len(taken))
            chosen += taken
        return chosen

    def _pass(self, order: Indices, num: int, has_cap: bool, has_ban: bool) -> list[int]:
        taken: list[int] = []
        for index in order.tolist():
            if len(taken) == num:
                break
            if self._allows(index, has_cap, has_ban):
                self._take(index)
                taken.append(index)
        return taken

    def _allows(self, index: int, has_cap: bool, has_ban: bool) -> bool:
        if self._is_taken[index] or (has_ban and self._is_banned[index]):
            return False
        return not (has_cap and self._labels is not None and self._filled[self._labels[index]] >= self._cap)

    def _take(self, index: int) -> None:
        self._is_taken[index] = True
        if self._labels is not None:
            self._filled[self._labels[index]] += 1
        if self._max_similarity < math.inf:
            self._is_banned |= self._vectors.similarities(index) > self._max_similarity


def interleave(ranked: Sequence[Selected], explored: Sequence[Selected]) -> list[Selected]:
    """Merge both, each in its order, evenly spread."""
    places = [((i + 0.5) / len(part), choice) for part in (ranked, explored) for i, choice in enumerate(part)]
    return [choice for _, choice in sorted(places, key=lambda place: place[0])]
