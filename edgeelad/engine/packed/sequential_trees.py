"""Generate reasoning trees one after another, for a graph that takes one packed sequence at a time.

A tree is a prompt and its explanation, prefilled once, and the branches sampled from its step prefixes, which share
that KV cache. Also holds what tree generation has in common on any graph (`parallel_trees` runs many at a time).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from edgeelad.engine.generate import GeneratedTokens, Limits, LiveSequence
from edgeelad.engine.packed.buffers import Ints, KeyValueBuffers
from edgeelad.engine.packed.graph import PackedGraph
from edgeelad.engine.packed.group import GROUP_SIZE, Branch, Group, context_feed
from edgeelad.engine.packed.layout import Layout, lay_out
from edgeelad.engine.packed.rows import TopRows
from edgeelad.engine.packed.sequence import choose_next
from edgeelad.engine.sampling import SamplingParams


@dataclass(frozen=True, slots=True)
class TreePlan:
    """A tree to generate.

    Attributes:
        points: Its sequences, each at least one token and shorter than the student's context.
        seeds: Per point the seeds of its branches; empty if only its next token is of interest.
    """

    points: tuple[tuple[int, ...], ...]
    seeds: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, eq=False)
class FinishedTree:
    """Per point its branches, in the order of their seeds, and its next-token distribution."""

    branches: list[tuple[GeneratedTokens, ...]]
    found: TopRows


class SequentialTrees:
    """Generates trees one after another, and reuses one row of buffers for all of them.

    Attributes:
        capacity: Columns per group; more if a context with one branch needs more.
    """

    def __init__(self, graph: PackedGraph, capacity: int) -> None:
        """Allocate nothing until the first tree."""
        self.capacity = capacity
        self._graph = graph
        self._buffers: KeyValueBuffers | None = None

    def drop_buffers(self) -> None:
        """Release the buffers."""
        if self._buffers is not None:
            self._buffers = None
            self._graph.unbind()

    def generate(
        self, plans: Sequence[TreePlan], params: SamplingParams, limits: Limits, kv_bytes: int | None = None
    ) -> list[FinishedTree]:
        """Generate each tree; with `kv_bytes`, keep no buffers larger than a tree needs."""
        return [self._generate(plan, params, limits, may_be_larger=kv_bytes is None) for plan in plans]

    def _generate(self, plan: TreePlan, params: SamplingParams, limits: Limits, *, may_be_larger: bool) -> FinishedTree:
        layout, branches = start_tree(plan, params, limits)
        capacity = max(self.capacity, len(layout.tokens) + params.max_new_tokens)
        buffers = self._reserve(capacity, may_be_larger=may_be_larger)
        # 1. prefill the context, and choose each branch's first token
        (slot,) = self._graph.sequence_slots
        found, *_ = self._graph.run({slot: context_feed(layout, buffers)}, params.num_top)
        sequences, rows = first_token_rows(plan, branches)
        choose_next(sequences, found.take(rows), params, limits)
        # 2. decode the branches that have not ended, group by group
        for own in _divide([branch for branch in branches if branch.sequence.finish_reason is None]):
            group = Group(layout, own, buffers, capacity)
            while not group.is_done:
                following, *_ = self._graph.run({slot: group.feed()}, params.num_top)
                choose_next(group.sequences(), following, params, limits)
                group.drop_ended()
        return gather(plan, branches, found)

    def _reserve(self, capacity: int, *, may_be_larger: bool) -> KeyValueBuffers:
        old = self._buffers
        if old is None or old.capacity < capacity or (old.capacity > capacity and not may_be_larger):
            del old
            self.drop_buffers()  # before the new ones are allocated
            self._buffers = KeyValueBuffers(self._graph.shape, 1, capacity)
        assert self._buffers is not None, "they were just allocated"
        return self._buffers


def _divide(branches: list[Branch]) -> list[list[Branch]]:
    """Divide branches into groups of about the same size."""
    num_groups = -(-len(branches) // GROUP_SIZE)
    ends = [len(branches) * number // num_groups for number in range(num_groups + 1)] if num_groups else []
    return [branches[start:end] for start, end in pairwise(ends)]


def start_tree(plan: TreePlan, params: SamplingParams, limits: Limits) -> tuple[Layout, list[Branch]]:
    """The layout of a tree's context, and its branches, point by point."""
    layout = lay_out(plan.points)
    branches = [
        Branch(point, LiveSequence(seed, min(params.max_new_tokens, limits.max_context - point.length)))
        for point, own in zip(layout.points, plan.seeds, strict=True)
        for seed in own
    ]
    return layout, branches


def first_token_rows(plan: TreePlan, branches: Sequence[Branch]) -> tuple[list[LiveSequence], Ints]:
    """The branches' sequences, and per sequence the row (point) whose distribution gives its first token."""
    counts = [len(own) for own in plan.seeds]
    return [branch.sequence for branch in branches], np.repeat(np.arange(len(counts)), counts)


def gather(plan: TreePlan, branches: Sequence[Branch], found: TopRows) -> FinishedTree:
    """The finished tree, once every branch has ended."""
    results = iter(branch.sequence.result() for branch in branches)
    return FinishedTree([tuple(next(results) for _ in own) for own in plan.seeds], found)
