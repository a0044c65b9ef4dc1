"""The interface of token generators: `TokenGenerator`, its requests and results.

Works on token ids; prompts and answers belong to `student.Student`. `packed.generator.PackedGenerator` runs the
engine's graphs, `plain.batch.BatchGenerator` any exported graph with the standard names.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from edgeelad.engine.sampling import SamplingParams
from edgeelad.errors import ModelError
from edgeelad.records import FinishReason

__all__ = [
    "BranchPoint",
    "ForcedToken",
    "GeneratedTokens",
    "Limits",
    "LiveBatch",
    "LiveSequence",
    "SamplingParams",
    "SequenceRequest",
    "Stop",
    "TokenGenerator",
    "TreeRequest",
    "TreeResult",
]


@dataclass(frozen=True, slots=True)
class Stop:
    """A stop condition besides end tokens: `check` is called whenever one of `tokens` was chosen.

    It gets the tokens generated so far, the chosen one included, and returns whether the sequence ends with it.
    """

    tokens: Container[int]
    check: Callable[[Sequence[int]], bool]


@dataclass(frozen=True, slots=True)
class Limits:
    """What ends a sequence besides its maximum length: end tokens, the student's context, a stop condition."""

    eos_ids: frozenset[int]
    max_context: int
    stop: Stop | None = None


@dataclass(frozen=True, slots=True)
class GeneratedTokens:
    """One generated sequence.

    Attributes:
        ids: The tokens, without the end token.
        logprobs: Log-probability of each chosen token at temperature 1, over the whole vocabulary (nats); one more than
            `ids` if an end token was chosen.
        entropies: Entropy of the distribution, at temperature 1, of each chosen token (nats).
        finish_reason: "eos", "stop" (the stop condition) or "length" (maximum tokens, or end of the context).
    """

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    entropies: tuple[float, ...]
    finish_reason: FinishReason

    @property
    def num_tokens(self) -> int:
        """Number of chosen tokens, the end token included."""
        return len(self.logprobs)

    @property
    def mean_logprob(self) -> float:
        """Mean log-probability of the chosen tokens (nats); 0 if there are none."""
        return sum(self.logprobs) / len(self.logprobs) if self.logprobs else 0.0


@dataclass(slots=True, eq=False)
class LiveSequence:
    """A sequence that is being generated.

    Attributes:
        seed: Of its random draws.
        budget: Maximum number of tokens, at least one.
        ids: Tokens chosen so far, without an end token.
        logprobs, entropies: One per chosen token.
        num_top: Number of most likely tokens to keep per chosen token.
        top: These tokens with their log-probabilities, in descending order; one list per chosen token, if requested.
        finish_reason: Why it ended; None until then.
        error: Why it failed: the student computed NaN; None if it did not.
    """

    seed: int
    budget: int
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    num_top: int = 0
    top: list[list[tuple[int, float]]] = field(default_factory=list)
    error: ModelError | None = None

    @property
    def is_done(self) -> bool:
        """Whether it has ended or failed."""
        return self.finish_reason is not None or self.error is not None

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
        """The ended sequence.

        Raises:
            ModelError: It failed.
        """
        if self.error is not None:
            raise self.error
        assert self.finish_reason is not None, "the sequence has not ended"
        return GeneratedTokens(tuple(self.ids), tuple(self.logprobs), tuple(self.entropies), self.finish_reason)


@dataclass(frozen=True, slots=True)
class SequenceRequest:
    """A sequence to generate in a `LiveBatch`.

    Attributes:
        prompt_ids: Leaves room for a token in the student's context.
        params: How to choose tokens, and their maximum number, at least one.
        seed: Of its random draws.
        num_top: Number of most likely tokens to keep per chosen token.
    """

    prompt_ids: tuple[int, ...]
    params: SamplingParams
    seed: int = 0
    num_top: int = 0

    def begin(self, limits: Limits) -> LiveSequence:
        """The sequence before its first token."""
        budget = min(self.params.max_new_tokens, limits.max_context - len(self.prompt_ids))
        assert budget > 0, "it leaves room for a token"
        return LiveSequence(self.seed, budget, num_top=self.num_top)


@dataclass(frozen=True, slots=True)
class BranchPoint:
    """A prefix of a tree's completion after which branches start.

    Attributes:
        num_tokens: Length of the prefix; 0 is the bare prompt.
        seeds: One per branch to sample.
        forced_ids: Tokens appended to the prefix to find the student's next token; empty: not requested.
    """

    num_tokens: int
    seeds: tuple[int, ...] = ()
    forced_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class TreeRequest:
    """A tree to generate: a prompt and its completion, prefilled once, and the points where branches start.

    The branches share the KV cache of their prefix.
    """

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    points: tuple[BranchPoint, ...]


@dataclass(frozen=True, slots=True)
class ForcedToken:
    """The most likely token after forced ones: its id, and the entropy of its distribution (nats)."""

    id: int
    entropy: float


@dataclass(frozen=True, slots=True)
class TreeResult:
    """The result of a `TreeRequest`.

    Attributes:
        branches: Per point its sequences, in the order of its seeds; their `ids` follow the prefix. If a prefix fills
            the context, its sequences are empty, with finish reason "length".
        forced: Per point the token after its forced ones; None if not requested, or if the context is full.
    """

    branches: tuple[tuple[GeneratedTokens, ...], ...]
    forced: tuple[ForcedToken | None, ...]


class LiveBatch(Protocol):
    """Sequences that advance together and join and leave at any time: continuous batching for a server.

    A sequence has the same bits alone and in any company. If a method raises, `clear` makes the batch usable again.
    """

    @property
    def num_rows(self) -> int:
        """Maximum number of sequences."""
        ...

    @property
    def live(self) -> Sequence[LiveSequence]:
        """The sequences that have neither ended nor failed."""
        ...

    def add(self, request: SequenceRequest) -> LiveSequence | None:
        """Prefill a sequence and choose its first token, with which it may end; None if there is no room now.

        A long prompt is prefilled by `step` instead, in parts.

        An empty batch has room for any sequence.
        """
        ...

    def step(self) -> None:
        """Choose one more token per sequence whose prompt is prefilled; those that end leave."""
        ...

    def remove(self, sequence: LiveSequence) -> None:
        """Remove a sequence that is no longer wanted."""
        ...

    def clear(self) -> None:
        """Remove all sequences."""
        ...


class TokenGenerator(Protocol):
    """Generates tokens with one student.

    Sequences are independent: the tokens of each follow from its own prefix, seed and parameters alone, as
    `reference.generate_one` defines them, whatever else is generated with it, and in whichever order.
    Log-probabilities and entropies agree with that definition to 1e-5.
    """

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        params: SamplingParams,
        limits: Limits,
        seeds: Sequence[int] | None = None,
        prefixes: Sequence[Sequence[int]] | None = None,
    ) -> list[GeneratedTokens]:
        """Generate one sequence per prompt.

        Args:
            prompts: Token ids, at least one per prompt.
            params: How to choose tokens.
            limits: What ends a sequence.
            seeds: One per prompt; required for sampling.
            prefixes: Tokens of each completion that are written already; the results do not repeat them.
        """
        ...

    def generate_trees(
        self, requests: Sequence[TreeRequest], params: SamplingParams, limits: Limits
    ) -> list[TreeResult]:
        """Sample the branches of each tree, and find what follows its forced tokens."""
        ...

    def stream(self, prompt: Sequence[int], max_tokens: int, limits: Limits) -> Iterator[int]:
        """The greedy continuation of one prompt, token by token, without the end token."""
        ...

    def open_batch(self, limits: Limits, num_rows: int) -> LiveBatch:
        """Open a batch of up to `num_rows` sequences; nothing else may be generated while it has any."""
        ...

    def close(self) -> None:
        """Release the session and its memory. Idempotent."""
        ...
