"""A `generate.LiveBatch` on a graph with standard names: one sequence at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeelad.engine.generate import Limits, LiveSequence, SequenceRequest
from edgeelad.engine.plain.cache import Cache
from edgeelad.engine.plain.graph import Graph
from edgeelad.engine.plain.prefill import prefill
from edgeelad.engine.sampling import (
    Logits,
    SamplingParams,
    check_finite,
    choose_tokens,
    normalizers_and_entropies,
    top_logits,
)


class PlainLiveBatch:
    """A `generate.LiveBatch` of one sequence, for students without engine graphs.

    Attributes:
        num_rows: 1.
        live: The sequence, if there is one.
    """

    num_rows = 1

    def __init__(self, graph: Graph, limits: Limits) -> None:
        self.live: Sequence[LiveSequence] = []
        self._graph, self._limits = graph, limits
        self._params = SamplingParams(0)
        self._cache: Cache | None = None
        self._length = 0  # tokens in the cache

    def add(self, request: SequenceRequest) -> LiveSequence | None:
        """Prefill a sequence and choose its first token; see `LiveBatch`."""
        if self.live:
            return None
        sequence = request.begin(self._limits)
        start = prefill(self._graph, [request.prompt_ids])
        self._params, self._cache, self._length = request.params, start.cache, start.width
        self._choose(sequence, start.logits)
        return sequence

    def step(self) -> None:
        """Choose one more token; see `LiveBatch`."""
        for sequence in self.live:
            assert self._cache is not None, "its prompt is prefilled"
            tokens, positions = np.array([[sequence.ids[-1]]]), np.array([[self._length]])
            self._length += 1
            mask = np.ones((1, self._length), dtype=np.int64)
            found, self._cache = self._graph.step(tokens, mask, positions, self._cache)
            self._choose(sequence, found[:, -1])

    def remove(self, sequence: LiveSequence) -> None:
        """Remove a sequence; see `LiveBatch`."""
        if sequence in self.live:
            self.clear()

    def clear(self) -> None:
        """Remove the sequence; see `LiveBatch`."""
        self.live, self._cache = [], None

    def _choose(self, sequence: LiveSequence, logits: Logits) -> None:
        seeds, places = np.array([sequence.seed], dtype=np.uint64), np.array([len(sequence.ids)])
        chosen = choose_tokens(logits, self._params, seeds, places)
        check_finite(chosen.logprobs)
        if sequence.num_top:
            top, ids = top_logits(logits, sequence.num_top)
            normalizers, _ = normalizers_and_entropies(logits)
            logprobs = np.minimum(top[0].astype(np.float64) - normalizers[0], 0.0)
            sequence.top.append(list(zip(ids[0].tolist(), logprobs.tolist(), strict=True)))
        token, logprob, entropy = chosen.tokens[0], chosen.logprobs[0], chosen.entropies[0]
        sequence.append(int(token), float(logprob), float(entropy), self._limits)
        if sequence.finish_reason is None:
            self.live = [sequence]
        else:
            self.clear()
