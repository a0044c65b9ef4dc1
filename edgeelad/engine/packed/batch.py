"""Continuous batching of independent prompts: sequences join and leave between steps.

A prompt is prefilled as a packed sequence of its own; then all live rows advance by one token per step. A row's result
does not depend on the others: matrix products give a row the same bits for every number of rows from two on, or for
every multiple of `PackedGraph.row_multiple` (copies of a row fill up the batch), and attention reads each row's own
keys alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeelad.engine.generate import GeneratedTokens, Limits, LiveSequence, SequenceRequest
from edgeelad.engine.packed.buffers import KeyValueBuffers
from edgeelad.engine.packed.graph import Feed, PackedGraph
from edgeelad.engine.packed.prefix import SharedPrefix
from edgeelad.engine.packed.rows import TopRows
from edgeelad.engine.packed.sequence import choose_next
from edgeelad.engine.sampling import SamplingParams, not_finite

BATCH_SLOT = 0
MIN_ROWS = 2


@dataclass(slots=True, eq=False)
class Row:
    """A sequence in a batch.

    Attributes:
        request: What to generate.
        sequence: Its tokens so far.
        length: How many of its tokens are cached.
        first: The distribution of its first token, once the prompt is prefilled.
    """

    request: SequenceRequest
    sequence: LiveSequence
    length: int = 0
    first: TopRows | None = None

    @property
    def max_length(self) -> int:
        """Maximum tokens that will be cached."""
        return len(self.request.prompt_ids) + self.sequence.budget

    @property
    def num_top(self) -> int:
        """Number of top logits that the choice of its next token needs."""
        return max(self.request.params.num_top, self.sequence.num_top)


class RaggedBatch:
    """Sequences of different lengths that run together.

    Attributes:
        num_rows: Maximum number of sequences.
        capacity: Tokens per row.
        live: The rows in use; row i of the buffers belongs to `live[i]`.
    """

    def __init__(self, graph: PackedGraph, num_rows: int, capacity: int) -> None:
        """Allocate the buffers."""
        self.num_rows, self.capacity = num_rows, capacity
        self.live: list[Row] = []
        self._graph = graph
        self._buffers = KeyValueBuffers(graph.shape, self._filled_up(num_rows), capacity)

    def run(self, requests: Sequence[SequenceRequest], limits: Limits) -> list[GeneratedTokens]:
        """Generate sequences of any number, each of which fits a row."""
        self.live.clear()  # what an earlier run left when it failed
        rows = [Row(request, request.begin(limits)) for request in requests]
        waiting = rows[::-1]
        while waiting or self.live:
            while waiting and len(self.live) < self.num_rows:
                count = min(self.num_rows - len(self.live), len(self._graph.sequence_slots), len(waiting))
                self.start([waiting.pop() for _ in range(count)], limits)
            if self.live:
                self.step(limits)
        return [row.sequence.result() for row in rows]

    def start(self, rows: Sequence[Row], limits: Limits, prefix: SharedPrefix | None = None) -> None:
        """Prefill sequences, at most one per sequence slot, and choose their first tokens, with which they may end."""
        feeds = {}
        for place, (slot, row) in enumerate(zip(self._graph.sequence_slots, rows, strict=False), start=len(self.live)):
            if prefix is not None:
                row.length = prefix.copy_to(self._buffers, place, row.request.prompt_ids)
            feeds[slot] = _prompt_feed(self._buffers, place, row, len(row.request.prompt_ids))
        found, *_ = self._graph.run(feeds, max(row.num_top for row in rows))
        self._join(rows, found, limits)

    def read(self, row: Row, buffers: KeyValueBuffers, num_tokens: int, limits: Limits) -> bool:
        """Prefill the next tokens of a prompt in buffers of its own; with its last token it joins the batch.

        Returns:
            Whether the prompt is complete.
        """
        (slot, *_) = self._graph.sequence_slots
        found, *_ = self._graph.run({slot: _prompt_feed(buffers, 0, row, num_tokens)}, row.num_top)
        if row.length < len(row.request.prompt_ids):
            return False
        self._buffers.take_row(len(self.live), buffers, row.length)
        self._join([row], found, limits)
        return True

    def fork(self, row: Row, twin: Row, limits: Limits) -> None:
        """Start a sequence with the prompt of a live one, `twin`, without prefilling it again."""
        assert twin.first is not None, "its prompt is prefilled"
        row.length = len(row.request.prompt_ids)
        self._buffers.move_row(self.live.index(twin), len(self.live), row.length)
        self._join([row], twin.first, limits)

    def _join(self, rows: Sequence[Row], first: TopRows, limits: Limits) -> None:
        """Choose the first tokens of prefilled rows; row i of `first` is the distribution of row i."""
        for place, row in enumerate(rows):
            row.first = first.part(place, place + 1)
        _choose(rows, first, limits)
        self.live.extend(rows)
        self._remove_ended()

    def step(self, limits: Limits) -> None:
        """Choose one more token per row; those that end leave."""
        count = self._filled_up(len(self.live))
        rows = [*self.live, *[self.live[0]] * (count - len(self.live))]  # copies overwrite what their rows hold
        tokens, lengths = [row.sequence.ids[-1] for row in rows], [row.length for row in rows]
        feed = Feed(
            self._buffers,
            (0, count),
            np.array(tokens, dtype=np.int64)[:, None],
            np.array(lengths, dtype=np.int64)[:, None],
            np.array(lengths, dtype=np.int32),
            np.zeros((1, 1, 1, max(lengths) + 1), dtype=np.float32),
            np.arange(count if self._graph.row_multiple > 1 else len(self.live), dtype=np.int64),
        )
        found, *_ = self._graph.run({BATCH_SLOT: feed}, max(row.num_top for row in self.live))
        for row in self.live:
            row.length += 1
        _choose(self.live, found.part(0, len(self.live)), limits)
        self._remove_ended()

    def remove(self, place: int) -> None:
        """Remove a row; the last one takes its place."""
        last = self.live.pop()
        if place < len(self.live):
            self._buffers.move_row(len(self.live), place, last.length)
            self.live[place] = last

    def resize(self, num_rows: int, capacity: int) -> None:
        """Change the size of the buffers; the live rows keep their tokens."""
        self._graph.unbind()
        self._buffers.resize(self._filled_up(num_rows), capacity, [row.length for row in self.live])
        self.num_rows, self.capacity = num_rows, capacity

    def _filled_up(self, num_rows: int) -> int:
        """The number of rows that run, copies included."""
        multiple = self._graph.row_multiple
        return max(-(-num_rows // multiple) * multiple, MIN_ROWS)

    def _remove_ended(self) -> None:
        for place in range(len(self.live) - 1, -1, -1):
            if self.live[place].sequence.is_done:
                self.remove(place)


def _prompt_feed(buffers: KeyValueBuffers, place: int, row: Row, num_tokens: int) -> Feed:
    """The next tokens of a row's prompt, which will be cached at `place`; the distribution after the last is wanted."""
    past, stop = row.length, min(row.length + num_tokens, len(row.request.prompt_ids))
    row.length = stop
    return Feed(
        buffers,
        (place, place + 1),
        np.array([row.request.prompt_ids[past:stop]], dtype=np.int64),
        np.arange(past, stop, dtype=np.int64)[None],
        np.array([past], dtype=np.int32),
        np.zeros((1, 1, stop - past, stop), dtype=np.float32),  # attention itself is causal
        np.array([stop - past - 1], dtype=np.int64),
    )


def _choose(rows: Sequence[Row], found: TopRows, limits: Limits) -> None:
    """Choose each row's next token in its own way; row i of `found` is the distribution of `rows[i]`.

    A row with NaN fails alone.
    """
    alike: dict[tuple[float, int, float], list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        params = row.request.params
        if not np.isfinite(found.normalizers[place]):
            row.sequence.error = not_finite()
            continue
        alike[params.temperature, params.top_k, params.top_p].append(place)
        if row.sequence.num_top:
            row.sequence.top.append(found.most_likely(place, row.sequence.num_top))
    for (temperature, top_k, top_p), places in alike.items():
        params = SamplingParams(0, temperature, top_k, top_p)  # the sequences know their maximum number of tokens
        own = found if len(places) == len(rows) else found.take(np.array(places))
        choose_next([rows[place].sequence for place in places], own, params, limits)
