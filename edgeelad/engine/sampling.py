"""Choose the next tokens of a batch of sequences. Knows numbers only.

A sequence's draw depends on its own seed and its own position alone: uniform numbers come from a counter-based
generator (SplitMix64, Steele et al. 2014), not from a shared stream, so batch mates and order change nothing.

Sampling is over the 64 likeliest tokens at most (fewer with `top_k`), renormalized, by inverse CDF: a graph can then
hand out 64 numbers instead of a vocabulary, and whoever computes them draws the same token. Log-probabilities and
entropies are of the whole distribution at temperature 1, in float64.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MAX_TOP = 64
BLOCK = 64  # tokens of a vocabulary that are looked at together
Logits = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Seeds = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How tokens are chosen, and how many at most.

    Attributes:
        max_new_tokens: Tokens to generate at most, the end token included.
        temperature: 0 takes the likeliest token, the lowest id of several; otherwise logits are divided by it.
        top_k: Only the k likeliest tokens; 0 means MAX_TOP, which is the most in any case.
        top_p: Only the likeliest tokens that together reach this probability (among the top k); 1 is off.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0

    @property
    def num_top(self) -> int:
        """How many of the likeliest tokens the choice is from."""
        return 1 if self.temperature == 0.0 else min(self.top_k or MAX_TOP, MAX_TOP)


@dataclass(frozen=True, slots=True, eq=False)
class Choices:
    """What a batch chose at one step, each of shape [S].

    Attributes:
        tokens: The chosen ids.
        logprobs: Their log-probabilities (nats).
        entropies: Of the distributions that they were chosen from (nats).
    """

    tokens: Ints
    logprobs: Floats
    entropies: Floats


def make_seed(run_seed: int, question_id: str, prefix: int, branch: int) -> int:
    """The seed of one branch, in [0, 2^64): the same whatever else is generated."""
    text = f"edgeelad-branch-1\0{run_seed}\0{question_id}\0{prefix}\0{branch}"
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def choose_tokens(logits: Logits, params: SamplingParams, seeds: Seeds, positions: Ints) -> Choices:
    """Choose each row's next token.

    Args:
        logits: Shape [S, vocabulary].
        params: How to choose.
        seeds: Each row's seed, shape [S].
        positions: How many tokens each row has been given before, shape [S].
    """
    top, ids = top_logits(logits, params.num_top)
    normalizers, entropies = normalizers_and_entropies(logits)
    every = np.arange(len(logits))
    if params.temperature == 0.0:
        columns = np.zeros(len(logits), dtype=np.int64)
    else:
        columns = choose(top, params, uniforms(seeds, positions), ids)
    logprobs = np.minimum(top[every, columns].astype(np.float64) - normalizers, 0.0)
    return Choices(ids[every, columns], logprobs, entropies)


def uniforms(seeds: Seeds, positions: Ints) -> Floats:
    """A uniform number in [0, 1) for each sequence (shape [S]) at its position (shape [S])."""
    with np.errstate(over="ignore"):
        z = seeds + (positions.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return np.asarray((z >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def top_logits(logits: Logits, num_top: int) -> tuple[Logits, Ints]:
    """The largest logits of each row and their ids, largest first, of equal ones the lower id first, as ONNX's TopK.

    Args:
        logits: Shape [S, vocabulary].
        num_top: How many; both results have shape [S, min(num_top, vocabulary)].
    """
    num_rows, num_tokens = logits.shape
    size = min(num_top, num_tokens)
    if size == 1:
        ids = logits.argmax(axis=1)[:, None]
        return np.take_along_axis(logits, ids, axis=1), ids
    num_blocks = num_tokens // BLOCK
    if num_blocks > 2 * size:
        # the largest lie in the blocks with the largest maxima: in a large vocabulary the others need no sorting
        maxima = logits[:, : num_blocks * BLOCK].reshape(num_rows, num_blocks, BLOCK).max(axis=2)
        inside = _largest(maxima, size)[:, :, None] * BLOCK + np.arange(BLOCK)
        rest = np.broadcast_to(np.arange(num_blocks * BLOCK, num_tokens), (num_rows, num_tokens % BLOCK))
        candidates = np.concatenate([inside.reshape(num_rows, -1), rest], axis=1)
        ids = np.take_along_axis(candidates, _largest(np.take_along_axis(logits, candidates, axis=1), size), axis=1)
    else:
        ids = _largest(logits, size)
    values = np.take_along_axis(logits, ids, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(values, order, axis=1), np.take_along_axis(ids, order, axis=1)


def _largest(values: Logits, size: int) -> Ints:
    """The columns of the `size` largest values of each row, ascending; of equal ones the first; shape [S, size]."""
    border = np.partition(values, values.shape[1] - size, axis=1)[:, -size, None]
    is_kept = ~(values < border)  # not `>=`: where a border is NaN, there would be too few
    if np.count_nonzero(is_kept) > size * len(values):
        is_above = values > border
        is_tied = is_kept & ~is_above
        is_kept = is_above | (is_tied & (is_tied.cumsum(axis=1) <= size - is_above.sum(axis=1, keepdims=True)))
    return is_kept.nonzero()[1].reshape(len(values), size)


def choose(top: Logits, params: SamplingParams, draws: Floats, ids: Ints | None = None) -> Ints:
    """Which of the top logits each row takes: an index into its columns, shape [S].

    Args:
        top: The largest logits of each row, largest first, shape [S, k].
        params: Temperature (above 0), top-k and top-p.
        draws: A uniform number in [0, 1) for each row, shape [S].
        ids: The columns' tokens, shape [S, k]. With them the draw walks through the tokens by id: two nearly equal
            logits change places in the order of values from one way of computing them to another, and what is drawn
            should not change with them.
    """
    scaled = top[:, : params.num_top].astype(np.float64) / params.temperature
    weights = np.exp(scaled - scaled[:, :1])
    cumulative = np.cumsum(weights, axis=1)
    if params.top_p < 1.0:
        # a token stays while those before it do not yet reach top_p; so the first always stays
        before = cumulative - weights
        weights = np.where(before < params.top_p * cumulative[:, -1:], weights, 0.0)
        cumulative = np.cumsum(weights, axis=1)
    order = None
    if ids is not None:
        order = np.argsort(ids[:, : params.num_top], axis=1)
        cumulative = np.cumsum(np.take_along_axis(weights, order, axis=1), axis=1)
    totals = cumulative[:, -1]
    targets = np.minimum(draws * totals, np.nextafter(totals, 0.0))  # the product may round up to the total
    places = np.asarray((cumulative <= targets[:, None]).sum(axis=1), dtype=np.int64)
    return places if order is None else np.take_along_axis(order, places[:, None], axis=1)[:, 0]


def normalizers_and_entropies(logits: Logits) -> tuple[Floats, Floats]:
    """log Σ exp over the vocabulary, and the entropy (nats), of each row; in float64, each of shape [S]."""
    largest = logits.max(axis=1).astype(np.float64)
    shifted = logits - largest[:, None]
    weights = np.exp(shifted)
    totals = weights.sum(axis=1)
    logs = np.log(totals)
    weights *= shifted
    return logs + largest, np.maximum(logs - weights.sum(axis=1) / totals, 0.0)
