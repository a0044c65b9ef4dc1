"""Grow trees on a graph that takes one packed sequence at a time: a tree's context, then its branches group by group.

Also what growing is on any graph (`packed_grove` grows many at a time): plans, their branches, what is gathered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from edgeelad.engine.generate import GeneratedTokens, Limits
from edgeelad.engine.packed.buffers import Ints, KeyValueBuffers
from edgeelad.engine.packed.graph import PackedGraph
from edgeelad.engine.packed.group import GROUP_SIZE, Branch, Group, feed_context
from edgeelad.engine.packed.layout import Layout, lay_out
from edgeelad.engine.packed.rows import TopRows
from edgeelad.engine.packed.sequence import Growing, choose_next
from edgeelad.engine.sampling import SamplingParams


@dataclass(frozen=True, slots=True)
class TreePlan:
    """What to grow.

    Attributes:
        points: Sequences of one tree, each at least one token and shorter than the student's context.
        seeds: For each point the seeds of its branches; none where only its next token is of interest.
    """

    points: tuple[tuple[int, ...], ...]
    seeds: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, eq=False)
class GrownTree:
    """For each point its branches, in the order of its seeds, and its next-token distribution."""

    branches: list[tuple[GeneratedTokens, ...]]
    found: TopRows


class Forest:
    """Grows trees one after another, in one row of buffers that it keeps from tree to tree.

    Attributes:
        capacity: Columns that a group may take; one whose context and one branch need more gets more.
    """

    def __init__(self, graph: PackedGraph, capacity: int) -> None:
        """Allocate nothing yet: the first tree does."""
        self.capacity = capacity
        self._graph = graph
        self._buffers: KeyValueBuffers | None = None

    def drop_buffers(self) -> None:
        """Let go of the buffers."""
        if self._buffers is not None:
            self._buffers = None
            self._graph.unbind()

    def grow(
        self, plans: Sequence[TreePlan], params: SamplingParams, limits: Limits, kv_bytes: int | None = None
    ) -> list[GrownTree]:
        """Grow each planned tree; with `kv_bytes` no buffers are kept that are larger than a tree needs."""
        return [self._grow(plan, params, limits, may_be_larger=kv_bytes is None) for plan in plans]

    def _grow(self, plan: TreePlan, params: SamplingParams, limits: Limits, *, may_be_larger: bool) -> GrownTree:
        layout, branches = plant(plan, params, limits)
        capacity = max(self.capacity, len(layout.tokens) + params.max_new_tokens)
        buffers = self._room(capacity, may_be_larger=may_be_larger)
        # 1. the context, and each branch's first token
        (slot,) = self._graph.sequence_slots
        found, *_ = self._graph.run({slot: feed_context(layout, buffers)}, params.num_top)
        sequences, rows = choose_for_points(plan, branches)
        choose_next(sequences, found.take(rows), params, limits)
        # 2. the branches that go on, group by group
        for own in _divide([branch for branch in branches if branch.sequence.finish_reason is None]):
            group = Group(layout, own, buffers, capacity)
            while not group.is_done:
                following, *_ = self._graph.run({slot: group.feed()}, params.num_top)
                choose_next(group.sequences(), following, params, limits)
                group.drop_ended()
        return gather(plan, branches, found)

    def _room(self, capacity: int, *, may_be_larger: bool) -> KeyValueBuffers:
        old = self._buffers
        if old is None or old.capacity < capacity or (old.capacity > capacity and not may_be_larger):
            del old
            self.drop_buffers()  # before the new ones are made
            self._buffers = KeyValueBuffers(self._graph, 1, capacity)
        assert self._buffers is not None, "they were just made"
        return self._buffers


def _divide(branches: list[Branch]) -> list[list[Branch]]:
    """Groups of about the same size."""
    num_groups = -(-len(branches) // GROUP_SIZE)
    ends = [len(branches) * number // num_groups for number in range(num_groups + 1)] if num_groups else []
    return [branches[start:end] for start, end in pairwise(ends)]


def plant(plan: TreePlan, params: SamplingParams, limits: Limits) -> tuple[Layout, list[Branch]]:
    """The context of a planned tree, and its branches, point after point."""
    layout = lay_out(plan.points)
    branches = [
        Branch(point, Growing(seed, min(params.max_new_tokens, limits.max_context - point.length)))
        for point, own in zip(layout.points, plan.seeds, strict=True)
        for seed in own
    ]
    return layout, branches


def choose_for_points(plan: TreePlan, branches: Sequence[Branch]) -> tuple[list[Growing], Ints]:
    """The branches' sequences, and which of the points' distributions each takes its first token from."""
    counts = [len(own) for own in plan.seeds]
    return [branch.sequence for branch in branches], np.repeat(np.arange(len(counts)), counts)


def gather(plan: TreePlan, branches: Sequence[Branch], found: TopRows) -> GrownTree:
    """What grew, once every branch has ended."""
    grown = iter(branch.sequence.result() for branch in branches)
    return GrownTree([tuple(next(grown) for _ in own) for own in plan.seeds], found)
