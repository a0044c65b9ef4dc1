"""Choose the next tokens of sequences from the graph's top logits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeelad.engine.generate import Limits, LiveSequence
from edgeelad.engine.packed.rows import TopRows
from edgeelad.engine.sampling import SamplingParams, check_finite, choose, uniforms


def choose_next(sequences: Sequence[LiveSequence], found: TopRows, params: SamplingParams, limits: Limits) -> None:
    """Choose the next token of each sequence; row i of `found` is the distribution of sequence i.

    Raises:
        ModelError: The student computes NaN or infinity.
    """
    every = np.arange(len(sequences))
    columns = np.zeros(len(sequences), dtype=np.int64)
    if params.temperature > 0.0:
        seeds = np.array([sequence.seed for sequence in sequences], dtype=np.uint64)
        places = np.array([len(sequence.ids) for sequence in sequences], dtype=np.int64)
        columns = choose(found.logits, params, uniforms(seeds, places), found.ids)
    logprobs = found.logits[every, columns].astype(np.float64) - found.normalizers
    check_finite(logprobs)
    chosen = zip(
        sequences,
        found.ids[every, columns].tolist(),
        np.minimum(logprobs, 0.0).tolist(),
        found.entropies.tolist(),
        strict=True,
    )
    for sequence, token, logprob, entropy in chosen:
        sequence.append(token, logprob, entropy, limits)
