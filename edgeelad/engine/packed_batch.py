"""Sequences of many independent prompts: a ragged batch in which a prompt takes the place of a sequence that has ended.

Each prompt is prefilled alone, then all live rows advance together, one token a step. A row's result does not depend
on its mates: the products of a row are the same bits for every number of rows from two on (a row that is alone runs
beside a copy of itself), and attention reads each row's own keys alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeelad.engine.generate import GeneratedTokens, Limits
from edgeelad.engine.packed_graph import KeyValueBuffers, PackedGraph, TopRows
from edgeelad.engine.packed_sequence import Growing, choose_next
from edgeelad.engine.sampling import SamplingParams

MIN_ROWS = 2


@dataclass(slots=True, eq=False)
class _Slot:
    index: int
    length: int  # tokens that its row of the buffers holds
    sequence: Growing


class RaggedBatch:
    """Buffers for sequences that run together.

    Attributes:
        num_rows: Sequences that run together at most.
        capacity: Tokens that a row has room for.
    """

    def __init__(self, graph: PackedGraph, num_rows: int, capacity: int) -> None:
        """Allocate the buffers."""
        self.num_rows, self.capacity = num_rows, capacity
        self._graph = graph
        self._buffers = KeyValueBuffers(graph, max(num_rows, MIN_ROWS), capacity)

    def run(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], params: SamplingParams, limits: Limits
    ) -> list[GeneratedTokens]:
        """Generate one sequence from each prompt.

        Args:
            prompts: Token ids; each leaves room for a token in the student's context and fits the rows' capacity.
            seeds: One for each prompt.
            params: How tokens are chosen, and how many at most.
            limits: What ends a sequence.
        """
        results: dict[int, GeneratedTokens] = {}
        waiting = iter(range(len(prompts)))
        live: list[_Slot] = []
        while len(results) < len(prompts):
            # 1. a waiting prompt for each free row; one may end with its first token
            while len(live) < self.num_rows and (index := next(waiting, None)) is not None:
                slot = self._admit(len(live), index, prompts[index], seeds[index], params, limits)
                if slot.sequence.finish_reason is None:
                    live.append(slot)
                else:
                    results[index] = slot.sequence.result()
            if not live:
                continue
            # 2. one token for every row
            choose_next([slot.sequence for slot in live], self._step(live, params), params, limits)
            # 3. rows that have ended leave; the last row takes the place
            for row in range(len(live) - 1, -1, -1):
                if live[row].sequence.finish_reason is not None:
                    results[live[row].index] = live[row].sequence.result()
                    last = live.pop()
                    if row < len(live):
                        self._buffers.move_row(len(live), row, last.length)
                        live[row] = last
        return [results[index] for index in range(len(prompts))]

    def _admit(
        self, row: int, index: int, prompt: Sequence[int], seed: int, params: SamplingParams, limits: Limits
    ) -> _Slot:
        length = len(prompt)
        found = self._graph.run(
            self._buffers,
            (row, row + 1),
            np.array([prompt], dtype=np.int64),
            np.arange(length, dtype=np.int64)[None],
            np.zeros(1, dtype=np.int32),
            np.zeros((1, 1, length, length), dtype=np.float32),  # GroupQueryAttention is causal by itself
            np.array([length - 1], dtype=np.int64),
            num_top=params.num_top,
        )
        sequence = Growing(seed, min(params.max_new_tokens, limits.max_context - length))
        choose_next([sequence], found, params, limits)
        return _Slot(index, length, sequence)

    def _step(self, live: list[_Slot], params: SamplingParams) -> TopRows:
        tokens = [slot.sequence.ids[-1] for slot in live]
        lengths = [slot.length for slot in live]
        for slot in live:
            slot.length += 1
        if len(live) < MIN_ROWS:  # its mate: the same token, over whatever the next row holds
            tokens, lengths = tokens * MIN_ROWS, lengths * MIN_ROWS
        count = len(tokens)
        return self._graph.run(
            self._buffers,
            (0, count),
            np.array(tokens, dtype=np.int64)[:, None],
            np.array(lengths, dtype=np.int64)[:, None],
            np.array(lengths, dtype=np.int32),
            np.zeros((1, 1, 1, max(lengths) + 1), dtype=np.float32),
            np.arange(count, dtype=np.int64),
            num_top=params.num_top,
        )
