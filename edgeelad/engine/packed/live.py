"""A `generate.LiveBatch` on the engine's graph: a ragged batch whose buffers fit the sequences that are in it."""

from __future__ import annotations

from edgeelad.engine.generate import Limits, LiveSequence, SequenceRequest
from edgeelad.engine.packed.batch import RaggedBatch, Row
from edgeelad.engine.packed.graph import PackedGraph

# rows have capacities in multiples of this many tokens, so that few sequences change the size of the buffers
CAPACITY_STEP = 256


class PackedLiveBatch:
    """A `generate.LiveBatch` on an engine graph.

    Attributes:
        num_rows: Maximum number of sequences.
        kv_bytes: Maximum KV cache; a sequence that is alone gets what it needs.
    """

    def __init__(self, graph: PackedGraph, limits: Limits, num_rows: int, kv_bytes: int) -> None:
        self.num_rows, self.kv_bytes = num_rows, kv_bytes
        self._graph, self._limits = graph, limits
        self._batch: RaggedBatch | None = None

    @property
    def live(self) -> list[LiveSequence]:
        """The sequences that have not ended."""
        return [] if self._batch is None else [row.sequence for row in self._batch.live]

    def add(self, request: SequenceRequest) -> LiveSequence | None:
        """Prefill a sequence and choose its first token; see `LiveBatch`."""
        row = Row(request, request.begin(self._limits))
        batch = self._make_room(row)
        if batch is None:
            return None
        batch.start([row], self._limits)
        return row.sequence

    def step(self) -> None:
        """Choose one more token per sequence; see `LiveBatch`."""
        if self._batch is not None and self._batch.live:
            self._batch.step(self._limits)

    def remove(self, sequence: LiveSequence) -> None:
        """Remove a sequence; see `LiveBatch`."""
        if self._batch is not None:
            for place in [place for place, row in enumerate(self._batch.live) if row.sequence is sequence]:
                self._batch.remove(place)

    def clear(self) -> None:
        """Remove all sequences; see `LiveBatch`."""
        if self._batch is not None:
            self._batch.live.clear()

    def _make_room(self, row: Row) -> RaggedBatch | None:
        """A batch with a free place for one more row, which its buffers grow or shrink for; None if they cannot."""
        live = [] if self._batch is None else self._batch.live
        longest = max(each.max_length for each in (*live, row))
        batch = self._batch
        if batch is not None and len(live) < batch.num_rows and longest <= batch.capacity:
            return batch
        capacity = -(-longest // CAPACITY_STEP) * CAPACITY_STEP
        num_rows = min(self.num_rows, max(self.kv_bytes // (capacity * self._graph.bytes_per_token), 1))
        if len(live) >= num_rows:
            return None
        if batch is None or not live:
            self._batch = None  # released before the new one is allocated
            self._graph.unbind()
            self._batch = RaggedBatch(self._graph, num_rows, capacity)
        else:
            batch.resize(num_rows, capacity)
        return self._batch
