"""What it is to generate tokens: the records that go in and come out, and the seam where a generator is put in.

Tokens only: no prompts, answers or teachers. `batch.BatchGenerator` generates from any exported graph with the standard
names; another implementation serves `student.Student` as well if it keeps the promises of `TokenGenerator`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from edgeelad.engine.sampling import SamplingParams
from edgeelad.records import FinishReason

__all__ = [
    "BranchPoint",
    "ForcedToken",
    "GeneratedTokens",
    "Limits",
    "SamplingParams",
    "Stop",
    "TokenGenerator",
    "TreeRequest",
    "TreeResult",
]


@dataclass(frozen=True, slots=True)
class Stop:
    """When a sequence ends besides its end token: `check` is asked whenever one of `tokens` was chosen.

    `check` gets the tokens generated so far, the chosen one included, and says whether the sequence ends with it.
    """

    tokens: frozenset[int]
    check: Callable[[Sequence[int]], bool]


@dataclass(frozen=True, slots=True)
class Limits:
    """What ends a sequence, besides its number of tokens: end tokens, the student's context, a stop."""

    eos_ids: frozenset[int]
    max_context: int
    stop: Stop | None = None


@dataclass(frozen=True, slots=True)
class GeneratedTokens:
    """One generated sequence.

    Attributes:
        ids: The tokens, without the end token.
        logprobs: Log-probability of each chosen token at temperature 1, over the whole vocabulary (nats); where an end
            token was chosen there is one more than there are `ids`.
        entropies: Entropy of the distribution at temperature 1 that each of these was chosen from (nats).
        finish_reason: "eos", "stop" (the stop applied) or "length" (the limit of tokens, or the context, is reached).
    """

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    entropies: tuple[float, ...]
    finish_reason: FinishReason

    @property
    def num_tokens(self) -> int:
        """Tokens that were chosen, the end token included."""
        return len(self.logprobs)

    @property
    def mean_logprob(self) -> float:
        """Mean log-probability of the chosen tokens (nats); 0 where there are none."""
        return sum(self.logprobs) / len(self.logprobs) if self.logprobs else 0.0


@dataclass(frozen=True, slots=True)
class BranchPoint:
    """Where branches leave a request.

    Attributes:
        num_tokens: They start after this many of the completion's tokens, 0 being the bare prompt.
        seeds: One sequence is sampled for each.
        forced_ids: Tokens put after the prefix, to see which token the student would choose next; empty: not asked.
    """

    num_tokens: int
    seeds: tuple[int, ...] = ()
    forced_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class TreeRequest:
    """What the branches of one question share: the prompt, a completion, and the points where they leave it."""

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    points: tuple[BranchPoint, ...]


@dataclass(frozen=True, slots=True)
class ForcedToken:
    """The likeliest token after forced ones: its id, and the entropy of its distribution (nats)."""

    id: int
    entropy: float


@dataclass(frozen=True, slots=True)
class TreeResult:
    """What grew from one request.

    Attributes:
        branches: For each point its sequences, in the order of its seeds; their `ids` follow the prefix. Where the
            context leaves no room after a prefix its sequences are empty, with finish reason "length".
        forced: For each point the token after its forced ones; None where not asked, or where the context is full.
    """

    branches: tuple[tuple[GeneratedTokens, ...], ...]
    forced: tuple[ForcedToken | None, ...]


class TokenGenerator(Protocol):
    """Generates tokens with one student.

    Sequences are independent: the tokens of each follow from its own prefix, its seed and the parameters alone, as
    `reference.generate_one` defines them, whatever else is generated with it and in whichever order. Log-probabilities
    and entropies agree with that definition to 1e-5.
    """

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        params: SamplingParams,
        limits: Limits,
        seeds: Sequence[int] | None = None,
    ) -> list[GeneratedTokens]:
        """Generate one sequence from each prompt (at least one token long); `seeds` only where it is sampled."""
        ...

    def generate_trees(
        self, requests: Sequence[TreeRequest], params: SamplingParams, limits: Limits
    ) -> list[TreeResult]:
        """Sample the branches of each request, and see what follows its forced tokens."""
        ...

    def stream(self, prompt: Sequence[int], max_tokens: int, limits: Limits) -> Iterator[int]:
        """The greedy continuation of one prompt, token by token, without the end token."""
        ...

    def close(self) -> None:
        """Let go of the session and its memory."""
        ...
