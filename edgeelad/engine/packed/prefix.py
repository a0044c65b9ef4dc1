"""The beginning that all prompts of a student share, prefilled once: its instruction and the chat template before it.

A prompt with this beginning always starts from a copy of the same keys and values, the first one included, so its
tokens and bits do not depend on what was asked before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np

from edgeelad.engine.packed.buffers import KeyValueBuffers
from edgeelad.engine.packed.graph import BLOCK_ROWS, Feed, PackedGraph

# a shorter beginning is not worth a run of its own
MIN_TOKENS = 16


class SharedPrefix:
    """Keys and values of the tokens that all prompts begin with."""

    def __init__(self, graph: PackedGraph, find_ids: Callable[[], Sequence[int]]) -> None:
        """Compute nothing yet.

        Args:
            graph: The student.
            find_ids: Returns the tokens; called once, before the first prompt is prefilled.
        """
        self._graph, self._find_ids = graph, find_ids

    def copy_to(self, buffers: KeyValueBuffers, row: int, prompt: Sequence[int]) -> int:
        """Copy the keys and values to a row if the prompt begins with these tokens and has more.

        Returns:
            The number of the prompt's tokens that the row holds now.
        """
        length = len(self._ids)
        if not length or len(prompt) <= length or tuple(prompt[:length]) != self._ids:
            return 0
        buffers.take_row(row, self._buffers, length)
        return length

    @cached_property
    def _ids(self) -> tuple[int, ...]:
        # MatMulNBits computes the rows that are left after tiles of four otherwise
        ids = self._find_ids()
        length = len(ids) // BLOCK_ROWS * BLOCK_ROWS
        return tuple(ids[:length]) if length >= MIN_TOKENS else ()

    @cached_property
    def _buffers(self) -> KeyValueBuffers:
        length = len(self._ids)
        buffers = KeyValueBuffers(self._graph.shape, 1, length)
        feed = Feed(
            buffers,
            (0, 1),
            np.array([self._ids], dtype=np.int64),
            np.arange(length, dtype=np.int64)[None],
            np.zeros(1, dtype=np.int32),
            np.zeros((1, 1, length, length), dtype=np.float32),
            np.array([length - 1], dtype=np.int64),
        )
        self._graph.run({self._graph.sequence_slots[0]: feed}, 1)
        return buffers
