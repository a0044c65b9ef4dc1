"""Grow many trees at the same time on a graph with room for trees.

A tree's context is computed as a packed sequence and stays where it is; its branches then advance together, each with
its own keys and values in a window beside the context's. No branch pays for another's tokens, and branches leave when
they end. What a branch computes depends on its tree and on its own tokens alone: how branches are divided into groups,
and what else runs, changes no bit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from edgeelad.engine.generate import Limits
from edgeelad.engine.packed.buffers import KeyValueBuffers, Memory, Windows
from edgeelad.engine.packed.graph import HIDDEN, PackedGraph, TreeFeed
from edgeelad.engine.packed.group import Branch, feed_context
from edgeelad.engine.packed.layout import Layout
from edgeelad.engine.packed.rows import TopRows
from edgeelad.engine.packed.sequence import Growing, choose_next
from edgeelad.engine.packed.sequential_trees import GrownTree, TreePlan, choose_for_points, gather, plant
from edgeelad.engine.sampling import SamplingParams

# keys and values of all trees that grow at the same time, where nothing else is said
MAX_GROVE_BYTES = 1 << 30
# branches that advance together in one of the graph's trees; a tree with more takes several
MAX_BRANCHES = 32
# a product over one row takes another way than one over several: a branch that is alone runs beside a copy of itself
MIN_BRANCHES = 2
# windows grow in steps of this many tokens: no larger than needed, and seldom copied
WINDOW_STEP = 16


@dataclass(slots=True, eq=False)
class _Tree:
    """A tree that is being grown."""

    index: int
    plan: TreePlan
    layout: Layout
    branches: list[Branch]
    context: KeyValueBuffers
    max_branches: int
    max_width: int
    found: TopRows | None = None
    waiting: deque[list[Branch]] = field(default_factory=deque)
    num_running: int = 0

    @property
    def num_reserved(self) -> int:
        """Tokens that its context and its windows may come to hold."""
        return self.context.capacity + max(self.num_running, 1) * self.max_branches * self.max_width

    def divide(self) -> None:
        """Divide the branches that have not ended into groups."""
        going = [branch for branch in self.branches if branch.sequence.finish_reason is None]
        size = self.max_branches
        self.waiting.extend(going[start : start + size] for start in range(0, len(going), size))

    def result(self) -> GrownTree:
        """What grew."""
        assert self.found is not None, "the context was not fed"
        return gather(self.plan, self.branches, self.found)


class _Group:
    """Branches of one tree that advance together; they have their first tokens."""

    def __init__(self, graph: PackedGraph, tree: _Tree, branches: list[Branch], memory: Memory) -> None:
        self.tree = tree
        self.branches = branches
        self._age = 0  # tokens in each window
        rows = max(len(branches), MIN_BRANCHES)
        self._windows = Windows(graph, rows, min(WINDOW_STEP, tree.max_width), memory)
        self._arrange()

    def _arrange(self) -> None:
        """Note what each branch sees; a mate sees what its original sees."""
        rows = np.resize(np.arange(len(self.branches)), self._windows.num_branches)
        num_context = len(self.tree.layout.tokens)
        shows = [self.tree.layout.shows(self.branches[row].point, num_context) for row in rows]
        own = np.where(np.arange(self._windows.width) < self._age, np.float32(0), HIDDEN)
        self._bias = np.concatenate([np.stack(shows), np.tile(own, (len(rows), 1))], axis=1)[None, :, None]
        self._lengths = np.array([self.branches[row].point.length for row in rows], dtype=np.int64)
        self._rows = rows

    @property
    def sequences(self) -> list[Growing]:
        """The sequences that a token is to be chosen for."""
        return [branch.sequence for branch in self.branches]

    def feed(self) -> TreeFeed:
        """The last token of each branch."""
        last = np.array([sequence.ids[-1] for sequence in self.sequences], dtype=np.int64)
        self._bias[..., len(self.tree.layout.tokens) + self._age] = 0
        positions = self._lengths + self._age
        return TreeFeed(self.tree.context, self._windows, last[self._rows], positions, self._age, self._bias)

    def advance(self) -> None:
        """Let branches leave that ended with the chosen token, and make room for the next."""
        self._age += 1
        live = [row for row, sequence in enumerate(self.sequences) if sequence.finish_reason is None]
        has_left, is_full = len(live) < len(self.branches), self._age == self._windows.width
        if live and (has_left or is_full):
            width = min(self._windows.width + (WINDOW_STEP if is_full else 0), self.tree.max_width)
            self._windows.rebuild(np.resize(live, max(len(live), MIN_BRANCHES)), self._age, width)
        self.branches = [self.branches[row] for row in live]
        if live and (has_left or is_full):
            self._arrange()

    def close(self) -> None:
        """Give the memory of the windows back."""
        self._windows.close()


class Grove:
    """Grows trees; holds the memory of their keys and values for the next ones."""

    def __init__(self, graph: PackedGraph) -> None:
        """Allocate nothing yet."""
        self._graph = graph
        self._memory = Memory(MAX_GROVE_BYTES)

    def grow(
        self, plans: Sequence[TreePlan], params: SamplingParams, limits: Limits, kv_bytes: int | None = None
    ) -> list[GrownTree]:
        """Grow each planned tree; with `kv_bytes` as many at the same time as have room there, but one at least."""
        if not plans:
            return []
        self._memory.max_bytes = MAX_GROVE_BYTES if kv_bytes is None else kv_bytes
        found = _Growth(self._graph, plans, params, limits, self._memory).run()
        self._graph.unbind()
        return found

    def drop_buffers(self) -> None:
        """Let go of the memory."""
        self._memory.drop()


class _Growth:
    """Trees that grow together, until all have grown."""

    def __init__(
        self, graph: PackedGraph, plans: Sequence[TreePlan], params: SamplingParams, limits: Limits, memory: Memory
    ) -> None:
        self._graph, self._params, self._limits, self._memory = graph, params, limits, memory
        self._room = memory.max_bytes // graph.bytes_per_token  # in tokens
        self._coming = deque((index, plan, *plant(plan, params, limits)) for index, plan in enumerate(plans))
        self._planted: dict[int, _Tree] = {}  # by slot: contexts of the next run
        self._trees: list[_Tree] = []  # with a context, until they are done
        self._groups: dict[int, _Group] = {}  # by the graph's tree
        self._results: list[GrownTree | None] = [None] * len(plans)

    def run(self) -> list[GrownTree]:
        """Grow them all."""
        while self._coming or self._trees:
            self._begin_groups()
            self._plant_trees()
            self._step()
        return [result for result in self._results if result is not None]

    @property
    def _num_reserved(self) -> int:
        return sum(tree.num_reserved for tree in self._trees)

    def _begin_groups(self) -> None:
        """Groups that wait take what is free; a tree's second one only where there is room for both."""
        for number in range(1, self._graph.num_trees + 1):
            for tree in self._trees if number not in self._groups else ():
                more = tree.max_branches * tree.max_width if tree.num_running else 0
                if tree.waiting and self._num_reserved + more <= max(self._room, self._num_reserved):
                    self._groups[number] = _Group(self._graph, tree, tree.waiting.popleft(), self._memory)
                    tree.num_running += 1
                    break

    def _plant_trees(self) -> None:
        """Begin the contexts of trees that will find a place, and of one more."""
        num_free = self._graph.num_trees - len(self._groups)
        for slot in self._graph.sequence_slots:
            num_waiting = sum(len(tree.waiting) for tree in self._trees) + len(self._planted)
            if not self._coming or num_waiting >= max(num_free, 1):
                return
            index, plan, layout, branches = self._coming[0]
            num_context, max_width = len(layout.tokens), max(self._params.max_new_tokens - 1, 1)
            fitting = max((self._room - num_context) // max_width, MIN_BRANCHES)
            max_branches = min(max(len(branches), MIN_BRANCHES), MAX_BRANCHES, fitting)
            if self._trees and self._num_reserved + num_context + max_branches * max_width > self._room:
                return
            context = KeyValueBuffers(self._graph, 1, num_context, self._memory)
            self._planted[slot] = _Tree(index, plan, layout, branches, context, max_branches, max_width)
            self._trees.append(self._planted[slot])
            self._coming.popleft()

    def _step(self) -> None:
        """A token for every branch that runs, and the first tokens of those whose context was planted."""
        feeds = {slot: feed_context(tree.layout, tree.context) for slot, tree in self._planted.items()}
        trees = {number: group.feed() for number, group in self._groups.items()}
        found, slot_starts, tree_starts = self._graph.run(feeds, self._params.num_top, trees)
        sequences: list[Growing] = []
        rows: list[int] = []
        for slot, tree in self._planted.items():
            tree.found = found.part(slot_starts[slot], slot_starts[slot] + len(tree.plan.points))
            chosen, own = choose_for_points(tree.plan, tree.branches)
            sequences += chosen
            rows += (own + slot_starts[slot]).tolist()
        for number, group in self._groups.items():
            sequences += group.sequences
            rows += range(tree_starts[number], tree_starts[number] + len(group.branches))
        choose_next(sequences, found.take(np.array(rows, dtype=np.int64)), self._params, self._limits)
        for tree in self._planted.values():
            tree.divide()
        for group in self._groups.values():
            group.advance()
        done = [number for number, group in self._groups.items() if not group.branches]
        self._graph.release(self._planted, done)
        for number in done:
            group = self._groups.pop(number)
            group.tree.num_running -= 1
            group.close()
        self._planted.clear()
        for tree in [tree for tree in self._trees if not tree.waiting and not tree.num_running]:
            self._results[tree.index] = tree.result()
            self._trees.remove(tree)
            tree.context.close()
