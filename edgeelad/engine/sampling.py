"""Choose the next tokens of a batch of sequences. Knows numbers only.

A sequence's draw depends on its own seed and position alone: uniform numbers come from a counter-based generator
(SplitMix64, Steele et al. 2014), not from a shared stream, so batch mates and order change nothing.

Sampling is over the 64 likeliest tokens at most (fewer with `top_k`), renormalized: a graph can then hand out 64
numbers instead of a vocabulary, and whoever computes them draws the same token.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MAX_TOP = 64
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How tokens are chosen, and how many at most.

    Attributes:
        max_new_tokens: Tokens to generate at most.
        temperature: 0 takes the likeliest token; otherwise logits are divided by it.
        top_k: Only the k likeliest tokens; 0 means MAX_TOP, which is the most in any case.
        top_p: Only the likeliest tokens that together reach this probability; 1 is off.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0

    @property
    def num_top(self) -> int:
        """How many of the likeliest tokens the choice is from."""
        return 1 if self.temperature == 0.0 else min(self.top_k or MAX_TOP, MAX_TOP)


def make_seed(run_seed: int, question_id: str, prefix: int, branch: int) -> int:
    """The seed of one branch, in [0, 2^64): the same whatever else is generated."""
    text = f"edgeelad-branch-1\0{run_seed}\0{question_id}\0{prefix}\0{branch}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def uniforms(seeds: npt.NDArray[np.uint64], position: npt.NDArray[np.uint64]) -> Floats:
    """A uniform number in [0, 1) for each sequence (shape [S]) at its position (shape [S])."""
    with np.errstate(over="ignore"):
        z = seeds + (position + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return np.asarray((z >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def top_logits(logits: npt.NDArray[np.float32], num_top: int) -> tuple[npt.NDArray[np.float32], Ints]:
    """The largest logits of each row and their token ids, largest first, ties by id; shapes [S, min(num_top, V)]."""
    size = min(num_top, logits.shape[1])
    if size == 1:
        ids = logits.argmax(axis=1)[:, None]
        return np.take_along_axis(logits, ids, axis=1), ids.astype(np.int64)
    # of equal logits at the border argpartition keeps any: such ties are between unlikely tokens
    ids = np.argpartition(-logits, size - 1, axis=1)[:, :size]
    ids.sort(axis=1)
    values = np.take_along_axis(logits, ids, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(values, order, axis=1), np.take_along_axis(ids, order, axis=1).astype(np.int64)


def choose(top: npt.NDArray[np.float32], params: SamplingParams, draws: Floats) -> Ints:
    """Which of the top logits each row takes: an index into its columns, shape [S].

    Args:
        top: The largest logits of each row, largest first, shape [S, k].
        params: Temperature, top-k and top-p.
        draws: A uniform number for each row, shape [S].
    """
    if params.temperature == 0.0:
        return np.zeros(len(top), dtype=np.int64)
    scaled = top[:, : params.num_top].astype(np.float64) / params.temperature
    weights = np.exp(scaled - scaled[:, :1])
    cumulative = np.cumsum(weights, axis=1)
    if params.top_p < 1.0:
        # a token stays while those before it do not yet reach top_p; the first always stays
        before = (cumulative - weights) / cumulative[:, -1:]
        weights = np.where(before < params.top_p, weights, 0.0)
        weights[:, 0] = np.maximum(weights[:, 0], np.finfo(np.float64).tiny)
        cumulative = np.cumsum(weights, axis=1)
    targets = draws * cumulative[:, -1]
    chosen = (cumulative <= targets[:, None]).sum(axis=1)
    return np.asarray(np.minimum(chosen, scaled.shape[1] - 1), dtype=np.int64)


def log_sum_exp(logits: npt.NDArray[np.float32]) -> Floats:
    """log Σ exp over the vocabulary of each row, in float64, shape [S]."""
    largest = logits.max(axis=1, keepdims=True)
    return np.asarray(np.log(np.exp(logits - largest).sum(axis=1, dtype=np.float64)) + largest[:, 0])


def entropies(logits: npt.NDArray[np.float32], normalizers: Floats) -> Floats:
    """Entropy in nats of the distribution of each row, shape [S]; `normalizers` is `log_sum_exp(logits)`."""
    logprobs = logits.astype(np.float64) - normalizers[:, None]
    return np.asarray(np.maximum(-(np.exp(logprobs) * logprobs).sum(axis=1), 0.0))
