"""Grow all branches of one tree together, in one packed sequence over one buffer.

The tree's context (prompt, explanation, and what single branch points have of their own) lies in the buffer once;
every step appends one token of each live branch, in the order in which they came, and each sees its ancestors only.
Branches that end leave; the columns of dead branches are cleared away when they are the greater part. Nothing but the
tree itself decides what is computed when, so a tree's tokens and log-probabilities are the same bits whatever else
the engine has done or will do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeelad.engine.generate import GeneratedTokens, Limits
from edgeelad.engine.packed_graph import HIDDEN, Floats, Ints, KeyValueBuffers, PackedGraph, TopRows
from edgeelad.engine.packed_layout import Layout, Point, lay_out
from edgeelad.engine.packed_sequence import Growing, choose_next
from edgeelad.engine.sampling import SamplingParams

MAX_LIVE = 64  # branches that advance together at most: beyond this steps only get longer
MIN_DEAD = 64  # columns worth clearing away
DEFAULT_CAPACITY = 2048


@dataclass(slots=True, eq=False)
class _Branch:
    point: Point
    sequence: Growing
    num_fed: int = 0  # tokens of the sequence that lie in the buffer


class TreeGrower:
    """Grows trees, one after another, over one buffer.

    Attributes:
        capacity: Columns that a tree may take; a tree that needs more for a single branch gets more.
    """

    def __init__(self, graph: PackedGraph, capacity: int = DEFAULT_CAPACITY) -> None:
        """Allocate nothing yet: the first tree does."""
        self.capacity = capacity
        self._graph = graph
        self._buffers: KeyValueBuffers | None = None
        self._shows = np.zeros((0, 0), dtype=np.float32)

    def grow(
        self,
        points: Sequence[Sequence[int]],
        seeds: Sequence[Sequence[int]],
        params: SamplingParams,
        limits: Limits,
    ) -> tuple[list[list[GeneratedTokens]], TopRows]:
        """Generate from the end of each point once a seed.

        Args:
            points: Sequences of one tree, each at least one token and shorter than the student's context.
            seeds: For each point the seeds of its branches; none where only its next token is of interest.
            params: How tokens are chosen.
            limits: What ends a branch.

        Returns:
            For each point its branches, in the order of its seeds; and the next-token distribution of each point.
        """
        layout = lay_out(points)
        capacity = max(self.capacity, len(layout.tokens) + params.max_new_tokens)
        buffers = self._room(capacity)
        found = self._graph.run(
            buffers,
            (0, 1),
            np.array([layout.tokens], dtype=np.int64),
            np.array([layout.positions], dtype=np.int64),
            np.zeros(1, dtype=np.int32),
            layout.bias(),
            np.array([point.end for point in layout.points], dtype=np.int64),
            num_top=params.num_top,
        )
        branches = [
            _Branch(point, Growing(seed, min(params.max_new_tokens, limits.max_context - point.length)))
            for point, own in zip(layout.points, seeds, strict=True)
            for seed in own
        ]
        first = np.repeat(np.arange(len(points)), [len(own) for own in seeds])
        choose_next([branch.sequence for branch in branches], found.take(first), params, limits)
        waiting = [branch for branch in branches if branch.sequence.finish_reason is None]
        while waiting:
            group = _Group(self._graph, buffers, capacity, layout, self._shows)
            waiting = group.run(waiting[:MAX_LIVE], params, limits) + waiting[MAX_LIVE:]
        results = iter(branch.sequence.result() for branch in branches)
        return [[next(results) for _ in own] for own in seeds], found

    def _room(self, capacity: int) -> KeyValueBuffers:
        if self._buffers is None or self._buffers.capacity < capacity:
            self._buffers = KeyValueBuffers(self._graph, 1, capacity)
            self._shows = np.zeros((MAX_LIVE, capacity), dtype=np.float32)
        return self._buffers


class _Group:
    """Branches of one tree that advance together, over the columns after the tree's context."""

    def __init__(
        self, graph: PackedGraph, buffers: KeyValueBuffers, capacity: int, layout: Layout, shows: Floats
    ) -> None:
        self._graph, self._buffers, self._capacity = graph, buffers, capacity
        self._layout = layout
        self._num_context = self._used = len(layout.tokens)
        self._shows = shows  # what each branch sees: one row a branch
        self._owners = np.full(capacity, -1, dtype=np.int64)  # the branch of each column

    def run(self, branches: list[_Branch], params: SamplingParams, limits: Limits) -> list[_Branch]:
        """Grow branches to their ends; gives those that had to be set aside for want of room."""
        for row, branch in enumerate(branches):
            branch.num_fed = 0
            self._shows[row, : self._capacity] = self._layout.shows(branch.point, self._capacity)
        live = np.arange(len(branches))
        aside: list[_Branch] = []
        while len(live):
            live, left = self._make_room(branches, live)
            aside = [branches[row] for row in left] + aside
            found = self._feed(branches, live, params)
            choose_next([branches[row].sequence for row in live], found, params, limits)
            live = live[[branches[row].sequence.finish_reason is None for row in live]]
        return aside

    def _make_room(self, branches: list[_Branch], live: Ints) -> tuple[Ints, Ints]:
        """Clear dead columns away, if there are many or there is no room; gives who goes on and who is set aside."""
        needed = sum(len(branches[row].sequence.ids) - branches[row].num_fed for row in live)
        num_live = sum(branches[row].num_fed for row in live)
        num_dead = self._used - self._num_context - num_live
        is_full = self._used + needed > self._capacity
        if (is_full and num_dead) or num_dead >= max(MIN_DEAD, num_live):
            self._clear(live)
        if self._used + needed <= self._capacity:
            return live, live[:0]
        # half of them go on; the others start over, from their own tokens, when these have ended
        kept, left = live[: (len(live) + 1) // 2], live[(len(live) + 1) // 2 :]
        assert len(left), "the capacity has room for the context and one branch"
        kept, more = self._make_room(branches, kept)
        return kept, np.concatenate([more, left])

    def _clear(self, live: Ints) -> None:
        """Move the columns of live branches together, in their order."""
        own = np.arange(self._num_context, self._used)
        kept = own[np.isin(self._owners[own], live)]
        columns = np.concatenate([np.arange(self._num_context), kept])
        stop = len(columns)
        for array in self._buffers.arrays:
            array[0, :, self._num_context : stop] = array[0][:, kept]
        self._shows[:, self._num_context : stop] = self._shows[:, kept]
        self._shows[:, stop : self._used] = HIDDEN
        self._owners[self._num_context : stop] = self._owners[kept]
        self._used = stop

    def _feed(self, branches: list[_Branch], live: Ints, params: SamplingParams) -> TopRows:
        """Feed each live branch the tokens that the buffer does not hold; gives their next-token distributions."""
        tokens: list[int] = []
        positions: list[int] = []
        counts: list[int] = []
        for row in live:
            branch = branches[row]
            fresh = branch.sequence.ids[branch.num_fed :]
            first = branch.point.length + branch.num_fed
            tokens.extend(fresh)
            positions.extend(range(first, first + len(fresh)))
            counts.append(len(fresh))
            branch.num_fed += len(fresh)
        owners = np.repeat(live, counts)
        columns = np.arange(self._used, self._used + len(tokens))
        self._owners[columns] = owners
        self._shows[owners, columns] = 0
        total = self._used + len(tokens)
        found = self._graph.run(
            self._buffers,
            (0, 1),
            np.array([tokens], dtype=np.int64),
            np.array([positions], dtype=np.int64),
            np.array([self._used], dtype=np.int32),
            self._shows[owners, :total][None, None],
            np.cumsum(counts, dtype=np.int64) - 1,
            num_top=params.num_top,
        )
        self._used = total
        return found
