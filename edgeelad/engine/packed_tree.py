"""One tree: all its branches advance together in one packed sequence over one buffer.

The tree's context (prompt, explanation, and what single branch points have of their own) lies in the buffer once;
every step appends one token of each live branch, in the order in which they came, and each sees its ancestors only.
Branches that end leave; the columns of dead branches are cleared away when they are the greater part. Nothing but the
tree itself decides what is computed when, so a tree's tokens and log-probabilities are the same bits whatever else
the engine does at the same time, has done or will do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeelad.engine.generate import GeneratedTokens, Limits
from edgeelad.engine.packed_graph import HIDDEN, Feed, KeyValueBuffers, TopRows
from edgeelad.engine.packed_layout import Layout, Point
from edgeelad.engine.packed_sequence import Growing, choose_next
from edgeelad.engine.sampling import SamplingParams

MAX_LIVE = 64  # branches that advance together at most: beyond this steps only get longer
MIN_DEAD = 64  # columns worth clearing away


@dataclass(slots=True, eq=False)
class _Branch:
    point: Point
    sequence: Growing
    num_fed: int = 0  # tokens of the sequence that lie in the buffer


class GrowingTree:
    """A tree that is being grown: ask for what to feed, say what came of it, until it is done.

    Attributes:
        found: The next-token distribution of each point, once the context was fed.
    """

    def __init__(
        self,
        layout: Layout,
        seeds: Sequence[Sequence[int]],
        params: SamplingParams,
        limits: Limits,
        buffers: KeyValueBuffers,
        capacity: int,
    ) -> None:
        """Begin a tree.

        Args:
            layout: Its context and its points.
            seeds: For each point the seeds of its branches.
            params: How tokens are chosen.
            limits: What ends a branch.
            buffers: One row of room.
            capacity: How many of the row's columns to use; there is room for the context and a whole branch at least.
        """
        self.found: TopRows | None = None
        self._layout, self._params, self._limits = layout, params, limits
        self._buffers, self._capacity = buffers, capacity
        self._seeds = seeds
        self._branches = [
            _Branch(point, Growing(seed, min(params.max_new_tokens, limits.max_context - point.length)))
            for point, own in zip(layout.points, seeds, strict=True)
            for seed in own
        ]
        self._used = 0  # columns
        self._owners = np.full(capacity, -1, dtype=np.int64)  # the row of the branch of each column
        self._waiting: list[_Branch] = []
        self._group: list[_Branch] = []
        self._shows = np.zeros((0, 0), dtype=np.float32)  # what each branch of the group sees
        self._live = np.arange(0)  # which of the group go on

    @property
    def is_done(self) -> bool:
        """Whether all branches have ended."""
        return self.found is not None and not len(self._live) and not self._waiting

    def results(self) -> list[tuple[GeneratedTokens, ...]]:
        """For each point its branches, in the order of its seeds."""
        assert self.is_done, "some branches have not ended"
        grown = iter(branch.sequence.result() for branch in self._branches)
        return [tuple(next(grown) for _ in own) for own in self._seeds]

    def feed(self) -> Feed:
        """What to run next."""
        if self.found is None:
            return self._context()
        if not len(self._live):
            self._start_group()
        self._make_room()
        return self._step()

    def accept(self, found: TopRows) -> None:
        """Choose tokens from what the last feed gave."""
        if self.found is None:
            self.found = found
            first = np.repeat(np.arange(len(self._seeds)), [len(own) for own in self._seeds])
            sequences = [branch.sequence for branch in self._branches]
            choose_next(sequences, found.take(first), self._params, self._limits)
            self._waiting = [branch for branch in self._branches if branch.sequence.finish_reason is None]
            return
        choose_next([self._group[row].sequence for row in self._live], found, self._params, self._limits)
        self._live = self._live[[self._group[row].sequence.finish_reason is None for row in self._live]]

    @property
    def _num_context(self) -> int:
        return len(self._layout.tokens)

    def _context(self) -> Feed:
        layout = self._layout
        return Feed(
            self._buffers,
            (0, 1),
            np.array([layout.tokens], dtype=np.int64),
            np.array([layout.positions], dtype=np.int64),
            np.zeros(1, dtype=np.int32),
            layout.bias(),
            np.array([point.end for point in layout.points], dtype=np.int64),
        )

    def _start_group(self) -> None:
        """Take the next waiting branches; what they see, over the tree's context alone."""
        self._group, self._waiting = self._waiting[:MAX_LIVE], self._waiting[MAX_LIVE:]
        self._live = np.arange(len(self._group))
        self._shows = np.stack([self._layout.shows(branch.point, self._capacity) for branch in self._group])
        self._used = self._num_context
        for branch in self._group:
            branch.num_fed = 0

    def _make_room(self) -> None:
        """Clear dead columns away where there are many or there is no room; set branches aside where that is all."""
        while True:
            branches = [self._group[row] for row in self._live]
            needed = sum(len(branch.sequence.ids) - branch.num_fed for branch in branches)
            num_live = sum(branch.num_fed for branch in branches)
            num_dead = self._used - self._num_context - num_live
            is_full = self._used + needed > self._capacity
            if (is_full and num_dead) or num_dead >= max(MIN_DEAD, num_live):
                self._clear()
            if self._used + needed <= self._capacity:
                return
            # half of them go on; the others start over, from their own tokens, when these have ended
            half = (len(branches) + 1) // 2
            assert half < len(branches), "there is room for the context and one branch"
            self._live = self._live[:half]
            self._waiting = branches[half:] + self._waiting

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

    def _step(self) -> Feed:
        """Each live branch's tokens that the buffer does not hold: one, or all of a branch that starts over."""
        tokens: list[int] = []
        positions: list[int] = []
        counts: list[int] = []
        for row in self._live:
            branch = self._group[row]
            fresh = branch.sequence.ids[branch.num_fed :]
            first = branch.point.length + branch.num_fed
            tokens.extend(fresh)
            positions.extend(range(first, first + len(fresh)))
            counts.append(len(fresh))
            branch.num_fed += len(fresh)
        owners = np.repeat(self._live, counts)
        past, total = self._used, self._used + len(tokens)
        self._owners[past:total] = owners
        self._shows[owners, np.arange(past, total)] = 0
        self._used = total
        return Feed(
            self._buffers,
            (0, 1),
            np.array([tokens], dtype=np.int64),
            np.array([positions], dtype=np.int64),
            np.array([past], dtype=np.int32),
            self._shows[owners, :total][None, None],
            np.cumsum(counts, dtype=np.int64) - 1,
        )
