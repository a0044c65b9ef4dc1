"""Generate one greedy sequence, and yield each token as it is chosen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from edgeelad.engine.generate import Limits
from edgeelad.engine.plain.graph import Graph
from edgeelad.engine.plain.prefill import prefill


def stream_tokens(graph: Graph, prompt: Sequence[int], max_tokens: int, limits: Limits) -> Iterator[int]:
    """The greedy continuation of one prompt, token by token, without the end token."""
    num_left = min(max_tokens, limits.max_context - len(prompt))
    if num_left < 1:
        return
    start = prefill(graph, [prompt])
    cache, logits = start.cache, start.logits
    ids: list[int] = []
    while True:
        token = int(logits[0].argmax())
        if token in limits.eos_ids:
            return
        ids.append(token)
        yield token
        is_stop = limits.stop is not None and token in limits.stop.tokens and limits.stop.check(ids)
        if is_stop or len(ids) == num_left:
            return
        length = start.width + len(ids)
        mask, positions = np.ones((1, length), dtype=np.int64), np.array([[length - 1]], dtype=np.int64)
        found, cache = graph.step(np.array([[token]], dtype=np.int64), mask, positions, cache)
        logits = found[:, -1]
