"""Lay out the sequences of one tree as one packed sequence in which shared prefixes occur once.

A column of the packed sequence holds one token. The longest sequence takes the first columns; every other one shares
its common prefix with it and appends the rest. The attention bias hides the columns that are not a token's ancestors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeelad.engine.packed.buffers import Floats

# bias of a hidden column: finite, and so low that its probability is exactly 0
HIDDEN = np.float32(np.finfo(np.float32).min)


@dataclass(frozen=True, slots=True)
class Point:
    """The end of one sequence, where branches start.

    Attributes:
        length: Tokens of the sequence.
        num_shared: Number of its tokens that are the first columns of the longest sequence.
        own: Start and end (exclusive) of the columns that follow these.
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
        points: One per sequence.
    """

    tokens: tuple[int, ...]
    positions: tuple[int, ...]
    points: tuple[Point, ...]

    def bias(self) -> Floats:
        """Attention bias within the context, 0 or `HIDDEN`, shape [1, 1, columns, columns].

        Columns to the right are left to causal attention.
        """
        bias = np.zeros((len(self.tokens), len(self.tokens)), dtype=np.float32)
        for point in self.points:
            bias[slice(*point.own), point.num_shared : point.own[0]] = HIDDEN
        return bias[None, None]

    def branch_bias(self, point: Point, width: int) -> Floats:
        """Attention bias of a branch at `point`: 0 for its ancestors, else `HIDDEN`; shape [width]."""
        row = np.full(width, HIDDEN, dtype=np.float32)
        row[: point.num_shared] = 0
        row[slice(*point.own)] = 0
        return row


def lay_out(sequences: Sequence[Sequence[int]]) -> Layout:
    """Lay out sequences, each at least one token long; a prefix shared with the longest occurs once."""
    longest = max(sequences, key=lambda sequence: len(sequence))
    tokens, positions = list(longest), list(range(len(longest)))
    points: list[Point] = []
    for sequence in sequences:
        shared = _common_length(sequence, longest)
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
