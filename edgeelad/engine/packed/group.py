"""Branches of one tree that advance together, as one packed sequence over one KV buffer.

The tree's context (prompt, explanation, and the extra tokens of single branch points) lies in the buffer once. Every
step appends one token per live branch, and each token attends to its ancestors only. Ended branches leave; the columns
of dead branches are cleared once they outnumber the live ones. The group alone decides what is computed when, so its
tokens and log-probabilities have the same bits whatever else the engine runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeelad.engine.generate import LiveSequence
from edgeelad.engine.packed.buffers import Ints, KeyValueBuffers
from edgeelad.engine.packed.graph import Feed
from edgeelad.engine.packed.layout import HIDDEN, Layout, Point

# Maximum branches per group: each step appends a column per branch, and every branch attends over all columns. Smaller
# groups need more copies of the context; 5 to 64 were measured, and made little difference.
GROUP_SIZE = 32
MIN_DEAD = 64  # fewer dead columns than this are not cleared


@dataclass(frozen=True, slots=True, eq=False)
class Branch:
    """A sequence that starts at a point of the tree's context."""

    point: Point
    sequence: LiveSequence


def context_feed(layout: Layout, buffers: KeyValueBuffers) -> Feed:
    """The tokens of a tree's context; requests the next-token distribution of each of its points."""
    return Feed(
        buffers,
        (0, 1),
        np.array([layout.tokens], dtype=np.int64),
        np.array([layout.positions], dtype=np.int64),
        np.zeros(1, dtype=np.int32),
        layout.bias(),
        np.array([point.end for point in layout.points], dtype=np.int64),
        np.array(layout.positions, dtype=np.int64),
    )


class Group:
    """Branches that have their first tokens and need more."""

    def __init__(self, layout: Layout, branches: list[Branch], buffers: KeyValueBuffers, capacity: int) -> None:
        """Start a group.

        Args:
            layout: The tree's context, which `buffers` already holds.
            branches: At most GROUP_SIZE.
            buffers: One row.
            capacity: Columns of the row to use, enough for the context and one whole branch.
        """
        self._layout, self._buffers, self._capacity = layout, buffers, capacity
        self._num_context = len(layout.tokens)
        self._aside: list[Branch] = []  # branches without room; they start over when the others have ended
        self._begin(branches)

    def _begin(self, branches: list[Branch]) -> None:
        self._branches = branches
        self._used = self._num_context
        self._live: Ints = np.arange(len(branches))
        self._lengths = np.array([branch.point.length for branch in branches], dtype=np.int64)
        self._num_fed = np.zeros(len(branches), dtype=np.int64)  # of each branch's tokens
        self._bias = np.stack([self._layout.branch_bias(branch.point, self._capacity) for branch in branches])
        self._owners = np.full(self._capacity, -1, dtype=np.int64)  # the branch of each column
        self._positions = np.zeros(self._capacity, dtype=np.int64)  # of each column's token
        self._positions[: self._num_context] = self._layout.positions

    @property
    def is_done(self) -> bool:
        """Whether all branches have ended."""
        return not len(self._live)

    def sequences(self) -> list[LiveSequence]:
        """The sequences to choose a token for, in the order of the last feed's rows."""
        return [self._branches[row].sequence for row in self._live]

    def drop_ended(self) -> None:
        """Remove the branches that ended with their last token."""
        self._live = self._live[[sequence.finish_reason is None for sequence in self.sequences()]]
        if self.is_done and self._aside:
            branches, self._aside = self._aside, []
            self._begin(branches)

    def feed(self) -> Feed:
        """The tokens of each live branch that the buffer lacks: one, or all of them for a branch that starts over."""
        counts = self._make_room()
        ids = [self._branches[row].sequence.ids for row in self._live]
        if (counts == 1).all():
            tokens = np.array([own[-1] for own in ids], dtype=np.int64)
            owners, positions = self._live, self._lengths[self._live] + self._num_fed[self._live]
        else:
            tokens = np.concatenate([own[len(own) - count :] for own, count in zip(ids, counts, strict=True)])
            owners = np.repeat(self._live, counts)
            places = np.concatenate([np.arange(count) for count in counts])
            positions = self._lengths[owners] + self._num_fed[owners] + places
        past, total = self._used, self._used + len(tokens)
        self._owners[past:total] = owners
        self._positions[past:total] = positions
        self._bias[owners, np.arange(past, total)] = 0
        self._num_fed[self._live] += counts
        self._used = total
        bias = self._bias[owners, :total][None, None]
        wanted = np.cumsum(counts) - 1
        return Feed(
            self._buffers,
            (0, 1),
            tokens[None],
            positions[None],
            np.array([past], np.int32),
            bias,
            wanted,
            self._positions[:total],
        )

    def _make_room(self) -> Ints:
        """Clear dead columns if there are many or the buffer is full; set half of the branches aside if it still is.

        Returns:
            The number of tokens to feed per live branch.
        """
        while True:
            counts = np.array([len(sequence.ids) for sequence in self.sequences()]) - self._num_fed[self._live]
            num_live = int(self._num_fed[self._live].sum())
            num_dead = self._used - self._num_context - num_live
            is_full = self._used + int(counts.sum()) > self._capacity
            if (is_full and num_dead) or num_dead >= max(MIN_DEAD, num_live):
                self._clear()
            if self._used + int(counts.sum()) <= self._capacity:
                return counts
            half = (len(self._live) + 1) // 2
            assert half < len(self._live), "there is room for the context and one branch"
            self._aside = [self._branches[row] for row in self._live[half:]] + self._aside
            self._live = self._live[:half]

    def _clear(self) -> None:
        """Move the columns of live branches together, in their order."""
        first = self._num_context
        own = np.arange(first, self._used)
        kept = own[np.isin(self._owners[own], self._live)]
        stop = first + len(kept)
        self._buffers.keep_columns(0, first, kept)
        self._bias[:, first:stop] = self._bias[:, kept]
        self._bias[:, stop : self._used] = HIDDEN
        self._owners[first:stop] = self._owners[kept]
        self._positions[first:stop] = self._positions[kept]
        self._used = stop
