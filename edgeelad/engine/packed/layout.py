"""Lay the sequences of one tree out in one packed sequence: the longest is the spine, the others leave it somewhere.

A column of the packed sequence is a token; what a column may see are its ancestors. Pure bookkeeping over tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeelad.engine.packed.buffers import Floats
from edgeelad.engine.packed.graph import HIDDEN


@dataclass(frozen=True, slots=True)
class Point:
    """Where branches start: the end of one sequence.

    Attributes:
        length: Tokens of the sequence.
        num_shared: How many of its columns are the spine's first.
        own: Its own columns after these, from and up to.
    """

    length: int
    num_shared: int
    own: tuple[int, int]

    @property
    def end(self) -> int:
        """The column of its last token."""
        return self.own[1] - 1 if self.own[1] > self.own[0] else self.num_shared - 1


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of a tree's context.

    Attributes:
        tokens: The token of each column.
        positions: Its position in its sequence.
        points: One for each sequence.
    """

    tokens: tuple[int, ...]
    positions: tuple[int, ...]
    points: tuple[Point, ...]

    def bias(self) -> Floats:
        """What each column does not see gets `HIDDEN`; shape [1, 1, columns, columns].

        What lies after a column is hidden by attention's own causality.
        """
        bias = np.zeros((len(self.tokens), len(self.tokens)), dtype=np.float32)
        for point in self.points:
            bias[slice(*point.own), point.num_shared : point.own[0]] = HIDDEN
        return bias[None, None]

    def shows(self, point: Point, width: int) -> Floats:
        """What a branch at `point` sees: 0 for its ancestors, else `HIDDEN`; shape [width]."""
        row = np.full(width, HIDDEN, dtype=np.float32)
        row[: point.num_shared] = 0
        row[slice(*point.own)] = 0
        return row


def lay_out(sequences: Sequence[Sequence[int]]) -> Layout:
    """Lay sequences out, each at least one token long; what two of them share with the longest is there once."""
    spine = max(sequences, key=lambda sequence: len(sequence))
    tokens, positions = list(spine), list(range(len(spine)))
    points: list[Point] = []
    for sequence in sequences:
        shared = _common_length(sequence, spine)
        own = (len(tokens), len(tokens) + len(sequence) - shared)
        points.append(Point(len(sequence), shared, own))
        tokens.extend(sequence[shared:])
        positions.extend(range(shared, len(sequence)))
    return Layout(tuple(tokens), tuple(positions), tuple(points))


def _common_length(first: Sequence[int], second: Sequence[int]) -> int:
    for place, (left, right) in enumerate(zip(first, second, strict=False)):
        if left != right:
            return place
    return min(len(first), len(second))
