"""Branches of one tree that advance together, in one packed sequence over one buffer.

The tree's context (prompt, explanation, and what single branch points have of their own) lies in the buffer once;
every step appends one token of each live branch, in the order in which they came, and each sees its ancestors only.
Branches that end leave; the columns of dead branches are cleared away when they are the greater part. Nothing but the
group itself decides what is computed when, so its tokens and log-probabilities are the same bits whatever else the
engine does at the same time, has done or will do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeelad.engine.packed.buffers import Ints, KeyValueBuffers
from edgeelad.engine.packed.graph import HIDDEN, Feed
from edgeelad.engine.packed.layout import Layout, Point
from edgeelad.engine.packed.sequence import Growing

# Branches that advance together at most: each step appends a column for each of them, and all pay for all columns.
# Smaller groups need more copies of the context; 5 to 64 were measured, and made little difference.
GROUP_SIZE = 32
MIN_DEAD = 64  # columns worth clearing away


@dataclass(frozen=True, slots=True, eq=False)
class Branch:
    """A sequence that starts at a point of the tree's context."""

    point: Point
    sequence: Growing


def feed_context(layout: Layout, buffers: KeyValueBuffers) -> Feed:
    """A tree's context; the next-token distribution of each of its points is wanted."""
    return Feed(
        buffers,
        (0, 1),
        np.array([layout.tokens], dtype=np.int64),
        np.array([layout.positions], dtype=np.int64),
        np.zeros(1, dtype=np.int32),
        layout.bias(),
        np.array([point.end for point in layout.points], dtype=np.int64),
    )


class Group:
    """Branches that have their first tokens and go on from there."""

    def __init__(self, layout: Layout, branches: list[Branch], buffers: KeyValueBuffers, capacity: int) -> None:
        """Begin a group.

        Args:
            layout: The tree's context, which `buffers` holds already.
            branches: At most GROUP_SIZE.
            buffers: One row of room.
            capacity: How many of the row's columns to use; there is room for the context and a whole branch at least.
        """
        self._layout, self._buffers, self._capacity = layout, buffers, capacity
        self._num_context = len(layout.tokens)
        self._aside: list[Branch] = []  # set aside for want of room; they start over when the others have ended
        self._begin(branches)

    def _begin(self, branches: list[Branch]) -> None:
        self._branches = branches
        self._used = self._num_context
        self._live: Ints = np.arange(len(branches))
        self._lengths = np.array([branch.point.length for branch in branches], dtype=np.int64)
        self._num_fed = np.zeros(len(branches), dtype=np.int64)  # of each branch's tokens
        self._shows = np.stack([self._layout.shows(branch.point, self._capacity) for branch in branches])
        self._owners = np.full(self._capacity, -1, dtype=np.int64)  # the branch of each column

    @property
    def is_done(self) -> bool:
        """Whether no branch goes on."""
        return not len(self._live)

    def sequences(self) -> list[Growing]:
        """The sequences that a token is to be chosen for, as the last feed wanted them."""
        return [self._branches[row].sequence for row in self._live]

    def drop_ended(self) -> None:
        """Let branches leave that ended with the last token."""
        self._live = self._live[[sequence.finish_reason is None for sequence in self.sequences()]]
        if self.is_done and self._aside:
            branches, self._aside = self._aside, []
            self._begin(branches)

    def feed(self) -> Feed:
        """Each live branch's tokens that the buffer does not hold: one, or all of a branch that starts over."""
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
        self._shows[owners, np.arange(past, total)] = 0
        self._num_fed[self._live] += counts
        self._used = total
        bias = self._shows[owners, :total][None, None]
        wanted = np.cumsum(counts) - 1
        return Feed(self._buffers, (0, 1), tokens[None], positions[None], np.array([past], np.int32), bias, wanted)

    def _make_room(self) -> Ints:
        """Clear dead columns away where there are many or there is no room; set branches aside where that is all.

        Returns:
            How many tokens each live branch is to be fed.
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
        self._shows[:, first:stop] = self._shows[:, kept]
        self._shows[:, stop : self._used] = HIDDEN
        self._owners[first:stop] = self._owners[kept]
        self._used = stop
