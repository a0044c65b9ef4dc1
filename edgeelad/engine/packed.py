"""The fast token generator: packed reasoning trees and ragged batches on the engine's graph.

A `generate.TokenGenerator`: the same tokens as `reference.generate_one` defines, and for each sequence or tree the same
bits, whatever else is generated, in whichever order and batch. Sequences of `generate` run as a ragged batch with
continuous admission; each trunk of `grow` is one packed sequence, whose forced tokens come out of the same pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from edgeelad.engine.generate import ForcedToken, GeneratedTokens, Growth, Limits, Trunk
from edgeelad.engine.packed_batch import RaggedBatch
from edgeelad.engine.packed_graph import KeyValueBuffers, PackedGraph
from edgeelad.engine.packed_sequence import Growing, choose_next
from edgeelad.engine.packed_tree import TreeGrower
from edgeelad.engine.sampling import SamplingParams

NOTHING = GeneratedTokens((), (), (), "length")
# keys and values of the rows of a batch; large students get smaller batches
MAX_BATCH_BYTES = 512 << 20
# rows are made in steps of this many tokens, so that batches of similar prompts use the same buffers
CAPACITY_STEP = 64


class PackedGenerator:
    """A `generate.TokenGenerator` on an engine graph.

    Attributes:
        graph: The student.
        batch_size: Sequences that run together at most.
    """

    def __init__(self, graph: PackedGraph, batch_size: int = 64) -> None:
        self.graph = graph
        self.batch_size = batch_size
        self._trees = TreeGrower(graph)
        self._batch: RaggedBatch | None = None

    def close(self) -> None:
        """Let go of the session, the buffers and their memory."""
        del self.graph, self._trees, self._batch

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
        return [self._grow(trunk, params, limits) for trunk in trunks]

    def stream(self, prompt: Sequence[int], max_tokens: int, limits: Limits) -> Iterator[int]:
        """The greedy continuation of one prompt, token by token; see `TokenGenerator`."""
        budget = min(max_tokens, limits.max_context - len(prompt))
        if budget < 1:
            return
        buffers = KeyValueBuffers(self.graph, 1, len(prompt) + budget)
        params, sequence = SamplingParams(budget), Growing(0, budget)
        fresh, past = list(prompt), 0
        while sequence.finish_reason is None:
            total = past + len(fresh)
            found = self.graph.run(
                buffers,
                (0, 1),
                np.array([fresh], dtype=np.int64),
                np.arange(past, total, dtype=np.int64)[None],
                np.array([past], dtype=np.int32),
                np.zeros((1, 1, len(fresh), total), dtype=np.float32),
                np.array([len(fresh) - 1], dtype=np.int64),
                num_top=1,
            )
            choose_next([sequence], found, params, limits)
            if sequence.finish_reason == "eos":
                return
            fresh, past = sequence.ids[-1:], total
            yield fresh[0]

    def _rows(self, num_rows: int, capacity: int) -> RaggedBatch:
        """A batch with room for rows of `capacity` tokens: the last one where it will do."""
        capacity = -(-capacity // CAPACITY_STEP) * CAPACITY_STEP
        most = max(MAX_BATCH_BYTES // (capacity * self.graph.bytes_per_token), 1)
        num_rows = min(num_rows, self.batch_size, most)
        old = self._batch
        if old is None or old.num_rows < num_rows or not capacity <= old.capacity <= 2 * capacity:
            self._batch = None  # lets go of the old one before the new one is made
            self._batch = RaggedBatch(self.graph, num_rows, capacity)
        assert self._batch is not None, "it was just made"
        return self._batch

    def _grow(self, trunk: Trunk, params: SamplingParams, limits: Limits) -> Growth:
        prefixes = [(*trunk.prompt_ids, *trunk.completion_ids[: point.num_tokens]) for point in trunk.points]
        # branch points first, then the points whose next token is asked for
        branching = [i for i, point in enumerate(trunk.points) if point.seeds and len(prefixes[i]) < limits.max_context]
        forced = [
            i
            for i, point in enumerate(trunk.points)
            if point.forced_ids and len(prefixes[i]) + len(point.forced_ids) < limits.max_context
        ]
        branches: list[tuple[GeneratedTokens, ...]] = [(NOTHING,) * len(point.seeds) for point in trunk.points]
        tokens: list[ForcedToken | None] = [None] * len(trunk.points)
        if branching or forced:
            points = [prefixes[i] for i in branching]
            points += [(*prefixes[i], *trunk.points[i].forced_ids) for i in forced]
            seeds = [trunk.points[i].seeds for i in branching] + [()] * len(forced)
            grown, found = self._trees.grow(points, seeds, params, limits)
            for i, own in zip(branching, grown, strict=False):
                branches[i] = tuple(own)
            for row, i in enumerate(forced, start=len(branching)):
                tokens[i] = ForcedToken(int(found.ids[row, 0]), float(found.entropies[row]))
        return Growth(tuple(branches), tuple(tokens))
