"""Compare questions by their texts: TF-IDF vectors, similarities, short dense vectors, clusters.

Takes questions and returns similarities and labels by index. Sparse throughout: nothing of size N x N is computed.
Needs scikit-learn (extra `distill`), on one thread, so that results are the same to the last bit on any machine.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeelad.errors import MissingExtraError
from edgeelad.records import Question
from edgeelad.text.prompts import question_text

NUM_DIMENSIONS = 64  # of the dense vectors: enough to separate kinds of questions, cheap for 20,000 of them
# every word, number and sign is a token: questions that differ in their numbers alone are different questions
TOKEN_PATTERN = r"\w+|[^\w\s]"
# and so are pairs of them: questions of few different words, such as assignments, differ in their order alone
NGRAMS = (1, 2)
ROUNDING = 1e-5  # error of a float32 cosine: that of two equal texts can be 1.0000001
BLOCK = 128  # columns of a dense block of similarities: 20,000 rows of them are 10 MB
BLOCK_VALUES = 2**22  # of as many questions as a dense block holds: 16 MB


class TextVectors:
    """TF-IDF vectors of a pool's questions and of questions chosen earlier, computed when first used.

    Args:
        pool: The questions that indices refer to.
        already: Questions chosen earlier.
    """

    def __init__(self, pool: Sequence[Question], already: Sequence[Question] = ()) -> None:
        self.num_questions = len(pool)
        self.num_already = len(already)
        self._texts = [question_text(question) for question in (*pool, *already)]
        self._dense: NDArray[np.float64] | None = None

    @cached_property
    def _rows(self) -> Any:
        """scipy CSR, float32, rows of norm 1: the pool's, then those of the questions chosen earlier."""
        with single_threaded():
            from sklearn.feature_extraction.text import TfidfVectorizer

            vectorizer = TfidfVectorizer(
                token_pattern=TOKEN_PATTERN, ngram_range=NGRAMS, sublinear_tf=True, dtype=np.float32
            )
            return vectorizer.fit_transform(self._texts).tocsr()

    @cached_property
    def _pool_rows(self) -> Any:
        return self._rows[: self.num_questions]

    @property
    def _block(self) -> int:
        """Questions that are made dense at a time."""
        return max(1, min(BLOCK, BLOCK_VALUES // int(self._rows.shape[1])))

    def similarities(self, index: int) -> NDArray[np.float32]:
        """Cosine of one question with every question of the pool."""
        column = self._pool_rows[[index]].toarray()[0]
        return np.asarray(self._pool_rows @ column, dtype=np.float32)

    def similarity_to_already(self) -> NDArray[np.float32]:
        """The largest cosine of every question of the pool with one chosen earlier; 0 if there are none."""
        largest = np.zeros(self.num_questions, dtype=np.float32)
        for start in range(self.num_questions, len(self._texts), self._block):
            block = self._rows[start : start + self._block].toarray()
            np.maximum(largest, (self._pool_rows @ block.T).max(axis=1), out=largest)
        return largest

    def neighbor_means(self, values: NDArray[np.float64], num: int, among: NDArray[np.int64]) -> NDArray[np.float64]:
        """Mean value of the nearest others of every question of the pool; those as near as the last of them count too.

        Args:
            values: [N], one per question of the pool.
            num: How many neighbors, at least 1; all there are if there are fewer.
            among: The indices of the questions that can be neighbors, in ascending order; at least two.
        """
        num = min(num, len(among) - 1)
        candidates, theirs = self._pool_rows[among], values[among]
        means = np.empty(self.num_questions)
        for start in range(0, self.num_questions, self._block):
            block = self._pool_rows[start : start + self._block].toarray()
            similarity = np.asarray(candidates @ block.T)
            own = np.arange(start, start + len(block))
            similarity[among[:, None] == own] = -1.0
            is_near = similarity >= np.partition(similarity, -num, axis=0)[-num] - ROUNDING
            means[own] = (theirs[:, None] * is_near).sum(axis=0) / is_near.sum(axis=0)
        return means

    def dense(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Short unit vectors of all rows, the pool's first (latent semantic analysis); computed once."""
        if self._dense is None:
            short = self._reduced(rng)
            lengths = np.linalg.norm(short, axis=1, keepdims=True)
            self._dense = np.asarray(short / np.where(lengths > 0, lengths, 1.0), dtype=np.float64)
        return self._dense

    def _reduced(self, rng: np.random.Generator) -> NDArray[np.float64]:
        num = min(NUM_DIMENSIONS, self._rows.shape[0] - 1, self._rows.shape[1] - 1)
        if num < 2:
            return np.asarray(self._rows.toarray(), dtype=np.float64)
        with single_threaded():
            from sklearn.decomposition import TruncatedSVD

            model = TruncatedSVD(num, random_state=_seed(rng))
            with np.errstate(divide="ignore", invalid="ignore"):  # equal questions have no variance to explain
                return np.asarray(model.fit_transform(self._rows.astype(np.float64)), dtype=np.float64)


def cluster(
    vectors: NDArray[np.float64],
    num_clusters: int,
    rng: np.random.Generator,
    among: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """K-means labels from 0 to `num_clusters` − 1; fewer clusters if there are fewer distinct vectors.

    Args:
        vectors: [N, D].
        num_clusters: How many.
        rng: Where the clusters begin.
        among: The indices of the vectors that decide what the clusters are; default: all do.
    """
    if num_clusters >= len(vectors):
        return np.arange(len(vectors), dtype=np.int64)
    with single_threaded(), warnings.catch_warnings():
        from sklearn.cluster import MiniBatchKMeans
        from sklearn.exceptions import ConvergenceWarning

        warnings.simplefilter("ignore", ConvergenceWarning)  # equal questions are expected, and harmless here
        model = MiniBatchKMeans(num_clusters, random_state=_seed(rng), n_init=1, batch_size=2048)
        return np.asarray(model.fit(vectors if among is None else vectors[among]).predict(vectors), dtype=np.int64)


@contextmanager
def single_threaded() -> Iterator[None]:
    """Run scikit-learn on one thread, so that sums are computed in the same order on every machine.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        # imported first: the limit applies to libraries that are loaded when it is set
        import sklearn.cluster
        import sklearn.decomposition
        import sklearn.neighbors  # noqa: F401
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # ships no types
    except ImportError:
        raise MissingExtraError("scikit-learn", "distill", "choosing a batch by the questions' texts") from None
    with threadpool_limits(limits=1):
        yield


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))
