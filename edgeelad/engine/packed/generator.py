"""The fast token generator: reasoning trees and continuous batching on the engine's graph.

A `generate.TokenGenerator`: the same tokens as `reference.generate_one` defines, and the same bits per sequence and
tree whatever else is generated, in whichever order and batch. `generate` runs a continuous batch. `generate_trees`
packs each tree into one sequence, whose prefill also answers its forced tokens; a graph with lanes runs several trees
at the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edgeelad.engine.generate import (
    ForcedToken,
    GeneratedTokens,
    Limits,
    LiveSequence,
    SequenceRequest,
    TreeRequest,
    TreeResult,
)
from edgeelad.engine.packed.batch import RaggedBatch
from edgeelad.engine.packed.buffers import KeyValueBuffers
from edgeelad.engine.packed.graph import Feed, PackedGraph
from edgeelad.engine.packed.live import PackedLiveBatch
from edgeelad.engine.packed.parallel_trees import ParallelTrees
from edgeelad.engine.packed.prefix import SharedPrefix
from edgeelad.engine.packed.sequence import choose_next
from edgeelad.engine.packed.sequential_trees import FinishedTree, SequentialTrees, TreePlan
from edgeelad.engine.sampling import SamplingParams

NOTHING = GeneratedTokens((), (), (), "length")
# maximum KV cache of a batch; large students get smaller batches
MAX_BATCH_BYTES = 512 << 20
# row capacities are multiples of this many tokens, so that batches of similar prompts use the same buffers
CAPACITY_STEP = 64
# Columns that a group of branches may take. They decide when branches start over, and so a tree's last bits: they
# follow from the student alone, never from what else runs.
MAX_LANE_BYTES = 64 << 20
TREE_CAPACITIES = (512, 2048)


class PackedGenerator:
    """A `generate.TokenGenerator` on an engine graph.

    Attributes:
        graph: The student.
        batch_size: Maximum sequences per batch.
        kv_bytes: Maximum KV cache; None: as the student's size suggests. A lower limit runs fewer sequences and trees
            at the same time, and changes no result; a single one that needs more gets what it needs.
        is_alone: Whether `generate` runs each sequence alone, as `stream` does, with the same bits: on a device. In a
            batch a sequence never runs without company, so that its bits do not depend on it.
        prefix: What all prompts begin with, for sequences that run alone or in an open batch.
    """

    def __init__(
        self,
        graph: PackedGraph,
        batch_size: int = 64,
        tree_capacity: int | None = None,
        *,
        kv_bytes: int | None = None,
        is_alone: bool = False,
        shared_prompt: Callable[[], Sequence[int]] = tuple,
    ) -> None:
        self.graph = graph
        self.prefix = SharedPrefix(graph, shared_prompt)
        self.batch_size = batch_size
        self.kv_bytes = kv_bytes
        self.is_alone = is_alone
        capacity = _tree_capacity(graph) if tree_capacity is None else tree_capacity
        self._trees = ParallelTrees(graph) if graph.num_trees else SequentialTrees(graph, capacity)
        self._batch: RaggedBatch | None = None

    def close(self) -> None:
        """Release the session and buffers. Idempotent."""
        for name in ("graph", "prefix", "_trees", "_batch"):
            vars(self).pop(name, None)

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        params: SamplingParams,
        limits: Limits,
        seeds: Sequence[int] | None = None,
        prefixes: Sequence[Sequence[int]] | None = None,
    ) -> list[GeneratedTokens]:
        """Generate one sequence per prompt; see `TokenGenerator`."""
        assert params.temperature == 0.0 or seeds is not None, "sampling needs seeds"
        if prefixes is not None:
            prompts = [[*prompt, *prefix] for prompt, prefix in zip(prompts, prefixes, strict=True)]
        own = [0] * len(prompts) if seeds is None else seeds
        if self.is_alone:
            return [self._alone(prompt, seed, params, limits) for prompt, seed in zip(prompts, own, strict=True)]
        results = [NOTHING] * len(prompts)
        fitting = [index for index, prompt in enumerate(prompts) if len(prompt) < limits.max_context]
        if not fitting or params.max_new_tokens < 1:
            return results
        longest = max(min(len(prompts[i]) + params.max_new_tokens, limits.max_context) for i in fitting)
        batch = self._reserve_batch(len(fitting), longest)
        found = batch.run([SequenceRequest(tuple(prompts[i]), params, own[i]) for i in fitting], limits)
        for index, generated in zip(fitting, found, strict=True):
            results[index] = generated
        return results

    def generate_trees(
        self, requests: Sequence[TreeRequest], params: SamplingParams, limits: Limits
    ) -> list[TreeResult]:
        """Sample the branches of each tree, and find what follows its forced tokens; see `TokenGenerator`."""
        plans = [_plan(request, limits) for request in requests]
        if self.kv_bytes is not None and self._batch is not None:
            self._drop_batch()
        trees = [plan.tree for plan in plans if plan.tree.points]
        finished = iter(self._trees.generate(trees, params, limits, self.kv_bytes))
        return [
            _result(request, plan, next(finished) if plan.tree.points else None)
            for request, plan in zip(requests, plans, strict=True)
        ]

    def stream(self, prompt: Sequence[int], max_tokens: int, limits: Limits) -> Iterator[int]:
        """The greedy continuation of one prompt, token by token; see `TokenGenerator`."""
        sequence = LiveSequence(0, min(max_tokens, limits.max_context - len(prompt)))
        for _ in self._advance(sequence, prompt, SamplingParams(max_tokens), limits):
            if sequence.finish_reason != "eos":
                yield sequence.ids[-1]

    def _alone(self, prompt: Sequence[int], seed: int, params: SamplingParams, limits: Limits) -> GeneratedTokens:
        sequence = LiveSequence(seed, min(params.max_new_tokens, limits.max_context - len(prompt)))
        for _ in self._advance(sequence, prompt, params, limits):
            pass
        return sequence.result() if sequence.finish_reason is not None else NOTHING

    def _advance(
        self, sequence: LiveSequence, prompt: Sequence[int], params: SamplingParams, limits: Limits
    ) -> Iterator[None]:
        """Choose the tokens of a sequence that runs alone, one per iteration, if there is room for any."""
        if sequence.budget < 1:
            return
        slot = self.graph.sequence_slots[0]
        buffers = KeyValueBuffers(self.graph.shape, 1, len(prompt) + sequence.budget)
        past = self.prefix.copy_to(buffers, 0, prompt)
        fresh = list(prompt[past:])
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
            found, *_ = self.graph.run({slot: feed}, params.num_top)
            choose_next([sequence], found, params, limits)
            fresh, past = sequence.ids[-1:], total
            yield

    def open_batch(self, limits: Limits, num_rows: int) -> PackedLiveBatch:
        """Open a batch that sequences join and leave; see `TokenGenerator`."""
        kv_bytes = MAX_BATCH_BYTES if self.kv_bytes is None else self.kv_bytes
        return PackedLiveBatch(self.graph, limits, num_rows, kv_bytes, self.prefix)

    def _reserve_batch(self, num_rows: int, capacity: int) -> RaggedBatch:
        """A batch with rows of at least `capacity` tokens: the last one if it is suitable."""
        capacity = -(-capacity // CAPACITY_STEP) * CAPACITY_STEP
        room = MAX_BATCH_BYTES if self.kv_bytes is None else min(MAX_BATCH_BYTES, self.kv_bytes)
        num_rows = min(num_rows, self.batch_size, max(room // (capacity * self.graph.bytes_per_token), 1))
        if self.kv_bytes is not None:
            self._trees.drop_buffers()
        old = self._batch
        if old is None or old.num_rows < num_rows or not capacity <= old.capacity <= 2 * capacity:
            self._drop_batch()  # before the new one is allocated
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
    """A request as a tree: first the points that branch, then those whose next token is requested."""

    tree: TreePlan
    branching: list[int]
    forced: list[int]


def _plan(request: TreeRequest, limits: Limits) -> _Plan:
    """The points of a request that fit the context."""
    prefixes = [(*request.prompt_ids, *request.completion_ids[: point.num_tokens]) for point in request.points]
    asked = [(*prefix, *point.forced_ids) for prefix, point in zip(prefixes, request.points, strict=True)]
    numbers = range(len(request.points))
    branching = [i for i in numbers if request.points[i].seeds and len(prefixes[i]) < limits.max_context]
    forced = [i for i in numbers if request.points[i].forced_ids and len(asked[i]) < limits.max_context]
    points = (*(prefixes[i] for i in branching), *(asked[i] for i in forced))
    seeds = (*(request.points[i].seeds for i in branching), *(() for _ in forced))
    return _Plan(TreePlan(points, seeds), branching, forced)


def _result(request: TreeRequest, plan: _Plan, finished: FinishedTree | None) -> TreeResult:
    branches: list[tuple[GeneratedTokens, ...]] = [(NOTHING,) * len(point.seeds) for point in request.points]
    tokens: list[ForcedToken | None] = [None] * len(request.points)
    if finished is not None:
        for number, own in zip(plan.branching, finished.branches, strict=False):
            branches[number] = own
        for row, number in enumerate(plan.forced, start=len(plan.branching)):
            tokens[number] = ForcedToken(int(finished.found.ids[row, 0]), float(finished.found.entropies[row]))
    return TreeResult(tuple(branches), tuple(tokens))
