"""Next-token distributions as the engine's graph returns them: top logits, normalizer and entropy per row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeelad.engine.packed.buffers import Floats, Ints


@dataclass(frozen=True, slots=True, eq=False)
class TopRows:
    """The next-token distribution of each requested row.

    Attributes:
        logits: The largest logits, in descending order, shape [rows, k].
        ids: Their tokens, shape [rows, k].
        normalizers: log Σ exp over the whole vocabulary, shape [rows].
        entropies: In nats, shape [rows].
    """

    logits: Floats
    ids: Ints
    normalizers: npt.NDArray[np.float64]
    entropies: npt.NDArray[np.float64]

    def most_likely(self, row: int, num: int) -> list[tuple[int, float]]:
        """The most likely tokens of a row with their log-probabilities, in descending order."""
        logprobs = np.minimum(self.logits[row, :num].astype(np.float64) - self.normalizers[row], 0.0)
        return list(zip(self.ids[row, :num].tolist(), logprobs.tolist(), strict=True))

    def take(self, rows: Ints) -> TopRows:
        """The given rows, in that order; rows may repeat."""
        return TopRows(self.logits[rows], self.ids[rows], self.normalizers[rows], self.entropies[rows])

    def part(self, start: int, stop: int) -> TopRows:
        """Rows `start` to `stop`, exclusive."""
        rows = slice(start, stop)
        return TopRows(self.logits[rows], self.ids[rows], self.normalizers[rows], self.entropies[rows])
