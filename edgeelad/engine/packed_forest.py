"""Grow many trees: as many at a time as the graph has lanes, each over its own buffer; the next takes a free lane."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeelad.engine.generate import GeneratedTokens, Limits
from edgeelad.engine.packed_graph import KeyValueBuffers, PackedGraph, TopRows
from edgeelad.engine.packed_layout import lay_out
from edgeelad.engine.packed_tree import GrowingTree
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
    """Buffers for the trees that grow at the same time.

    Attributes:
        capacity: Columns that a tree may take; a tree that needs more for its context and one branch gets more.
    """

    def __init__(self, graph: PackedGraph, capacity: int) -> None:
        """Allocate nothing yet: the first tree of a lane does."""
        self.capacity = capacity
        self._graph = graph
        self._buffers: dict[int, KeyValueBuffers] = {}

    def grow(self, plans: Sequence[TreePlan], params: SamplingParams, limits: Limits) -> list[GrownTree]:
        """Grow each planned tree."""
        results: dict[int, GrownTree] = {}
        waiting = list(range(len(plans)))[::-1]
        lanes: dict[int, tuple[int, GrowingTree]] = {}
        while waiting or lanes:
            for slot in self._graph.sequence_slots:
                if waiting and slot not in lanes:
                    index = waiting.pop()
                    lanes[slot] = (index, self._plant(slot, plans[index], params, limits))
            found = self._graph.run({slot: tree.feed() for slot, (_, tree) in lanes.items()}, params.num_top)
            for slot, rows in found.items():
                index, tree = lanes[slot]
                tree.accept(rows)
                if tree.is_done:
                    assert tree.found is not None, "a tree that is done was fed its context"
                    results[index] = GrownTree(tree.results(), tree.found)
                    del lanes[slot]
        return [results[index] for index in range(len(plans))]

    def _plant(self, slot: int, plan: TreePlan, params: SamplingParams, limits: Limits) -> GrowingTree:
        layout = lay_out(plan.points)
        capacity = max(self.capacity, len(layout.tokens) + params.max_new_tokens)
        buffers = self._buffers.get(slot)
        if buffers is None or buffers.capacity < capacity:
            buffers = self._buffers[slot] = KeyValueBuffers(self._graph, 1, capacity)
        return GrowingTree(layout, plan.seeds, params, limits, buffers, capacity)
