"""Prefill a batch of sequences, and cut the KV caches of prefixes out of the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from edgeelad.engine.plain.graph import IntArray, OnnxGraph

# maximum size of the logits of one pass, which have shape [rows, tokens, vocabulary]
MAX_LOGIT_BYTES = 128 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Prefilled:
    """The KV cache of a batch of sequences.

    Attributes:
        cache: Keys and values, each [rows, heads, width, head_dim]; a row fills the last `lengths` of the width.
        lengths: Tokens per row, shape [rows].
        logits: Of the token after each requested place, shape [places, vocabulary].
    """

    cache: list[Any]
    lengths: IntArray
    logits: npt.NDArray[np.float32]

    @property
    def width(self) -> int:
        """Tokens of the longest row."""
        return int(self.lengths.max())


def prefill(
    graph: OnnxGraph, sequences: Sequence[Sequence[int]], places: Sequence[tuple[int, int]] | None = None
) -> Prefilled:
    """Run sequences as one batch, padded on the left.

    Args:
        graph: The student.
        sequences: Token ids, at least one per sequence.
        places: Places to return logits for: (row, number of tokens before it); default: the end of each row.
    """
    lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
    width = int(lengths.max())
    ids = np.zeros((len(sequences), width), dtype=np.int64)
    for row, sequence in zip(ids, sequences, strict=True):
        row[width - len(sequence) :] = sequence
    mask = left_mask(lengths, width)
    positions = np.maximum(mask.cumsum(axis=1) - 1, 0)
    rows = np.arange(len(sequences)) if places is None else np.array([row for row, _ in places], dtype=np.int64)
    before = lengths if places is None else np.array([num_tokens for _, num_tokens in places], dtype=np.int64)
    columns = width - lengths[rows] + before - 1
    logits = np.empty((len(rows), graph.vocab_size), dtype=np.float32)
    cache = graph.empty_cache(len(sequences))
    stride = max(1, MAX_LOGIT_BYTES // (4 * graph.vocab_size * len(sequences)))
    for left in range(0, width, stride):
        right = min(left + stride, width)
        found, cache = graph.step(ids[:, left:right], mask[:, :right], positions[:, left:right], cache)
        here = np.flatnonzero((columns >= left) & (columns < right))
        logits[here] = found[rows[here], columns[here] - left]
    return Prefilled(cache, lengths, logits)


def cut_prefixes(whole: Prefilled, rows: IntArray, lengths: IntArray) -> list[Any]:
    """The KV cache of a batch of prefixes, padded on the left.

    Args:
        whole: The prefilled sequences.
        rows: The row of each prefix, shape [prefixes].
        lengths: Its tokens, shape [prefixes].
    """
    if len(rows) == len(whole.lengths) and (rows == np.arange(len(rows))).all() and (lengths == whole.lengths).all():
        return whole.cache
    width = int(lengths.max())
    ends = whole.width - whole.lengths[rows] + lengths
    spans = list(zip(rows.tolist(), lengths.tolist(), ends.tolist(), strict=True))
    return [_cut(value.numpy(), spans, width) for value in whole.cache]


def left_mask(lengths: IntArray, width: int) -> IntArray:
    """1 on the last `lengths` of `width` columns, else 0; shape [rows, width]."""
    return (np.arange(width) >= width - lengths[:, None]).astype(np.int64)


def _cut(values: npt.NDArray[Any], spans: list[tuple[int, int, int]], width: int) -> Any:
    cut = np.zeros((len(spans), values.shape[1], width, values.shape[3]), dtype=values.dtype)
    for target, (row, length, end) in zip(cut, spans, strict=True):
        target[:, width - length :] = values[row, :, end - length : end]
    return onnxruntime.OrtValue.ortvalue_from_numpy(cut)
