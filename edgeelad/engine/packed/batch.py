"""Continuous batching of independent prompts: a waiting prompt takes the row of a sequence that has ended.

Each prompt is prefilled as a packed sequence of its own; then all live rows advance by one token per step. A row's
result does not depend on the others: matrix products give a row the same bits for every number of rows from two on (a
row that is alone runs beside a copy of itself), and attention reads each row's own keys alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeelad.engine.generate import GeneratedTokens, Limits
from edgeelad.engine.packed.buffers import KeyValueBuffers
from edgeelad.engine.packed.graph import Feed, PackedGraph
from edgeelad.engine.packed.sequence import LiveSequence, choose_next
from edgeelad.engine.sampling import SamplingParams

BATCH_SLOT = 0
MIN_ROWS = 2


@dataclass(slots=True, eq=False)
class _Row:
    index: int
    length: int  # tokens in its row of the buffers
    sequence: LiveSequence


class RaggedBatch:
    """Sequences of different lengths that run together.

    Attributes:
        num_rows: Maximum number of sequences.
        capacity: Tokens per row.
    """

    def __init__(self, graph: PackedGraph, num_rows: int, capacity: int) -> None:
        """Allocate the buffers."""
        self.num_rows, self.capacity = num_rows, capacity
        self._graph = graph
        self._buffers = KeyValueBuffers(graph.shape, max(num_rows, MIN_ROWS), capacity)

    def run(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], params: SamplingParams, limits: Limits
    ) -> list[GeneratedTokens]:
        """Generate one sequence per prompt.

        Args:
            prompts: Token ids; each leaves room for a token in the student's context and fits a row.
            seeds: One per prompt.
            params: How tokens are chosen, and their maximum number.
            limits: When a sequence ends.
        """
        results: dict[int, GeneratedTokens] = {}
        waiting = [
            _Row(index, 0, LiveSequence(seeds[index], min(params.max_new_tokens, limits.max_context - len(prompt))))
            for index, prompt in enumerate(prompts)
        ][::-1]
        live: list[_Row] = []
        while len(results) < len(prompts):
            # 1. prefill waiting prompts into free rows; one may end with its first token
            while waiting and len(live) < self.num_rows:
                num_free = min(self.num_rows - len(live), len(self._graph.sequence_slots))
                fresh = [waiting.pop() for _ in range(min(num_free, len(waiting)))]
                self._prefill(len(live), fresh, prompts, params, limits)
                live.extend(fresh)
                self._release_ended(live, results)
            # 2. decode one token per row
            if live:
                self._step(live, params, limits)
                self._release_ended(live, results)
        return [results[index] for index in range(len(prompts))]

    def _release_ended(self, live: list[_Row], results: dict[int, GeneratedTokens]) -> None:
        """Remove rows that have ended; the last row takes the free place."""
        for place in range(len(live) - 1, -1, -1):
            if live[place].sequence.finish_reason is not None:
                results[live[place].index] = live[place].sequence.result()
                last = live.pop()
                if place < len(live):
                    self._buffers.move_row(len(live), place, last.length)
                    live[place] = last

    def _prefill(
        self, first: int, rows: list[_Row], prompts: Sequence[Sequence[int]], params: SamplingParams, limits: Limits
    ) -> None:
        """Prefill prompts into the rows of the buffers from `first` on, and choose their first tokens."""
        feeds = {}
        for place, (slot, row) in enumerate(zip(self._graph.sequence_slots, rows, strict=False), start=first):
            prompt = prompts[row.index]
            row.length = len(prompt)
            feeds[slot] = Feed(
                self._buffers,
                (place, place + 1),
                np.array([prompt], dtype=np.int64),
                np.arange(row.length, dtype=np.int64)[None],
                np.zeros(1, dtype=np.int32),
                np.zeros((1, 1, row.length, row.length), dtype=np.float32),  # attention itself is causal
                np.array([row.length - 1], dtype=np.int64),
            )
        found, *_ = self._graph.run(feeds, params.num_top)
        choose_next([row.sequence for row in rows], found, params, limits)

    def _step(self, live: list[_Row], params: SamplingParams, limits: Limits) -> None:
        tokens = [row.sequence.ids[-1] for row in live]
        lengths = [row.length for row in live]
        for row in live:
            row.length += 1
        if len(live) < MIN_ROWS:  # a copy of the same token, over whatever the next row holds
            tokens, lengths = tokens * MIN_ROWS, lengths * MIN_ROWS
        count = len(tokens)
        feed = Feed(
            self._buffers,
            (0, count),
            np.array(tokens, dtype=np.int64)[:, None],
            np.array(lengths, dtype=np.int64)[:, None],
            np.array(lengths, dtype=np.int32),
            np.zeros((1, 1, 1, max(lengths) + 1), dtype=np.float32),
            np.arange(len(live), dtype=np.int64),
        )
        found, *_ = self._graph.run({BATCH_SLOT: feed}, params.num_top)
        choose_next([row.sequence for row in live], found, params, limits)
