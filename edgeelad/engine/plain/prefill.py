"""Prefill a batch of sequences, and cut the KV caches of prefixes out of the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeelad.engine.plain.cache import Cache, IntArray
from edgeelad.engine.plain.graph import Graph

# maximum size of the logits of one pass, which have shape [rows, tokens, vocabulary]
MAX_LOGIT_BYTES = 128 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Prefilled:
    """The KV cache of a batch of sequences.

    Attributes:
        cache: Of `width` columns; a row fills the last `lengths` of them.
        starts: Cached tokens per row before its completion, shape [rows].
        lengths: Cached tokens per row, shape [rows].
        logits: Of the token after each requested place, shape [places, vocabulary].
    """

    cache: Cache
    starts: IntArray
    lengths: IntArray
    logits: npt.NDArray[np.float32]

    @property
    def width(self) -> int:
        """Tokens of the longest row."""
        return int(self.lengths.max())


def prefill(
    graph: Graph,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]] | None = None,
    places: Sequence[tuple[int, int]] | None = None,
) -> Prefilled:
    """Run prompts and what follows them as one batch, padded on the left.

    Args:
        graph: The student.
        prompts: Token ids, at least one per prompt.
        completions: Token ids that follow each prompt; default: none.
        places: Places to return logits for: (row, tokens of the completion before it); default: the end of each row.
    """
    cache, heads = graph.begin(prompts)
    completions = [()] * len(prompts) if completions is None else completions
    sequences = [[*head, *completion] for head, completion in zip(heads, completions, strict=True)]
    starts, lengths = (np.array(list(map(len, each)), dtype=np.int64) for each in (heads, sequences))
    width = int(lengths.max())
    ids = np.zeros((len(sequences), width), dtype=np.int64)
    for row, sequence in zip(ids, sequences, strict=True):
        row[width - len(sequence) :] = sequence
    mask = left_mask(lengths, width)
    positions = np.maximum(mask.cumsum(axis=1) - 1, 0)
    if places is None:
        places = [(row, len(completion)) for row, completion in enumerate(completions)]
    rows, after = (np.array(each, dtype=np.int64) for each in zip(*places, strict=True))
    columns = width - lengths[rows] + starts[rows] + after - 1
    logits = np.empty((len(rows), graph.vocab_size), dtype=np.float32)
    stride = max(1, MAX_LOGIT_BYTES // (4 * graph.vocab_size * len(sequences)))
    for left in range(0, width, stride):
        right = min(left + stride, width)
        found, cache = graph.step(ids[:, left:right], mask[:, :right], positions[:, left:right], cache)
        here = np.flatnonzero((columns >= left) & (columns < right))
        logits[here] = found[rows[here], columns[here] - left]
    return Prefilled(cache, starts, lengths, logits)


def cut_prefixes(whole: Prefilled, rows: IntArray, lengths: IntArray) -> Cache:
    """The KV cache of a batch of prefixes, padded on the left.

    Args:
        whole: The prefilled sequences.
        rows: The row of each prefix, shape [prefixes].
        lengths: Its cached tokens, shape [prefixes].
    """
    if len(rows) == len(whole.lengths) and (rows == np.arange(len(rows))).all() and (lengths == whole.lengths).all():
        return whole.cache
    return whole.cache.cut(rows, lengths, whole.width - whole.lengths[rows] + lengths)


def left_mask(lengths: IntArray, width: int) -> IntArray:
    """1 on the last `lengths` of `width` columns, else 0; shape [rows, width]."""
    return (np.arange(width) >= width - lengths[:, None]).astype(np.int64)
