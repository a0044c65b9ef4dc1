"""What leaves the engine's graph: of each row's next-token distribution the top, and two numbers of the whole."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeelad.engine.packed.buffers import Floats, Ints


@dataclass(frozen=True, slots=True, eq=False)
class TopRows:
    """The next-token distribution of each wanted row.

    Attributes:
        logits: The largest logits, largest first, shape [rows, k].
        ids: Their tokens, shape [rows, k].
        normalizers: log Σ exp over the whole vocabulary, shape [rows].
        entropies: In nats, shape [rows].
    """

    logits: Floats
    ids: Ints
    normalizers: npt.NDArray[np.float64]
    entropies: npt.NDArray[np.float64]

    def take(self, rows: Ints) -> TopRows:
        """Some rows, in that order; a row may be taken repeatedly."""
        return TopRows(self.logits[rows], self.ids[rows], self.normalizers[rows], self.entropies[rows])

    def part(self, start: int, stop: int) -> TopRows:
        """The rows from `start` up to `stop`."""
        rows = slice(start, stop)
        return TopRows(self.logits[rows], self.ids[rows], self.normalizers[rows], self.entropies[rows])
