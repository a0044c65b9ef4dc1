"""The generation that a served request asks for: its choices, their text as it grows, and what they say of themselves.

Knows no HTTP. Tokens come from the scheduler's jobs; text is decoded and cut at stop texts here, on the event loop.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from edgeelad.edge.api import ApiError, GenerationRequest, Usage
from edgeelad.edge.scheduler import Job, Scheduler
from edgeelad.edge.stops import StopCutter
from edgeelad.engine.codec import Codec, TextStream
from edgeelad.engine.generate import SequenceRequest
from edgeelad.engine.sampling import SamplingParams, make_seed
from edgeelad.engine.student import MIN_EXPLANATION_TOKENS, Student
from edgeelad.pool.check import content_hash
from edgeelad.records import AnswerKind, Question, ReasoningTree
from edgeelad.uncertainty.risk import risk_of
from edgeelad.uncertainty.traces import step_traces

Finish = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class ServedStudent:
    """A student to serve.

    Attributes:
        student: The student.
        name: Under which it is served.
        kind: Of its answers.
        max_tokens: Tokens per explanation if a request does not say.
        token_limit: Maximum tokens that a request may ask for; None: what the context has room for.
    """

    student: Student
    name: str
    kind: AnswerKind
    max_tokens: int
    token_limit: int | None = None

    @property
    def codec(self) -> Codec:
        """The student's tokenization."""
        return self.student.codec


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """A generated token with its log-probability, and the most likely ones in its place (nats)."""

    text: str
    logprob: float
    top: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a choice's text, and its tokens if log-probabilities were requested."""

    index: int
    text: str
    tokens: tuple[TokenInfo, ...] | None


@dataclass(slots=True, eq=False)
class Choice:
    """One of a request's explanations.

    Attributes:
        index: Its number.
        job: Its tokens.
        text: The text so far, up to the first stop text.
        finish: Why it ended; None until then.
        num_tokens: Tokens that were generated, without the end token.
        tree: The explanation's steps, answer and uncertainty, once it has ended.
    """

    index: int
    job: Job
    text: str = ""
    finish: Finish | None = None
    num_tokens: int = 0
    tree: ReasoningTree | None = None
    is_cut: bool = False  # by a stop text
    _starts: list[int] = field(default_factory=list)  # where each token's text begins


@dataclass(frozen=True, slots=True)
class Generation:
    """A generation that may start.

    Attributes:
        served: The student.
        request: What was asked.
        question: The question as the student gets it.
        prompt: Its tokens.
        max_tokens: Maximum tokens per choice: the request's, reduced to what the limits have room for.
        seed: From which each choice's seed derives.
    """

    served: ServedStudent
    request: GenerationRequest
    question: Question
    prompt: tuple[int, ...]
    max_tokens: int
    seed: int

    @property
    def is_shortened(self) -> bool:
        """Whether the client allows fewer tokens than it would have got without saying."""
        return self.request.max_tokens == self.max_tokens < self.served.max_tokens

    def start(self, scheduler: Scheduler) -> list[Choice]:
        """Queue the choices.

        Raises:
            ApiError: 503, the queue is full.
        """
        params = SamplingParams(self.max_tokens, self.request.temperature, top_p=self.request.top_p)
        seeds = [make_seed(self.seed, "request", 0, index) for index in range(self.request.num_choices)]
        requests = [SequenceRequest(self.prompt, params, seed, self.request.num_top or 0) for seed in seeds]
        return [Choice(index, job) for index, job in enumerate(scheduler.submit(requests))]

    async def pieces(self, choice: Choice, scheduler: Scheduler) -> AsyncGenerator[Piece, None]:
        """The text of a choice, piece by piece, up to the first stop text; then the choice is complete.

        Raises:
            ApiError: It could not be generated.
        """
        stream, cutter = TextStream(self.served.codec), StopCutter(self.request.stop)
        num_decoded = num_told = 0

        def piece(text: str, *, is_last: bool) -> Piece:
            nonlocal num_told
            choice.text += text
            end = choice.num_tokens
            if not is_last or cutter.is_stopped:
                end = sum(start < len(choice.text) for start in choice._starts)
            first, num_told = num_told, end
            return Piece(choice.index, text, self._tokens(choice, first, end))

        async for fresh in choice.job.tokens():
            for token in fresh:
                choice._starts.append(num_decoded)
                choice.num_tokens += 1
                decoded = stream.push(token)
                num_decoded += len(decoded)
                if ready := cutter.push(decoded):
                    yield piece(ready, is_last=False)
                if cutter.is_stopped:
                    break
            if cutter.is_stopped:
                scheduler.cancel([choice.job])
                break
        rest = cutter.push(stream.flush()) if not cutter.is_stopped else ""
        rest += cutter.flush()
        yield piece(rest, is_last=True)
        self._complete(choice, num_told if cutter.is_stopped else None)

    def _complete(self, choice: Choice, num_kept: int | None) -> None:
        sequence = choice.job.result(num_kept)
        choice.is_cut = num_kept is not None
        choice.finish = "length" if sequence.finish_reason == "length" else "stop"
        choice.tree = self.served.student.read(self.question, self.prompt, sequence)

    def _tokens(self, choice: Choice, first: int, end: int) -> tuple[TokenInfo, ...] | None:
        num_top, sequence = self.request.num_top, choice.job.sequence
        if num_top is None or sequence is None:
            return None
        infos, text = [], self.served.codec.token_text
        for place in range(first, end):
            before = sequence.ids[place - 1] if place else None
            top = sequence.top[place] if num_top else []
            infos.append(
                TokenInfo(
                    text(sequence.ids[place], before),
                    sequence.logprobs[place],
                    tuple((text(token, before), logprob) for token, logprob in top),
                )
            )
        return tuple(infos)

    def usage(self, choices: Sequence[Choice]) -> Usage:
        """Tokens of the prompt, and of all choices."""
        return Usage(len(self.prompt), sum(choice.num_tokens for choice in choices))


async def merge(generation: Generation, choices: Sequence[Choice], scheduler: Scheduler) -> AsyncGenerator[Piece, None]:
    """The pieces of all choices as they come."""
    queue: asyncio.Queue[Piece | None] = asyncio.Queue()

    async def follow(choice: Choice) -> None:
        try:
            async for piece in generation.pieces(choice, scheduler):
                queue.put_nowait(piece)
        finally:
            queue.put_nowait(None)

    tasks = [asyncio.create_task(follow(choice)) for choice in choices]
    try:
        for _ in tasks:
            while (piece := await queue.get()) is not None:
                yield piece
        for task in tasks:
            await task
    finally:
        for task in tasks:
            task.cancel()


def insight(tree: ReasoningTree) -> dict[str, Any]:
    """What an explanation says of itself: its steps, how sure the student was of each, and its answer.

    A step's confidence is the geometric mean probability of its tokens, 0 to 1; the explanation's is that of all its
    tokens. `risk` is the probability that the answer is wrong, as `edgeelad score --strategy risk` estimates it.
    """
    traces = step_traces(tree)[: tree.num_steps]
    return {
        "steps": list(tree.steps),
        "confidences": [math.exp(trace.mean_logprob) if trace.num_tokens else None for trace in traces],
        "answer": tree.answer,
        "confidence": math.exp(tree.mean_logprob) if tree.token_logprobs else None,
        "risk": risk_of(tree) if tree.token_logprobs else None,
    }


def check_length(served: ServedStudent, request: GenerationRequest) -> None:
    """Refuse, without tokenizing it, a question that cannot fit: each token stands for a limited number of characters.

    Raises:
        ApiError: The question is too long.
    """
    codec = served.codec
    max_chars = codec.max_context * codec.max_token_chars
    if len(request.text) > max_chars:
        raise ApiError(
            400,
            f"The question has {len(request.text):,} characters; this student's context of {codec.max_context} tokens "
            f"holds {max_chars:,} at the very most. Ask a shorter question.",
            request.question_param,
            "context_length_exceeded",
        )


def prepare(served: ServedStudent, request: GenerationRequest) -> Generation:
    """Fit a request into the student's context.

    Raises:
        ApiError: The question leaves no room for an explanation.
    """
    question, codec = Question("", request.text, served.kind), served.codec
    question = replace(question, id=content_hash(question))  # by which the teacher's ledger counts questions
    prompt = tuple(codec.encode_prompt(question))
    if len(prompt) > codec.max_context - MIN_EXPLANATION_TOKENS:
        raise ApiError(
            400,
            f"The question has {len(prompt)} tokens with its prompt; this student's context is {codec.max_context} "
            "tokens. Ask a shorter question.",
            request.question_param,
            "context_length_exceeded",
        )
    room = min(codec.max_context - len(prompt), served.token_limit or codec.max_context)
    seed = secrets.randbits(63) if request.seed is None else request.seed
    return Generation(served, request, question, prompt, min(request.max_tokens or served.max_tokens, room), seed)
