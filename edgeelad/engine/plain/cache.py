"""The KV cache of a batch's rows: take rows out of it, and cut prefixes out of its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Cache:
    """The KV cache of a batch's rows. Its arrays are OrtValues.

    Attributes:
        tokens: Keys and values of the rows' tokens, each [rows, heads, width, head_dim], padded on the left.
        context: What the rows read besides their tokens, each [rows, …]: keys, values and mask of the encoded prompts.
            Empty for a decoder, whose tokens include the prompt.
    """

    tokens: list[Any]
    context: list[Any]

    def take_rows(self, rows: IntArray, num_dropped: int = 0) -> Cache:
        """The cache of the given rows, in that order, without its first `num_dropped` columns; rows may repeat."""
        tokens = [_value(value.numpy()[rows, :, num_dropped:]) for value in self.tokens]
        return Cache(tokens, self._context_of(rows))

    def cut(self, rows: IntArray, lengths: IntArray, ends: IntArray) -> Cache:
        """The cache of prefixes of rows, padded on the left to the longest.

        Args:
            rows: The row of each prefix, shape [prefixes].
            lengths: Its number of tokens, shape [prefixes].
            ends: The column after its last token, shape [prefixes].
        """
        spans = list(zip(rows.tolist(), lengths.tolist(), ends.tolist(), strict=True))
        width = int(lengths.max())
        return Cache([_cut(value.numpy(), spans, width) for value in self.tokens], self._context_of(rows))

    def _context_of(self, rows: IntArray) -> list[Any]:
        return [_value(value.numpy()[rows]) for value in self.context]


def _cut(values: npt.NDArray[Any], spans: Sequence[tuple[int, int, int]], width: int) -> Any:
    cut = np.zeros((len(spans), values.shape[1], width, values.shape[3]), dtype=values.dtype)
    for target, (row, length, end) in zip(cut, spans, strict=True):
        target[:, width - length :] = values[row, :, end - length : end]
    return _value(cut)


def _value(array: npt.NDArray[Any]) -> Any:
    return onnxruntime.OrtValue.ortvalue_from_numpy(array)
