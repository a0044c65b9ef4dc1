"""The reference implementation of generation: a full pass per token, without cache or batch.

Slow; the definition that every `generate.TokenGenerator` is tested against.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeelad.engine.generate import ForcedToken, GeneratedTokens, Limits
from edgeelad.engine.plain.graph import OnnxGraph
from edgeelad.engine.sampling import Logits, SamplingParams, choose_tokens, normalizers_and_entropies


def generate_one(
    graph: OnnxGraph, prefix: Sequence[int], params: SamplingParams, limits: Limits, seed: int = 0
) -> GeneratedTokens:
    """Generate one sequence after a prefix."""
    ids: list[int] = []
    logprobs: list[float] = []
    entropies: list[float] = []
    seeds = np.array([seed], dtype=np.uint64)
    while len(logprobs) < params.max_new_tokens and len(prefix) + len(ids) < limits.max_context:
        chosen = choose_tokens(_next_logits(graph, [*prefix, *ids]), params, seeds, np.array([len(ids)]))
        token = int(chosen.tokens[0])
        logprobs.append(float(chosen.logprobs[0]))
        entropies.append(float(chosen.entropies[0]))
        if token in limits.eos_ids:
            return GeneratedTokens(tuple(ids), tuple(logprobs), tuple(entropies), "eos")
        ids.append(token)
        if limits.stop is not None and token in limits.stop.tokens and limits.stop.check(ids):
            return GeneratedTokens(tuple(ids), tuple(logprobs), tuple(entropies), "stop")
    return GeneratedTokens(tuple(ids), tuple(logprobs), tuple(entropies), "length")


def force_one(graph: OnnxGraph, prefix: Sequence[int], forced_ids: Sequence[int]) -> ForcedToken:
    """The most likely token after a prefix and forced tokens, and the entropy of its distribution (nats)."""
    logits = _next_logits(graph, [*prefix, *forced_ids])
    _, entropies = normalizers_and_entropies(logits)
    return ForcedToken(int(logits[0].argmax()), float(entropies[0]))


def _next_logits(graph: OnnxGraph, ids: Sequence[int]) -> Logits:
    tokens = np.array([ids], dtype=np.int64)
    logits, _ = graph.step(tokens, np.ones_like(tokens), np.arange(len(ids))[None], graph.empty_cache(1))
    return logits[:, -1]
