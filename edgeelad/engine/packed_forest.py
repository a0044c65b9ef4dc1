"""Grow many trees, group by group, each group in a lane of the graph.

A tree's context is computed in one lane, its home; groups of its branches then run there and in other lanes, which get
a copy of the context's keys and values. A lane that is free takes a group that waits, or else the next tree.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from edgeelad.engine.generate import GeneratedTokens, Limits
from edgeelad.engine.packed_graph import Feed, Ints, KeyValueBuffers, PackedGraph, TopRows
from edgeelad.engine.packed_layout import Layout, lay_out
from edgeelad.engine.packed_sequence import Growing, choose_next
from edgeelad.engine.packed_tree import GROUP_SIZE, Branch, Group, feed_context
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


@dataclass(slots=True, eq=False)
class _Tree:
    """A tree that is being grown: first its context, then its branches in groups."""

    index: int
    plan: TreePlan
    layout: Layout
    branches: list[Branch]
    home: KeyValueBuffers
    capacity: int
    found: TopRows | None = None
    waiting: deque[list[Branch]] = field(default_factory=deque)  # groups that have not begun

    def divide(self) -> None:
        """Divide the branches that have not ended into groups of about the same size."""
        going = [branch for branch in self.branches if branch.sequence.finish_reason is None]
        num_groups = max(-(-len(going) // GROUP_SIZE), 1)
        ends = [len(going) * number // num_groups for number in range(num_groups + 1)]
        self.waiting.extend(going[start:end] for start, end in pairwise(ends) if end > start)

    def result(self) -> GrownTree:
        """What grew."""
        assert self.found is not None, "the context was not fed"
        grown = iter(branch.sequence.result() for branch in self.branches)
        return GrownTree([tuple(next(grown) for _ in own) for own in self.plan.seeds], self.found)


@dataclass(slots=True, eq=False)
class _Lane:
    """What a lane is busy with: a tree's context (no group yet), or a group of its branches."""

    tree: _Tree
    group: Group | None = None

    def feed(self) -> Feed:
        return feed_context(self.tree.layout, self.tree.home) if self.group is None else self.group.feed()

    def choices(self) -> tuple[list[Growing], Ints]:
        """The sequences to choose tokens for, and which of the lane's distributions is whose."""
        if self.group is not None:
            sequences = self.group.sequences()
            return sequences, np.arange(len(sequences))
        return choose_for_points(self.tree.plan, self.tree.branches)


class Forest:
    """Buffers for the groups that run at the same time.

    Attributes:
        capacity: Columns that a group may take; one whose context and one branch need more gets more.
    """

    def __init__(self, graph: PackedGraph, capacity: int) -> None:
        """Allocate nothing yet: a lane's first group does."""
        self.capacity = capacity
        self._graph = graph
        self._buffers: dict[int, KeyValueBuffers] = {}

    def drop_buffers(self) -> None:
        """Let go of all buffers."""
        if self._buffers:
            self._buffers.clear()
            self._graph.unbind()

    def grow(
        self, plans: Sequence[TreePlan], params: SamplingParams, limits: Limits, kv_bytes: int | None = None
    ) -> list[GrownTree]:
        """Grow each planned tree; with `kv_bytes` in as many lanes as have room there, but one at least."""
        slots = self._slots(plans, params, kv_bytes)
        results: dict[int, GrownTree] = {}
        coming = deque(enumerate(plans))
        trees: list[_Tree] = []  # with groups that wait, in the order in which they began
        lanes: dict[int, _Lane] = {}
        while len(results) < len(plans):
            # 1. work for free lanes
            for slot in slots:
                if slot not in lanes and trees:
                    lanes[slot] = self._begin_group(slot, trees)
                elif slot not in lanes and coming:
                    lanes[slot] = _Lane(self._plant(slot, *coming.popleft(), params, limits))
            # 2. a token for every branch
            self._step(lanes, params, limits)
            # 3. contexts have become groups that wait; groups that have ended leave their lanes
            for slot, lane in list(lanes.items()):
                tree = lane.tree
                if lane.group is not None and not lane.group.is_done:
                    continue
                del lanes[slot]
                if lane.group is None and tree.waiting:
                    trees.append(tree)
                elif not tree.waiting and tree not in [other.tree for other in lanes.values()]:
                    results[tree.index] = tree.result()
        return [results[index] for index in range(len(plans))]

    def _step(self, lanes: Mapping[int, _Lane], params: SamplingParams, limits: Limits) -> None:
        """Run all lanes, and choose the next token of each of their sequences."""
        feeds = {slot: lane.feed() for slot, lane in lanes.items()}
        found, starts, _ = self._graph.run(feeds, params.num_top)
        chosen = [lane.choices() for lane in lanes.values()]
        rows = np.concatenate([own + starts[slot] for slot, (_, own) in zip(lanes, chosen, strict=True)])
        choose_next([sequence for own, _ in chosen for sequence in own], found.take(rows), params, limits)
        for slot, lane in lanes.items():
            if lane.group is not None:
                lane.group.drop_ended()
            else:
                lane.tree.found = found.part(starts[slot], starts[slot] + len(feeds[slot].wanted))
                lane.tree.divide()

    def _begin_group(self, slot: int, trees: list[_Tree]) -> _Lane:
        """Begin a waiting group: of the tree that is at home in the lane, whose context must stay there, or of any."""
        buffers = self._buffers.get(slot)
        tree = next((tree for tree in trees if tree.home is buffers), trees[0])
        buffers = self._room(slot, tree.capacity)
        if buffers is not tree.home:
            buffers.copy_row(tree.home, len(tree.layout.tokens))
        group = Group(tree.layout, tree.waiting.popleft(), buffers, tree.capacity)
        if not tree.waiting:
            trees.remove(tree)
        return _Lane(tree, group)

    def _slots(self, plans: Sequence[TreePlan], params: SamplingParams, kv_bytes: int | None) -> Sequence[int]:
        """The lanes to use; with a limit, buffers from before that do not keep to it are let go of."""
        slots = self._graph.sequence_slots
        if kv_bytes is None or not plans:
            return slots
        longest = max(len(lay_out(plan.points).tokens) for plan in plans)
        capacity = max(self.capacity, longest + params.max_new_tokens)
        slots = slots[: max(kv_bytes // (capacity * self._graph.bytes_per_token), 1)]
        if any(slot not in slots or own.capacity > capacity for slot, own in self._buffers.items()):
            self.drop_buffers()
        return slots

    def _plant(self, slot: int, index: int, plan: TreePlan, params: SamplingParams, limits: Limits) -> _Tree:
        layout, branches = plant(plan, params, limits)
        capacity = max(self.capacity, len(layout.tokens) + params.max_new_tokens)
        return _Tree(index, plan, layout, branches, self._room(slot, capacity), capacity)

    def _room(self, slot: int, capacity: int) -> KeyValueBuffers:
        buffers = self._buffers.get(slot)
        if buffers is None or buffers.capacity < capacity:
            buffers = self._buffers[slot] = KeyValueBuffers(self._graph, 1, capacity)
        return buffers


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
