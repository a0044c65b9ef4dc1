"""The state of a sequence that is being generated, and the choice of its next token from the graph's top logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from edgeelad.engine.generate import GeneratedTokens, Limits
from edgeelad.engine.packed.rows import TopRows
from edgeelad.engine.sampling import SamplingParams, choose, uniforms
from edgeelad.errors import ModelError
from edgeelad.records import FinishReason


@dataclass(slots=True, eq=False)
class LiveSequence:
    """A sequence that is being generated.

    Attributes:
        seed: Of its random draws.
        budget: Maximum number of tokens, at least one.
        ids: Tokens chosen so far, without an end token.
        logprobs, entropies: One per chosen token.
        finish_reason: Why it ended; None until then.
    """

    seed: int
    budget: int
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)
    finish_reason: FinishReason | None = None

    def append(self, token: int, logprob: float, entropy: float, limits: Limits) -> None:
        """Add a chosen token, and end the sequence if the token ends it."""
        self.logprobs.append(logprob)
        self.entropies.append(entropy)
        if token in limits.eos_ids:
            self.finish_reason = "eos"
            return
        self.ids.append(token)
        if limits.stop is not None and token in limits.stop.tokens and limits.stop.check(self.ids):
            self.finish_reason = "stop"
        elif len(self.ids) == self.budget:
            self.finish_reason = "length"

    def result(self) -> GeneratedTokens:
        """The ended sequence."""
        assert self.finish_reason is not None, "the sequence has not ended"
        return GeneratedTokens(tuple(self.ids), tuple(self.logprobs), tuple(self.entropies), self.finish_reason)


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
    if not np.isfinite(logprobs).all():
        raise ModelError(
            "the student computes NaN or infinity instead of probabilities; train it with a lower learning rate, or "
            "export it again"
        )
    chosen = zip(
        sequences,
        found.ids[every, columns].tolist(),
        np.minimum(logprobs, 0.0).tolist(),
        found.entropies.tolist(),
        strict=True,
    )
    for sequence, token, logprob, entropy in chosen:
        sequence.append(token, logprob, entropy, limits)
