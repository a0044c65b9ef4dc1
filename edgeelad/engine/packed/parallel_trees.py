"""Generate many reasoning trees at the same time, on a graph with inputs for trees.

A tree's context (prompt and explanation) is prefilled as a packed sequence into buffers of its own. Its branches then
advance together, each with its own KV buffer beside the shared one, so no branch pays for another's tokens, and
branches leave when they end. A branch depends on its tree and on its own tokens alone: neither the division into
groups nor what else runs changes a bit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from edgeelad.engine.generate import Limits, LiveSequence
from edgeelad.engine.packed.buffers import BranchBuffers, BufferPool, KeyValueBuffers
from edgeelad.engine.packed.graph import PackedGraph, TreeFeed
from edgeelad.engine.packed.group import Branch, context_feed
from edgeelad.engine.packed.layout import HIDDEN, Layout
from edgeelad.engine.packed.rows import TopRows
from edgeelad.engine.packed.sequence import choose_next
from edgeelad.engine.packed.sequential_trees import FinishedTree, TreePlan, first_token_rows, gather, start_tree
from edgeelad.engine.sampling import SamplingParams

# KV cache of all trees that run at the same time, unless a limit is given
MAX_TREE_BYTES = 1 << 30
# maximum branches that advance together in one of the graph's trees; a tree with more takes several
MAX_BRANCHES = 32
# a product over one row sums up in another order than one over several: a branch that is alone runs beside a copy
MIN_BRANCHES = 2
# branch buffers grow in steps of this many tokens: no larger than needed, and seldom copied
WIDTH_STEP = 16


@dataclass(slots=True, eq=False)
class _Tree:
    """A tree that is being generated."""

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
        """Maximum tokens in the buffers of its context and its branches."""
        return self.context.capacity + max(self.num_running, 1) * self.max_branches * self.max_width

    def divide(self) -> None:
        """Divide the branches that have not ended into groups."""
        live = [branch for branch in self.branches if branch.sequence.finish_reason is None]
        size = self.max_branches
        self.waiting.extend(live[start : start + size] for start in range(0, len(live), size))

    def result(self) -> FinishedTree:
        """The finished tree."""
        assert self.found is not None, "the context was not fed"
        return gather(self.plan, self.branches, self.found)


class _Group:
    """Branches of one tree that advance together; they have their first tokens."""

    def __init__(self, graph: PackedGraph, tree: _Tree, branches: list[Branch], pool: BufferPool) -> None:
        self.tree = tree
        self.branches = branches
        self._num_cached = 0  # tokens per branch in its buffer
        self._context_positions = np.array(tree.layout.positions, dtype=np.int64)
        rows = max(len(branches), MIN_BRANCHES)
        self._buffers = BranchBuffers(graph.shape, rows, min(WIDTH_STEP, tree.max_width), pool)
        self._arrange()

    def _arrange(self) -> None:
        """Compute each row's branch, bias and position; rows beyond the branches are copies."""
        rows = np.resize(np.arange(len(self.branches)), self._buffers.num_branches)
        num_context = len(self.tree.layout.tokens)
        bias = [self.tree.layout.branch_bias(self.branches[row].point, num_context) for row in rows]
        own = np.where(np.arange(self._buffers.width) < self._num_cached, np.float32(0), HIDDEN)
        self._bias = np.concatenate([np.stack(bias), np.tile(own, (len(rows), 1))], axis=1)[None, :, None]
        self._lengths = np.array([self.branches[row].point.length for row in rows], dtype=np.int64)
        self._rows = rows

    @property
    def sequences(self) -> list[LiveSequence]:
        """The sequences to choose a token for."""
        return [branch.sequence for branch in self.branches]

    def feed(self) -> TreeFeed:
        """The last token of each branch."""
        last = np.array([sequence.ids[-1] for sequence in self.sequences], dtype=np.int64)
        self._bias[..., len(self.tree.layout.tokens) + self._num_cached] = 0
        positions = self._lengths + self._num_cached
        return TreeFeed(
            self.tree.context,
            self._buffers,
            last[self._rows],
            positions,
            self._num_cached,
            self._bias,
            self._context_positions,
        )

    def advance(self) -> None:
        """Remove the branches that ended with the chosen token, and make room for the next."""
        self._num_cached += 1
        live = [row for row, sequence in enumerate(self.sequences) if sequence.finish_reason is None]
        has_left, is_full = len(live) < len(self.branches), self._num_cached == self._buffers.width
        if live and (has_left or is_full):
            width = min(self._buffers.width + (WIDTH_STEP if is_full else 0), self.tree.max_width)
            self._buffers.rebuild(np.resize(live, max(len(live), MIN_BRANCHES)), self._num_cached, width)
        self.branches = [self.branches[row] for row in live]
        if live and (has_left or is_full):
            self._arrange()

    def close(self) -> None:
        """Give the buffers' memory back."""
        self._buffers.close()


class ParallelTrees:
    """Generates trees, and keeps the memory of their KV cache for the next ones."""

    def __init__(self, graph: PackedGraph) -> None:
        """Allocate nothing yet."""
        self._graph = graph
        self._pool = BufferPool(MAX_TREE_BYTES)

    def generate(
        self, plans: Sequence[TreePlan], params: SamplingParams, limits: Limits, kv_bytes: int | None = None
    ) -> list[FinishedTree]:
        """Generate each tree; with `kv_bytes`, as many at the same time as fit in it, and at least one."""
        if not plans:
            return []
        self._pool.max_bytes = MAX_TREE_BYTES if kv_bytes is None else kv_bytes
        results = _Run(self._graph, plans, params, limits, self._pool).run()
        self._graph.unbind()
        return results

    def drop_buffers(self) -> None:
        """Release the memory."""
        self._pool.release_unused()


class _Run:
    """Trees that are generated together."""

    def __init__(
        self, graph: PackedGraph, plans: Sequence[TreePlan], params: SamplingParams, limits: Limits, pool: BufferPool
    ) -> None:
        self._graph, self._params, self._limits, self._pool = graph, params, limits, pool
        self._room = pool.max_bytes // graph.bytes_per_token  # in tokens
        self._pending = deque((index, plan, *start_tree(plan, params, limits)) for index, plan in enumerate(plans))
        self._prefilling: dict[int, _Tree] = {}  # by slot: contexts that the next step computes
        self._trees: list[_Tree] = []  # trees with a context, until they are done
        self._groups: dict[int, _Group] = {}  # by the graph's tree
        self._results: list[FinishedTree | None] = [None] * len(plans)

    def run(self) -> list[FinishedTree]:
        """Generate all of them."""
        while self._pending or self._trees:
            self._start_groups()
            self._admit_trees()
            self._step()
        return [result for result in self._results if result is not None]

    @property
    def _num_reserved(self) -> int:
        return sum(tree.num_reserved for tree in self._trees)

    def _start_groups(self) -> None:
        """Put waiting groups into the graph's free trees; a tree's second group only if both fit in memory."""
        for number in range(1, self._graph.num_trees + 1):
            for tree in self._trees if number not in self._groups else ():
                more = tree.max_branches * tree.max_width if tree.num_running else 0
                if tree.waiting and self._num_reserved + more <= max(self._room, self._num_reserved):
                    self._groups[number] = _Group(self._graph, tree, tree.waiting.popleft(), self._pool)
                    tree.num_running += 1
                    break

    def _admit_trees(self) -> None:
        """Prefill the contexts of as many trees as will find a free place, and of one more."""
        num_free = self._graph.num_trees - len(self._groups)
        for slot in self._graph.sequence_slots:
            num_waiting = sum(len(tree.waiting) for tree in self._trees) + len(self._prefilling)
            if not self._pending or num_waiting >= max(num_free, 1):
                return
            index, plan, layout, branches = self._pending[0]
            num_context, max_width = len(layout.tokens), max(self._params.max_new_tokens - 1, 1)
            fitting = max((self._room - num_context) // max_width, MIN_BRANCHES)
            max_branches = min(max(len(branches), MIN_BRANCHES), MAX_BRANCHES, fitting)
            if self._trees and self._num_reserved + num_context + max_branches * max_width > self._room:
                return
            context = KeyValueBuffers(self._graph.shape, 1, num_context, self._pool)
            self._prefilling[slot] = _Tree(index, plan, layout, branches, context, max_branches, max_width)
            self._trees.append(self._prefilling[slot])
            self._pending.popleft()

    def _step(self) -> None:
        """Decode a token for every running branch, and prefill the new contexts, which gives first tokens."""
        feeds = {slot: context_feed(tree.layout, tree.context) for slot, tree in self._prefilling.items()}
        trees = {number: group.feed() for number, group in self._groups.items()}
        found, slot_starts, tree_starts = self._graph.run(feeds, self._params.num_top, trees)
        sequences: list[LiveSequence] = []
        rows: list[int] = []
        for slot, tree in self._prefilling.items():
            tree.found = found.part(slot_starts[slot], slot_starts[slot] + len(tree.plan.points))
            chosen, own = first_token_rows(tree.plan, tree.branches)
            sequences += chosen
            rows += (own + slot_starts[slot]).tolist()
        for number, group in self._groups.items():
            sequences += group.sequences
            rows += range(tree_starts[number], tree_starts[number] + len(group.branches))
        choose_next(sequences, found.take(np.array(rows, dtype=np.int64)), self._params, self._limits)
        for tree in self._prefilling.values():
            tree.divide()
        for group in self._groups.values():
            group.advance()
        self._finish()

    def _finish(self) -> None:
        """Release the buffers of ended groups and finished trees."""
        done = [number for number, group in self._groups.items() if not group.branches]
        self._graph.release(self._prefilling, done)
        for number in done:
            group = self._groups.pop(number)
            group.tree.num_running -= 1
            group.close()
        self._prefilling.clear()
        for tree in [tree for tree in self._trees if not tree.waiting and not tree.num_running]:
            self._results[tree.index] = tree.result()
            self._trees.remove(tree)
            tree.context.close()
