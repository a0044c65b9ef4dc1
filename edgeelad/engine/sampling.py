"""Choose the next tokens of a batch of sequences.

A sequence's draws depend on its own seed and positions alone: uniform numbers come from a counter-based generator
(SplitMix64, Steele et al. 2014), not from a shared stream, so the rest of the batch and its order change nothing.

Sampling is over the 64 most likely tokens (fewer with `top_k`), renormalized, by inverse CDF: a graph then returns 64
numbers instead of a vocabulary, and every implementation draws the same token. Log-probabilities and entropies are of
the whole distribution at temperature 1, in float64.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeelad.errors import ModelError

MAX_TOP = 64
BLOCK = 64  # tokens per block of a vocabulary: see `top_logits`
Logits = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Seeds = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How tokens are chosen, and their maximum number.

    Attributes:
        max_new_tokens: Maximum tokens to generate, the end token included.
        temperature: Divisor of the logits; 0 takes the most likely token, and of several the lowest id.
        top_k: Sample from the k most likely tokens; 0 and more than MAX_TOP mean MAX_TOP.
        top_p: Sample from the most likely tokens that together reach this probability (of the top k); 1 is off.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0

    @property
    def num_top(self) -> int:
        """Number of tokens to choose from."""
        return 1 if self.temperature == 0.0 else min(self.top_k or MAX_TOP, MAX_TOP)


@dataclass(frozen=True, slots=True, eq=False)
class Choices:
    """The choices of a batch in one step, each of shape [S].

    Attributes:
        tokens: The chosen ids.
        logprobs: Their log-probabilities (nats).
        entropies: Entropies of their distributions (nats).
    """

    tokens: Ints
    logprobs: Floats
    entropies: Floats


def make_seed(run_seed: int, question_id: str, prefix: int, branch: int) -> int:
    """The seed of one branch, in [0, 2^64), independent of whatever else is generated."""
    text = f"edgeelad-branch-1\0{run_seed}\0{question_id}\0{prefix}\0{branch}"
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def choose_tokens(logits: Logits, params: SamplingParams, seeds: Seeds, positions: Ints) -> Choices:
    """Choose each row's next token.

    Args:
        logits: Shape [S, vocabulary].
        params: How to choose.
        seeds: Each row's seed, shape [S].
        positions: Number of tokens already chosen per row, shape [S].
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


def check_finite(logprobs: Floats) -> None:
    """Check the log-probabilities of chosen tokens.

    Raises:
        ModelError: The student computes NaN or infinity.
    """
    if not np.isfinite(logprobs).all():
        raise not_finite()


def not_finite() -> ModelError:
    """The error of a student that computes NaN or infinity."""
    return ModelError(
        "the student computes NaN or infinity instead of probabilities; train it with a lower learning rate, or "
        "export it again"
    )


def uniforms(seeds: Seeds, positions: Ints) -> Floats:
    """A uniform number in [0, 1) per sequence (seeds of shape [S]) and position (shape [S])."""
    with np.errstate(over="ignore"):
        z = seeds + (positions.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return np.asarray((z >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def top_logits(logits: Logits, num_top: int) -> tuple[Logits, Ints]:
    """The largest logits of each row and their ids, in descending order, equal ones by id, as ONNX's TopK orders them.

    Args:
        logits: Shape [S, vocabulary].
        num_top: Number of logits; both results have shape [S, min(num_top, vocabulary)].
    """
    num_rows, num_tokens = logits.shape
    size = min(num_top, num_tokens)
    if size == 1:
        ids = logits.argmax(axis=1)[:, None]
        return np.take_along_axis(logits, ids, axis=1), ids
    num_blocks = num_tokens // BLOCK
    if num_blocks > 2 * size:
        # the largest logits lie in the blocks with the largest maxima; the others need no sorting
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
    """The columns of the `size` largest values of each row, ascending, the first of equal ones; shape [S, size]."""
    border = np.partition(values, values.shape[1] - size, axis=1)[:, -size, None]
    is_kept = ~(values < border)  # not `>=`: if a border is NaN, there would be too few
    if np.count_nonzero(is_kept) > size * len(values):
        is_above = values > border
        is_tied = is_kept & ~is_above
        is_kept = is_above | (is_tied & (is_tied.cumsum(axis=1) <= size - is_above.sum(axis=1, keepdims=True)))
    return is_kept.nonzero()[1].reshape(len(values), size)


def choose(top: Logits, params: SamplingParams, draws: Floats, ids: Ints | None = None) -> Ints:
    """Choose one of the top logits per row: an index into its columns, shape [S].

    Args:
        top: The largest logits of each row, in descending order, shape [S, k].
        params: Temperature (above 0), top-k and top-p.
        draws: A uniform number in [0, 1) per row, shape [S].
        ids: The columns' tokens, shape [S, k]. With them, the inverse CDF runs over the tokens by id: the order of
            nearly equal logits differs between ways to compute them, and the drawn token should not.
    """
    scaled = top[:, : params.num_top].astype(np.float64) / params.temperature
    weights = np.exp(scaled - scaled[:, :1])
    cumulative = np.cumsum(weights, axis=1)
    if params.top_p < 1.0:
        # a token stays if those before it do not reach top_p, so the first always stays
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
    """log Σ exp over the vocabulary, and the entropy (nats), per row; float64, each of shape [S]."""
    largest = logits.max(axis=1).astype(np.float64)
    shifted = logits - largest[:, None]
    weights = np.exp(shifted)
    totals = weights.sum(axis=1)
    logs = np.log(totals)
    weights *= shifted
    return logs + largest, np.maximum(logs - weights.sum(axis=1) / totals, 0.0)
