"""Generate one greedy sequence and hand out each token as it is chosen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from edgeelad.engine.generate import Limits
from edgeelad.engine.session import OnnxGraph


def stream_tokens(graph: OnnxGraph, prompt: Sequence[int], max_tokens: int, limits: Limits) -> Iterator[int]:
    """The tokens of the greedy continuation of one prompt, as they come, without the end token."""
    ids: list[int] = []
    cache = graph.empty_cache(1)
    feed = np.array([prompt], dtype=np.int64)
    for _ in range(min(max_tokens, limits.max_context - len(prompt))):
        length = len(prompt) + len(ids)
        mask = np.ones((1, length), dtype=np.int64)
        positions = np.arange(length - feed.shape[1], length, dtype=np.int64)[None]
        logits, cache = graph.step(feed, mask, positions, cache)
        token = int(logits[0, -1].argmax())
        if token in limits.eos_ids:
            return
        ids.append(token)
        yield token
        if limits.stop is not None and token in limits.stop.tokens and limits.stop.check(ids):
            return
        feed = np.array([[token]], dtype=np.int64)
