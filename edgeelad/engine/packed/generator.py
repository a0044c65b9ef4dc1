"""The fast token generator: packed reasoning trees and ragged batches on the engine's graph.

A `generate.TokenGenerator`: the same tokens as `reference.generate_one` defines, and for each sequence or tree the same
bits, whatever else is generated, in whichever order and batch. Sequences of `generate` run as a ragged batch with
continuous admission; the trees of `grow` are packed sequences, whose forced tokens come out of the pass over their
context, and on a graph with lanes several grow at the same time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edgeelad.engine.generate import ForcedToken, GeneratedTokens, Growth, Limits, Trunk
from edgeelad.engine.packed.batch import RaggedBatch
from edgeelad.engine.packed.buffers import KeyValueBuffers
from edgeelad.engine.packed.graph import Feed, PackedGraph
from edgeelad.engine.packed.parallel_trees import Grove
from edgeelad.engine.packed.sequence import Growing, choose_next
from edgeelad.engine.packed.sequential_trees import Forest, GrownTree, TreePlan
from edgeelad.engine.sampling import SamplingParams

NOTHING = GeneratedTokens((), (), (), "length")
# keys and values of the rows of a batch; large students get smaller batches
MAX_BATCH_BYTES = 512 << 20
# rows are made in steps of this many tokens, so that batches of similar prompts use the same buffers
CAPACITY_STEP = 64
# Columns that a group of branches may take. It decides when branches start over, and so a tree's last bits: it follows
# from the student alone, never from what else runs.
MAX_LANE_BYTES = 64 << 20
TREE_CAPACITIES = (512, 2048)


class PackedGenerator:
    """A `generate.TokenGenerator` on an engine graph.

    Attributes:
        graph: The student.
        batch_size: Sequences that run together at most.
        kv_bytes: What keys and values may take; None: what its size suggests. With less room fewer sequences and trees
            run at the same time, and changes no result. One that needs more alone gets what it needs.
    """

    def __init__(
        self,
        graph: PackedGraph,
        batch_size: int = 64,
        tree_capacity: int | None = None,
        *,
        kv_bytes: int | None = None,
    ) -> None:
        self.graph = graph
        self.batch_size = batch_size
        self.kv_bytes = kv_bytes
        self._forest = Forest(graph, _tree_capacity(graph) if tree_capacity is None else tree_capacity)
        self._grove = Grove(graph) if graph.num_trees else None
        self._batch: RaggedBatch | None = None

    def close(self) -> None:
        """Let go of the session, the buffers and their memory; once is enough, and more does no harm."""
        for name in ("graph", "_forest", "_grove", "_batch"):
            vars(self).pop(name, None)

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        params: SamplingParams,
        limits: Limits,
        seeds: Sequence[int] | None = None,
    ) -> list[GeneratedTokens]:
        """Generate one sequence from each prompt; see `TokenGenerator`."""
        assert params.temperature == 0.0 or seeds is not None, "sampling needs seeds"
        own = [0] * len(prompts) if seeds is None else seeds
        results = [NOTHING] * len(prompts)
        fitting = [index for index, prompt in enumerate(prompts) if len(prompt) < limits.max_context]
        if not fitting or params.max_new_tokens < 1:
            return results
        longest = max(min(len(prompts[i]) + params.max_new_tokens, limits.max_context) for i in fitting)
        batch = self._rows(len(fitting), longest)
        found = batch.run([prompts[i] for i in fitting], [own[i] for i in fitting], params, limits)
        for index, generated in zip(fitting, found, strict=True):
            results[index] = generated
        return results

    def grow(self, trunks: Sequence[Trunk], params: SamplingParams, limits: Limits) -> list[Growth]:
        """Sample the branches of each trunk, and see what follows its forced tokens; see `TokenGenerator`."""
        plans = [_plan(trunk, limits) for trunk in trunks]
        if self.kv_bytes is not None and self._batch is not None:
            self._drop_batch()
        trees = [plan.tree for plan in plans if plan.tree.points]
        grown = iter((self._grove or self._forest).grow(trees, params, limits, self.kv_bytes))
        return [
            _growth(trunk, plan, next(grown) if plan.tree.points else None)
            for trunk, plan in zip(trunks, plans, strict=True)
        ]

    def stream(self, prompt: Sequence[int], max_tokens: int, limits: Limits) -> Iterator[int]:
        """The greedy continuation of one prompt, token by token; see `TokenGenerator`."""
        budget = min(max_tokens, limits.max_context - len(prompt))
        if budget < 1:
            return
        buffers = KeyValueBuffers(self.graph, 1, len(prompt) + budget)
        params, sequence, slot = SamplingParams(budget), Growing(0, budget), self.graph.sequence_slots[0]
        fresh, past = list(prompt), 0
        while sequence.finish_reason is None:
            total = past + len(fresh)
            feed = Feed(
                buffers,
                (0, 1),
                np.array([fresh], dtype=np.int64),
                np.arange(past, total, dtype=np.int64)[None],
                np.array([past], dtype=np.int32),
                np.zeros((1, 1, len(fresh), total), dtype=np.float32),
                np.array([len(fresh) - 1], dtype=np.int64),
            )
            found, *_ = self.graph.run({slot: feed}, 1)
            choose_next([sequence], found, params, limits)
            if sequence.finish_reason == "eos":
                return
            fresh, past = sequence.ids[-1:], total
            yield fresh[0]

    def _rows(self, num_rows: int, capacity: int) -> RaggedBatch:
        """A batch with room for rows of `capacity` tokens: the last one where it will do."""
        capacity = -(-capacity // CAPACITY_STEP) * CAPACITY_STEP
        room = MAX_BATCH_BYTES if self.kv_bytes is None else min(MAX_BATCH_BYTES, self.kv_bytes)
        num_rows = min(num_rows, self.batch_size, max(room // (capacity * self.graph.bytes_per_token), 1))
        if self.kv_bytes is not None:
            self._forest.drop_buffers()
            if self._grove is not None:
                self._grove.drop_buffers()
        old = self._batch
        if old is None or old.num_rows < num_rows or not capacity <= old.capacity <= 2 * capacity:
            self._drop_batch()  # before the new one is made
            self._batch = RaggedBatch(self.graph, num_rows, capacity)
        assert self._batch is not None, "it was just made"
        return self._batch

    def _drop_batch(self) -> None:
        self._batch = None
        self.graph.unbind()


def _tree_capacity(graph: PackedGraph) -> int:
    room = MAX_LANE_BYTES // graph.bytes_per_token
    return min(max(room, TREE_CAPACITIES[0]), TREE_CAPACITIES[1])


@dataclass(frozen=True, slots=True)
class _Plan:
    """A trunk as a tree: first the points that branch, then those whose next token is asked for."""

    tree: TreePlan
    branching: list[int]
    forced: list[int]


def _plan(trunk: Trunk, limits: Limits) -> _Plan:
    """The points of a trunk that the context leaves room for."""
    prefixes = [(*trunk.prompt_ids, *trunk.completion_ids[: point.num_tokens]) for point in trunk.points]
    asked = [(*prefix, *point.forced_ids) for prefix, point in zip(prefixes, trunk.points, strict=True)]
    numbers = range(len(trunk.points))
    branching = [i for i in numbers if trunk.points[i].seeds and len(prefixes[i]) < limits.max_context]
    forced = [i for i in numbers if trunk.points[i].forced_ids and len(asked[i]) < limits.max_context]
    points = (*(prefixes[i] for i in branching), *(asked[i] for i in forced))
    seeds = (*(trunk.points[i].seeds for i in branching), *(() for _ in forced))
    return _Plan(TreePlan(points, seeds), branching, forced)


def _growth(trunk: Trunk, plan: _Plan, grown: GrownTree | None) -> Growth:
    branches: list[tuple[GeneratedTokens, ...]] = [(NOTHING,) * len(point.seeds) for point in trunk.points]
    tokens: list[ForcedToken | None] = [None] * len(trunk.points)
    if grown is not None:
        for number, own in zip(plan.branching, grown.branches, strict=False):
            branches[number] = own
        for row, number in enumerate(plan.forced, start=len(plan.branching)):
            tokens[number] = ForcedToken(int(grown.found.ids[row, 0]), float(grown.found.entropies[row]))
    return Growth(tuple(branches), tuple(tokens))
