"""Generate with any graph of standard names: for students without engine graphs, and to compare the engine with.

Sequences of similar length run together as the rows of a batch, padded on the left, so that distances between a row's
tokens are the same as alone. Branches take their keys and values from one pass over their tree's prompt and completion.
Rows that have ended leave the batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edgeelad.engine.generate import BranchPoint, ForcedToken, GeneratedTokens, Limits, TreeRequest, TreeResult
from edgeelad.engine.plain.cache import IntArray
from edgeelad.engine.plain.decode import Rows, decode
from edgeelad.engine.plain.graph import Graph
from edgeelad.engine.plain.live import PlainLiveBatch
from edgeelad.engine.plain.prefill import Prefilled, cut_prefixes, left_mask, prefill
from edgeelad.engine.plain.stream import stream_tokens
from edgeelad.engine.sampling import SamplingParams, Seeds, normalizers_and_entropies

# maximum KV cache of a batch's rows, and of the trees that they come from; large students get smaller batches
MAX_CACHE_BYTES = 512 << 20
NOTHING = GeneratedTokens((), (), (), "length")


@dataclass(frozen=True, slots=True)
class _Place:
    """A branch point of a batch of requests.

    Attributes:
        request: Its row in the pass over the requests.
        point: The point.
        length: Tokens of prompt and completion before it: how much of the context they take.
        rest: Tokens of the completion after it, about as many as its branches will have.
    """

    request: int
    point: BranchPoint
    length: int
    rest: int


class BatchGenerator:
    """A `generate.TokenGenerator` on a graph with standard names.

    Attributes:
        graph: The student.
        batch_size: Maximum rows per batch.
    """

    def __init__(self, graph: Graph, batch_size: int = 64, kv_bytes: int | None = None) -> None:
        self.graph = graph
        self.batch_size = batch_size
        self._max_cache_bytes = MAX_CACHE_BYTES if kv_bytes is None else kv_bytes

    def close(self) -> None:
        """Release the session and its memory. Idempotent."""
        vars(self).pop("graph", None)

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
        own = [0] * len(prompts) if seeds is None else seeds
        given: Sequence[Sequence[int]] = [()] * len(prompts) if prefixes is None else prefixes
        results = [NOTHING] * len(prompts)
        taken = [len(prompt) + len(prefix) for prompt, prefix in zip(prompts, given, strict=True)]
        budgets = [_budget(num_tokens, params, limits) for num_tokens in taken]
        fitting = sorted((index for index, budget in enumerate(budgets) if budget > 0), key=taken.__getitem__)
        lengths = [num_tokens + max(budget, 0) for num_tokens, budget in zip(taken, budgets, strict=True)]
        for batch in self._batches(fitting, lengths):
            start = prefill(self.graph, [prompts[index] for index in batch], [given[index] for index in batch])
            left = np.array([budgets[index] for index in batch])
            rows = Rows(start.cache, start.lengths, start.logits, _seeds(own[i] for i in batch), left)
            for index, generated in zip(batch, decode(self.graph, rows, params, limits), strict=True):
                results[index] = generated
        return results

    def generate_trees(
        self, requests: Sequence[TreeRequest], params: SamplingParams, limits: Limits
    ) -> list[TreeResult]:
        """Sample the branches of each tree, and find what follows its forced tokens; see `TokenGenerator`."""
        results = [TreeResult((), ())] * len(requests)
        lengths = [len(request.prompt_ids) + _reach(request) for request in requests]
        order = sorted((index for index in range(len(requests)) if requests[index].points), key=lengths.__getitem__)
        for group in self._batches(order, lengths):
            for index, result in zip(
                group, self._generate_batch([requests[i] for i in group], params, limits), strict=True
            ):
                results[index] = result
        return results

    def stream(self, prompt: Sequence[int], max_tokens: int, limits: Limits) -> Iterator[int]:
        """The greedy continuation of one prompt, token by token; see `TokenGenerator`."""
        return stream_tokens(self.graph, prompt, max_tokens, limits)

    def open_batch(self, limits: Limits, num_rows: int) -> PlainLiveBatch:
        """Open a batch of one sequence, whatever `num_rows`; see `TokenGenerator`."""
        return PlainLiveBatch(self.graph, limits)

    def _generate_batch(
        self, requests: Sequence[TreeRequest], params: SamplingParams, limits: Limits
    ) -> list[TreeResult]:
        places = [
            _Place(row, point, len(request.prompt_ids) + point.num_tokens, _reach(request) - point.num_tokens)
            for row, request in enumerate(requests)
            for point in request.points
        ]
        prompts = [request.prompt_ids for request in requests]
        completions = [request.completion_ids[: _reach(request)] for request in requests]
        whole = prefill(self.graph, prompts, completions, [(place.request, place.point.num_tokens) for place in places])
        branches = self._branch(whole, places, params, limits)
        forced = self._force(whole, places, limits)
        numbers: list[list[int]] = [[] for _ in requests]
        for number, place in enumerate(places):
            numbers[place.request].append(number)
        return [TreeResult(tuple(branches[n] for n in own), tuple(forced[n] for n in own)) for own in numbers]

    def _branch(
        self, whole: Prefilled, places: Sequence[_Place], params: SamplingParams, limits: Limits
    ) -> list[tuple[GeneratedTokens, ...]]:
        """The branches of each place."""
        budgets = [_budget(place.length, params, limits) for place in places]
        order = sorted(range(len(places)), key=lambda number: (places[number].rest, places[number].length))
        # one run per branch: the number of its place, and its seed
        runs = [(number, seed) for number in order if budgets[number] > 0 for seed in places[number].point.seeds]
        lengths = [places[number].length + budgets[number] for number, _ in runs]
        branches: list[list[GeneratedTokens]] = [[] for _ in places]
        for batch in self._batches(range(len(runs)), lengths):
            numbers = np.array([runs[index][0] for index in batch])
            whole_rows, tokens = _spans(whole, places, numbers)
            seeds = _seeds(runs[index][1] for index in batch)
            cache = cut_prefixes(whole, whole_rows, tokens)
            rows = Rows(cache, tokens, whole.logits[numbers], seeds, np.array([budgets[n] for n in numbers]))
            for number, generated in zip(numbers, decode(self.graph, rows, params, limits), strict=True):
                branches[number].append(generated)
        return [
            tuple(own) if budget > 0 else (NOTHING,) * len(place.point.seeds)
            for own, place, budget in zip(branches, places, budgets, strict=True)
        ]

    def _force(self, whole: Prefilled, places: Sequence[_Place], limits: Limits) -> list[ForcedToken | None]:
        """The token after the forced tokens of each place."""
        results: list[ForcedToken | None] = [None] * len(places)
        ends = [place.length + len(place.point.forced_ids) for place in places]
        for size in sorted({len(place.point.forced_ids) for place in places} - {0}):
            asked = [
                n for n, p in enumerate(places) if len(p.point.forced_ids) == size and ends[n] < limits.max_context
            ]
            for batch in self._batches(asked, ends):
                numbers = np.array(batch)
                whole_rows, tokens = _spans(whole, places, numbers)
                ids = np.array([places[number].point.forced_ids for number in batch], dtype=np.int64)
                mask = left_mask(tokens + size, int(tokens.max()) + size)
                positions = tokens[:, None] + np.arange(size)
                found, _ = self.graph.step(ids, mask, positions, cut_prefixes(whole, whole_rows, tokens))
                _, entropies = normalizers_and_entropies(found[:, -1])
                for number, id_, entropy in zip(batch, found[:, -1].argmax(axis=1), entropies, strict=True):
                    results[number] = ForcedToken(int(id_), float(entropy))
        return results

    def _batches(self, order: Iterable[int], lengths: Sequence[int]) -> Iterator[list[int]]:
        """Divide `order` into batches of consecutive items; `lengths[item]` tokens of each are cached in the end."""
        max_tokens = self._max_cache_bytes // self.graph.bytes_per_token
        batch: list[int] = []
        longest = 0
        for item in order:
            longest = max(longest, lengths[item])
            if batch and (len(batch) == self.batch_size or (len(batch) + 1) * longest > max_tokens):
                yield batch
                batch, longest = [], lengths[item]
            batch.append(item)
        if batch:
            yield batch


def _budget(num_tokens: int, params: SamplingParams, limits: Limits) -> int:
    """Maximum number of tokens after `num_tokens`."""
    return min(params.max_new_tokens, limits.max_context - num_tokens)


def _reach(request: TreeRequest) -> int:
    """Tokens of the completion up to the last branch point."""
    return max((point.num_tokens for point in request.points), default=0)


def _spans(whole: Prefilled, places: Sequence[_Place], numbers: IntArray) -> tuple[IntArray, IntArray]:
    """Row and cached tokens of the prefixes of the given places."""
    rows = np.array([places[number].request for number in numbers])
    return rows, whole.starts[rows] + np.array([places[number].point.num_tokens for number in numbers])


def _seeds(seeds: Iterable[int]) -> Seeds:
    return np.array(list(seeds), dtype=np.uint64)
