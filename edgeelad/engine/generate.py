"""Generate from batches of prompts on a standard graph, greedy or sampled. Tokens only.

Rows of one call are independent: each has its own prompt, seed and end. Prompts of similar length run together; a row
that has ended leaves the batch. The sequences of one prompt share its prefill.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edgeelad.engine.sampling import SamplingParams, choose, entropies, log_sum_exp, top_logits, uniforms
from edgeelad.engine.session import OnnxGraph, take_rows
from edgeelad.records import FinishReason

# a prefill's logits are [rows, tokens, vocabulary] in fp32: keep them under this, or large vocabularies eat the memory
MAX_LOGIT_BYTES = 256 << 20
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Stop:
    """When a sequence ends besides its end token: `check` is asked whenever one of `tokens` was chosen."""

    tokens: frozenset[int]
    check: Callable[[Sequence[int]], bool]


@dataclass(frozen=True, slots=True)
class Limits:
    """What ends a sequence: end tokens, a stop, the student's context."""

    eos_ids: frozenset[int]
    max_context: int
    stop: Stop | None = None


@dataclass(frozen=True, slots=True)
class GeneratedTokens:
    """One generated sequence.

    Attributes:
        ids: The tokens, without the end token.
        logprobs: Log-probability of each token at temperature 1, over the whole vocabulary (nats); one more where an
            end token was chosen.
        entropies: Entropy of the distribution that each of these was chosen from (nats); empty where not asked for.
        finish_reason: "eos", "stop" (the stop applied) or "length" (token limit or context).
    """

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    entropies: tuple[float, ...]
    finish_reason: FinishReason


@dataclass(slots=True, eq=False)
class _Row:
    index: int
    seed: int
    budget: int
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)
    finish_reason: FinishReason | None = None

    def result(self, want_entropies: bool) -> GeneratedTokens:
        assert self.finish_reason is not None
        spreads = tuple(self.entropies) if want_entropies else ()
        return GeneratedTokens(tuple(self.ids), tuple(self.logprobs), spreads, self.finish_reason)


def generate(
    graph: OnnxGraph,
    prompts: Sequence[Sequence[int]],
    params: SamplingParams,
    limits: Limits,
    *,
    seeds: Sequence[Sequence[int]],
    batch_size: int = 64,
    want_entropies: bool = False,
) -> list[list[GeneratedTokens]]:
    """Generate from each prompt once a seed.

    Args:
        graph: The student.
        prompts: Token ids, each at least one.
        params: How tokens are chosen.
        limits: What ends a sequence.
        seeds: For each prompt the seeds of its sequences (greedy sequences need one, of any value).
        batch_size: Sequences that run together at most.
        want_entropies: Whether to give entropies (greedy sequences only).

    Returns:
        For each prompt its sequences, in the order of its seeds.
    """
    results: list[list[GeneratedTokens]] = [[] for _ in prompts]
    for group in _groups(prompts, seeds, batch_size, MAX_LOGIT_BYTES // (4 * graph.vocab_size)):
        rows = [
            _Row(index, seed, _budget(len(prompts[index]), params, limits)) for index in group for seed in seeds[index]
        ]
        _run(graph, [prompts[index] for index in group], [len(seeds[index]) for index in group], rows, params, limits)
        for row in rows:
            results[row.index].append(row.result(want_entropies))
    return results


def _groups(
    prompts: Sequence[Sequence[int]], seeds: Sequence[Sequence[int]], batch_size: int, max_positions: int
) -> Iterator[list[int]]:
    """Indices of prompts that run together: of similar length, within the batch size and the memory for logits."""
    group: list[int] = []
    num_sequences = 0
    for index in sorted(range(len(prompts)), key=lambda index: (len(prompts[index]), index)):
        is_too_many = num_sequences + len(seeds[index]) > batch_size
        if group and (is_too_many or (len(group) + 1) * len(prompts[index]) > max_positions):
            yield group
            group, num_sequences = [], 0
        group.append(index)
        num_sequences += len(seeds[index])
    if group:
        yield group


def _budget(prompt_length: int, params: SamplingParams, limits: Limits) -> int:
    return min(params.max_new_tokens, limits.max_context - prompt_length)


def _run(
    graph: OnnxGraph,
    prompts: list[Sequence[int]],
    repeats: list[int],
    rows: list[_Row],
    params: SamplingParams,
    limits: Limits,
) -> None:
    """Generate one group to its end: prefill, then token by token, ended rows leaving."""
    length = max(len(prompt) for prompt in prompts)
    input_ids = np.zeros((len(prompts), length), dtype=np.int64)
    mask = np.zeros((len(prompts), length), dtype=np.int64)
    for row, prompt in enumerate(prompts):  # padding on the left, so that the last column is everyone's last token
        input_ids[row, length - len(prompt) :] = prompt
        mask[row, length - len(prompt) :] = 1
    positions = np.maximum(mask.cumsum(axis=1) - 1, 0)
    logits, cache = graph.step(input_ids, mask, positions, graph.empty_cache(len(prompts)))
    parents = np.repeat(np.arange(len(prompts)), repeats)
    last, mask, position = logits[:, -1, :][parents], mask[parents], positions[parents, -1]
    if len(parents) != len(prompts):
        cache = take_rows(cache, parents)
    live = rows
    while True:
        chosen = _choose(last, live, params)
        _append(live, chosen, limits)
        keep = np.flatnonzero([row.finish_reason is None for row in live])
        if len(keep) == 0:
            return
        if len(keep) < len(live):
            live = [live[i] for i in keep]
            chosen, mask, position, cache = chosen[keep], mask[keep], position[keep], take_rows(cache, keep)
        position = position + 1
        mask = np.concatenate([mask, np.ones((len(live), 1), dtype=np.int64)], axis=1)
        logits, cache = graph.step(chosen[:, None], mask, position[:, None], cache)
        last = logits[:, -1, :]


def _choose(logits: npt.NDArray[np.float32], live: list[_Row], params: SamplingParams) -> IntArray:
    """The next token of each live row; notes its log-probability and the entropy."""
    top, ids = top_logits(logits, params.num_top)
    seeds = np.array([row.seed for row in live], dtype=np.uint64)
    places = np.array([len(row.ids) for row in live], dtype=np.uint64)
    columns = choose(top, params, uniforms(seeds, places))
    every = np.arange(len(live))
    normalizers = log_sum_exp(logits)
    logprobs = top[every, columns].astype(np.float64) - normalizers
    # entropies cost a pass over the vocabulary, and only greedy explanations are asked for theirs
    spreads = entropies(logits, normalizers) if params.temperature == 0.0 else np.zeros(len(live))
    for row, logprob, spread in zip(live, logprobs.tolist(), spreads.tolist(), strict=True):
        row.logprobs.append(min(logprob, 0.0))
        row.entropies.append(spread)
    return ids[every, columns]


def _append(live: list[_Row], chosen: IntArray, limits: Limits) -> None:
    """Add the chosen tokens, and note which rows have ended."""
    for row, token in zip(live, chosen.tolist(), strict=True):
        if token in limits.eos_ids:
            row.finish_reason = "eos"
            continue
        row.ids.append(token)
        if limits.stop is not None and token in limits.stop.tokens and limits.stop.check(row.ids):
            row.finish_reason = "stop"
        elif len(row.ids) >= row.budget:
            row.finish_reason = "length"
