"""The decode loop: the rows of a batch advance together, one token per step, until each has ended.

Vectorized over rows, except for stop conditions.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeelad.engine.generate import GeneratedTokens, Limits
from edgeelad.engine.plain.cache import Cache, IntArray
from edgeelad.engine.plain.graph import Graph
from edgeelad.engine.plain.prefill import left_mask
from edgeelad.engine.sampling import Choices, Logits, SamplingParams, Seeds, check_finite, choose_tokens
from edgeelad.records import FinishReason

# rows leave once an eighth of the batch has ended: removing them copies the cache of the others
LEAVE_SHARE = 8
_REASONS: tuple[FinishReason, ...] = ("eos", "stop", "length")
_OPEN, _EOS, _STOP, _LENGTH = -1, 0, 1, 2
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The prefilled rows of a batch.

    Attributes:
        cache: Their keys and values, padded on the left to the longest row.
        lengths: Cached tokens per row, shape [rows].
        logits: Of each row's first token, shape [rows, vocabulary].
        seeds: Shape [rows].
        budgets: Maximum tokens to generate per row, at least one, shape [rows].
    """

    cache: Cache
    lengths: IntArray
    logits: Logits
    seeds: Seeds
    budgets: IntArray


def decode(graph: Graph, rows: Rows, params: SamplingParams, limits: Limits) -> list[GeneratedTokens]:
    """Generate each row to its end.

    Raises:
        ModelError: The student computes NaN or infinity.
    """
    written = _Written(rows.budgets, graph.vocab_size, limits)
    live = np.arange(len(rows.lengths))  # the rows that are still in the batch
    cache, logits, padding = rows.cache, rows.logits, int(rows.lengths.max()) - rows.lengths
    width = int(rows.lengths.max())
    mask = np.pad(left_mask(rows.lengths, width), ((0, 0), (0, int(rows.budgets.max()))), constant_values=1)
    for count in range(int(rows.budgets.max())):
        chosen = choose_tokens(logits, params, rows.seeds[live], np.full(len(live), count))
        written.add(live, count, chosen)
        is_open = written.reasons[live] == _OPEN
        if not is_open.any():
            break
        tokens = chosen.tokens
        if is_open.sum() * LEAVE_SHARE <= len(live) * (LEAVE_SHARE - 1):
            keep = np.flatnonzero(is_open)
            live, tokens = live[keep], tokens[keep]
            num_dropped = int(padding[live].min())
            cache, mask = cache.take_rows(keep, num_dropped), mask[keep, num_dropped:]
            padding, width = padding - num_dropped, width - num_dropped
        # rows that have ended but not left are computed and ignored, within the student's positions
        positions = np.minimum(rows.lengths[live] + count, limits.max_context - 1)
        found, cache = graph.step(tokens[:, None], mask[:, : width + count + 1], positions[:, None], cache)
        logits = found[:, -1]
    return written.results()


class _Written:
    """The tokens chosen so far; arrays of shape [rows, largest budget]."""

    def __init__(self, budgets: IntArray, vocab_size: int, limits: Limits) -> None:
        shape = (len(budgets), int(budgets.max()))
        self.ids = np.zeros(shape, dtype=np.int64)
        self.logprobs, self.entropies = np.zeros(shape), np.zeros(shape)
        self.reasons = np.full(len(budgets), _OPEN)
        self.counts = np.zeros(len(budgets), dtype=np.int64)
        self._budgets, self._stop = budgets, limits.stop
        self._ends = _table(limits.eos_ids, vocab_size)

    def add(self, live: IntArray, count: int, chosen: Choices) -> None:
        """Record the live rows' token number `count`, and which of them it ends."""
        is_open = self.reasons[live] == _OPEN
        rows, tokens = live[is_open], chosen.tokens[is_open]
        logprobs = chosen.logprobs[is_open]
        check_finite(logprobs)
        self.ids[rows, count], self.logprobs[rows, count] = tokens, logprobs
        self.entropies[rows, count] = chosen.entropies[is_open]
        self.counts[rows] = count + 1
        self.reasons[rows[self._budgets[rows] == count + 1]] = _LENGTH
        if self._stop is not None:
            for row, token in zip(rows.tolist(), tokens.tolist(), strict=True):
                if token in self._stop.tokens and self._stop.check(self.ids[row, : count + 1].tolist()):
                    self.reasons[row] = _STOP
        self.reasons[rows[self._ends[tokens]]] = _EOS

    def results(self) -> list[GeneratedTokens]:
        """One record per row."""
        results = []
        for row, (count, reason) in enumerate(zip(self.counts.tolist(), self.reasons.tolist(), strict=True)):
            ids = self.ids[row, : count - (reason == _EOS)].tolist()
            logprobs, entropies = self.logprobs[row, :count].tolist(), self.entropies[row, :count].tolist()
            results.append(GeneratedTokens(tuple(ids), tuple(logprobs), tuple(entropies), _REASONS[reason]))
        return results


def _table(ids: Collection[int], vocab_size: int) -> Bools:
    """Mask of the tokens that are in `ids`, shape [vocabulary]."""
    table = np.zeros(vocab_size, dtype=np.bool_)
    table[[id_ for id_ in ids if 0 <= id_ < vocab_size]] = True
    return table
