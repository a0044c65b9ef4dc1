"""One generation for a served request: its limits, its pieces of text, its outcome; and the queue of requests.

Knows no HTTP; the pieces come from a plain iterator, which the caller may take in a thread and close at any time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from edgeelad.edge.api import ApiError, GenerationRequest, Usage
from edgeelad.edge.stops import cut_at_stops
from edgeelad.records import AnswerKind, Question

Finish = Literal["stop", "length"]


class Tokens(Protocol):
    """The part of `engine.codec.Codec` that serving needs."""

    @property
    def max_context(self) -> int:
        """Maximum number of tokens of prompt and explanation together."""
        ...

    @property
    def max_token_chars(self) -> int:
        """Length of the vocabulary's longest token, in characters."""
        ...

    def encode_prompt(self, question: Question) -> list[int]:
        """The prompt's tokens."""
        ...

    def encode_completion(self, text: str) -> list[int]:
        """The tokens of generated text."""
        ...


class Explainer(Protocol):
    """The part of `engine.student.Student` that serving needs."""

    @property
    def codec(self) -> Tokens:
        """Its tokens."""
        ...

    def fits(self, question: Question) -> bool:
        """Whether the question leaves room for an explanation in its context."""
        ...

    def stream(self, question: Question, max_tokens: int) -> Iterator[str]:
        """The greedy explanation, piece by piece; whole UTF-8 only."""
        ...


@dataclass(frozen=True, slots=True)
class ServedStudent:
    """A student to serve: its name, its kind of answers, and its default token limit."""

    student: Explainer
    name: str
    kind: AnswerKind
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Generation:
    """A generation that may start.

    Attributes:
        served: The student.
        request: What was asked.
        question: The question as the student gets it.
        prompt_tokens: Tokens of the prompt.
        max_tokens: Maximum number of tokens to generate: the request's, reduced to what the context has room for.
    """

    served: ServedStudent
    request: GenerationRequest
    question: Question
    prompt_tokens: int
    max_tokens: int

    def pieces(self) -> Iterator[str]:
        """Yield the text piece by piece, up to the first stop text."""
        pieces = self.served.student.stream(self.question, self.max_tokens)
        try:
            yield from cut_at_stops(pieces, self.request.stop)
        finally:
            close(pieces)

    def outcome(self, text: str) -> tuple[Finish, Usage]:
        """Return the finish reason and the token counts of a finished generation."""
        num_tokens = len(self.served.student.codec.encode_completion(text))
        return ("length" if num_tokens >= self.max_tokens else "stop"), Usage(self.prompt_tokens, num_tokens)


def check_length(served: ServedStudent, request: GenerationRequest) -> None:
    """Refuse, without tokenizing it, a question that cannot fit: each token stands for a limited number of characters.

    Raises:
        ApiError: The question is too long.
    """
    codec = served.student.codec
    max_chars = codec.max_context * codec.max_token_chars
    if len(request.text) > max_chars:
        raise ApiError(
            400,
            f"The question has {len(request.text):,} characters; this student's context of {codec.max_context} tokens "
            f"holds {max_chars:,} at the very most. Ask a shorter question.",
            "messages" if request.kind == "chat" else "prompt",
            "context_length_exceeded",
        )


def prepare(served: ServedStudent, request: GenerationRequest) -> Generation:
    """Fit a request into the student's context.

    Raises:
        ApiError: The question leaves no room for an explanation.
    """
    question = Question("request", request.text, served.kind)
    codec = served.student.codec
    num_prompt = len(codec.encode_prompt(question))
    if not served.student.fits(question):
        raise ApiError(
            400,
            f"The question has {num_prompt} tokens with its prompt; this student's context is {codec.max_context} "
            "tokens. Ask a shorter question.",
            "messages" if request.kind == "chat" else "prompt",
            "context_length_exceeded",
        )
    room = codec.max_context - num_prompt
    return Generation(served, request, question, num_prompt, min(request.max_tokens or served.max_tokens, room))


def close(pieces: Iterator[str]) -> None:
    """Close an iterator that can be closed, which ends its generation."""
    closing = getattr(pieces, "close", None)
    if closing is not None:
        closing()


class Turns:
    """A queue: one generation runs, a bounded number wait in order, further ones are refused."""

    def __init__(self, max_waiting: int) -> None:
        self.max_waiting = max_waiting
        self.num_waiting = 0
        self._lock = asyncio.Lock()

    async def take(self) -> None:
        """Wait for the turn; `release` must follow.

        Raises:
            ApiError: 503, too many are waiting.
        """
        if self._lock.locked() and self.num_waiting >= self.max_waiting:
            raise ApiError(
                503,
                f"{self.num_waiting} requests are waiting already; try again in a moment.",
                code="overloaded",
                kind="server_error",
            )
        self.num_waiting += 1
        try:
            await self._lock.acquire()
        finally:
            self.num_waiting -= 1

    def release(self) -> None:
        """Let the next request run."""
        self._lock.release()
