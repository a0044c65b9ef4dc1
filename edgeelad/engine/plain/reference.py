"""The reference implementation of generation: a full pass per token, without cache or batch.

Slow; the definition that every `generate.TokenGenerator` is tested against.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeelad.engine.generate import ForcedToken, GeneratedTokens, Limits
from edgeelad.engine.plain.graph import Graph
from edgeelad.engine.sampling import Logits, SamplingParams, choose_tokens, normalizers_and_entropies


def generate_one(
    graph: Graph,
    prompt: Sequence[int],
    params: SamplingParams,
    limits: Limits,
    seed: int = 0,
    prefix: Sequence[int] = (),
) -> GeneratedTokens:
    """Generate one sequence after a prompt, and a prefix of its completion."""
    ids: list[int] = []
    logprobs: list[float] = []
    entropies: list[float] = []
    seeds = np.array([seed], dtype=np.uint64)
    while len(logprobs) < params.max_new_tokens and len(prompt) + len(prefix) + len(ids) < limits.max_context:
        chosen = choose_tokens(_next_logits(graph, prompt, [*prefix, *ids]), params, seeds, np.array([len(ids)]))
        token = int(chosen.tokens[0])
        logprobs.append(float(chosen.logprobs[0]))
        entropies.append(float(chosen.entropies[0]))
        if token in limits.eos_ids:
            return GeneratedTokens(tuple(ids), tuple(logprobs), tuple(entropies), "eos")
        ids.append(token)
        if limits.stop is not None and token in limits.stop.tokens and limits.stop.check(ids):
            return GeneratedTokens(tuple(ids), tuple(logprobs), tuple(entropies), "stop")
    return GeneratedTokens(tuple(ids), tuple(logprobs), tuple(entropies), "length")


def force_one(graph: Graph, prompt: Sequence[int], completion: Sequence[int]) -> ForcedToken:
    """The most likely token after a prompt and its completion so far, and its distribution's entropy (nats)."""
    logits = _next_logits(graph, prompt, completion)
    _, entropies = normalizers_and_entropies(logits)
    return ForcedToken(int(logits[0].argmax()), float(entropies[0]))


def _next_logits(graph: Graph, prompt: Sequence[int], completion: Sequence[int]) -> Logits:
    cache, (head,) = graph.begin([prompt])
    tokens = np.array([[*head, *completion]], dtype=np.int64)
    logits, _ = graph.step(tokens, np.ones_like(tokens), np.arange(tokens.shape[1])[None], cache)
    return logits[:, -1]
