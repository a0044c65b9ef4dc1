"""A `generate.LiveBatch` on the engine's graph: a ragged batch whose buffers fit the sequences that are in it.

A long prompt is prefilled in parts, one per step, so that the other sequences do not wait for all of it. The choices of
one request share the prefill of their prompt.
"""

from __future__ import annotations

from edgeelad.engine.generate import Limits, LiveSequence, SequenceRequest
from edgeelad.engine.packed.batch import RaggedBatch, Row
from edgeelad.engine.packed.buffers import KeyValueBuffers
from edgeelad.engine.packed.graph import PackedGraph
from edgeelad.engine.packed.prefix import SharedPrefix

# rows have capacities in multiples of this many tokens, so that few sequences change the size of the buffers
CAPACITY_STEP = 256
# tokens of a prompt that are prefilled at a time
PART_TOKENS = 512


class PackedLiveBatch:
    """A `generate.LiveBatch` on an engine graph.

    Attributes:
        num_rows: Maximum number of sequences.
        kv_bytes: Maximum KV cache; a sequence that is alone gets what it needs.
    """

    def __init__(self, graph: PackedGraph, limits: Limits, num_rows: int, kv_bytes: int, prefix: SharedPrefix) -> None:
        self.num_rows, self.kv_bytes = num_rows, kv_bytes
        self._graph, self._limits, self._prefix = graph, limits, prefix
        self._batch: RaggedBatch | None = None
        self._reading: tuple[Row, KeyValueBuffers] | None = None  # a long prompt, and where it is prefilled

    @property
    def live(self) -> list[LiveSequence]:
        """The sequences that have not ended."""
        return [row.sequence for row in self._rows]

    @property
    def _rows(self) -> list[Row]:
        rows = [] if self._batch is None else self._batch.live
        return [*rows, *([] if self._reading is None else [self._reading[0]])]

    def add(self, request: SequenceRequest) -> LiveSequence | None:
        """Prefill a sequence and choose its first token; see `LiveBatch`."""
        row, num_tokens = Row(request, request.begin(self._limits)), len(request.prompt_ids)
        twin = self._find_twin(row)
        is_long = twin is None and num_tokens > PART_TOKENS
        batch = None if is_long and self._reading is not None else self._make_room(row)
        if batch is None:
            return None
        if twin is not None:
            batch.fork(row, twin, self._limits)
        elif is_long:
            self._reading = row, KeyValueBuffers(self._graph.shape, 1, num_tokens)
            row.length = self._prefix.copy_to(self._reading[1], 0, request.prompt_ids)
        else:
            batch.start([row], self._limits, self._prefix)
        return row.sequence

    def step(self) -> None:
        """Choose one more token per sequence, except for a prompt that is being read; see `LiveBatch`."""
        if self._batch is None:
            return
        if self._batch.live:
            self._batch.step(self._limits)
        if self._reading is not None:
            row, buffers = self._reading
            if self._batch.read(row, buffers, PART_TOKENS, self._limits):
                self._reading = None

    def remove(self, sequence: LiveSequence) -> None:
        """Remove a sequence; see `LiveBatch`."""
        if self._reading is not None and self._reading[0].sequence is sequence:
            self._reading = None
        elif self._batch is not None:
            for place in [place for place, row in enumerate(self._batch.live) if row.sequence is sequence]:
                self._batch.remove(place)

    def clear(self) -> None:
        """Remove all sequences, and release the buffers; see `LiveBatch`."""
        self._batch = self._reading = None
        self._graph.unbind()

    def _find_twin(self, row: Row) -> Row | None:
        """A live row with the same prompt, and with as many top logits as the choice of the first token needs."""
        num_top = min(row.num_top, self._graph.vocab_size)
        rows = [] if self._batch is None else self._batch.live
        same = (each for each in rows if each.request.prompt_ids == row.request.prompt_ids)
        return next((each for each in same if each.first and each.first.logits.shape[1] >= num_top), None)

    def _make_room(self, row: Row) -> RaggedBatch | None:
        """A batch with a free place for one more row, which its buffers grow or shrink for; None if they cannot."""
        live = self._rows
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
