"""Answer one request: from its generation to the response, whole or streamed, by the student or by the teacher."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from edgeelad.edge.api import ApiError, failure
from edgeelad.edge.escalation import Escalation, Handed
from edgeelad.edge.formats import UnfilledError, fill
from edgeelad.edge.generation import Choice, Generation, Piece, insight, merge
from edgeelad.edge.metrics import Metrics
from edgeelad.edge.responses import (
    Conclusion,
    Envelope,
    first_chunk,
    last_chunk,
    piece_chunk,
    refusal_chunk,
    usage_body,
    whole_body,
    whole_choice,
)
from edgeelad.edge.scheduler import Scheduler
from edgeelad.edge.stops import StopCutter
from edgeelad.files import dump_json

_log = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Answering:
    """Answers one request; an ASGI application is its method `respond`.

    Its places in the queue and on the student are free as soon as the response is complete or the client has left.
    """

    def __init__(
        self, generation: Generation, scheduler: Scheduler, metrics: Metrics, escalation: Escalation | None
    ) -> None:
        kind = generation.request.kind
        self.generation, self.scheduler, self.metrics, self.escalation = generation, scheduler, metrics, escalation
        self.envelope = Envelope(
            kind,
            f"{'chatcmpl' if kind == 'chat' else 'cmpl'}-{uuid.uuid4().hex}",
            int(time.time()),
            generation.served.name,
        )

    async def respond(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer until the response is complete, or the client leaves."""
        choices = self.generation.start(self.scheduler)
        answer = self._stream if self.generation.request.is_stream else self._whole
        work = asyncio.create_task(answer(choices, scope, receive, send))
        leaving = asyncio.create_task(_client_leaves(receive))
        try:
            await asyncio.wait({work, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                await work
        finally:
            self.scheduler.cancel(choice.job for choice in choices)
            for task in (work, leaving):
                task.cancel()
            await asyncio.gather(work, leaving, return_exceptions=True)
            self._measure(choices)

    async def _whole(self, choices: Sequence[Choice], scope: Message, receive: Receive, send: Send) -> None:
        from starlette.responses import JSONResponse

        request = self.generation.request
        tokens: dict[int, list[Any]] = {choice.index: [] for choice in choices}
        async with aclosing(merge(self.generation, choices, self.scheduler)) as pieces:
            async for piece in pieces:
                tokens[piece.index] += piece.tokens or ()
        bodies = []
        for choice in choices:
            end = await self._conclude(choice)
            found = None if end.is_rewritten or request.num_top is None else tokens[choice.index]
            bodies.append(whole_choice(request.kind, choice.index, end, found))
        body = whole_body(self.envelope, bodies, self.generation.usage(choices))
        await JSONResponse(body)(scope, receive, send)

    async def _stream(self, choices: Sequence[Choice], scope: Message, receive: Receive, send: Send) -> None:
        """Send events as they come; the status is sent with the first one, so that a failure before it is a 500."""
        is_started = False
        try:
            async with aclosing(self._events(choices)) as events:
                async for event in events:
                    if not is_started:
                        is_started = True
                        await send(_stream_head())
                    await send({"type": "http.response.body", "body": event.encode(), "more_body": True})
        except Exception as error:
            if not is_started:
                raise
            if not isinstance(error, ApiError):
                _log.exception("a stream failed")
            body = (error if isinstance(error, ApiError) else failure()).to_json()
            await send({"type": "http.response.body", "body": _event(body).encode(), "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _events(self, choices: Sequence[Choice]) -> AsyncGenerator[str, None]:
        """The server-sent events of a stream.

        With escalation, a choice is sent when it is clear who answers; an object is sent in one piece.
        """
        request, envelope = self.generation.request, self.envelope
        is_held = self.escalation is not None or request.format is not None
        held: dict[int, list[Piece]] = {choice.index: [] for choice in choices}
        starts = [0] * len(choices)
        is_first = True
        async with aclosing(merge(self.generation, choices, self.scheduler)) as pieces:
            async for piece in pieces:
                if is_first and request.kind == "chat":
                    for choice in choices:
                        yield _event(first_chunk(envelope, choice.index))
                is_first = False
                if is_held:
                    held[piece.index].append(piece)
                elif piece.text or piece.tokens:
                    yield _event(piece_chunk(envelope, piece.index, piece.text, piece.tokens, starts[piece.index]))
                    starts[piece.index] += len(piece.text)
        for choice in choices:
            end = await self._conclude(choice)
            start = 0
            for piece in [Piece(choice.index, end.text, None)] if end.is_rewritten else held[choice.index]:
                if piece.text or piece.tokens:
                    yield _event(piece_chunk(envelope, choice.index, piece.text, piece.tokens, start))
                    start += len(piece.text)
            if end.refusal is not None:
                yield _event(refusal_chunk(envelope, choice.index, end.refusal))
            yield _event(last_chunk(envelope, choice.index, end))
        if request.include_usage:
            yield _event(usage_body(envelope, self.generation.usage(choices)))
        yield "data: [DONE]\n\n"

    async def _conclude(self, choice: Choice) -> Conclusion:
        """Who answers, and the answer in the form that was requested."""
        end = await self._answer(choice)
        if self.generation.request.format is None:
            return end
        try:
            filled = fill(self.generation.request.format, end.extension, self.generation.question.kind)
        except UnfilledError as error:
            return replace(end, is_rewritten=True, text="", refusal=str(error))
        return replace(end, is_rewritten=True, text=dump_json(filled))

    async def _answer(self, choice: Choice) -> Conclusion:
        """The student's answer, or the teacher's."""
        assert choice.tree is not None, "it has ended"
        assert choice.finish is not None, "it has ended"
        is_short = choice.finish == "length" and self.generation.is_shortened
        handed: Handed | None = None
        # what the client itself cut off says nothing of the student, and the teacher states no confidences
        wanted = self.generation.request.format
        is_own = choice.is_cut or is_short or (wanted is not None and wanted.is_of_student)
        if self.escalation is not None and not is_own and self.escalation.is_wanted(choice.tree):
            handed = await self.escalation.hand_over(self.generation.question, choice.tree)
            self.metrics.count("escalated_total", outcome=handed.outcome)
        if handed is None:
            return Conclusion(choice.text, choice.finish, {"source": "student", **insight(choice.tree)})
        if handed.text is None:
            return Conclusion(choice.text, choice.finish, handed.extension)
        cutter = StopCutter(self.generation.request.stop)
        text = cutter.push(handed.text) + cutter.flush()
        return Conclusion(text, "stop", handed.extension, is_rewritten=True)

    def _measure(self, choices: Sequence[Choice]) -> None:
        now = time.perf_counter()
        self.metrics.count("prompt_tokens_total", len(self.generation.prompt))
        self.metrics.count("generated_tokens_total", sum(choice.num_tokens for choice in choices))
        for job in (choice.job for choice in choices):
            if job.first_token_s:
                self.metrics.observe("queue_seconds", job.first_token_s - job.submitted_s)
        if all(choice.finish for choice in choices):
            self.metrics.observe("generation_seconds", now - choices[0].job.submitted_s)


def error_response(error: Exception) -> Any:
    """The response to a request that failed; errors other than `ApiError` are not explained to clients."""
    from starlette.responses import JSONResponse

    found = error if isinstance(error, ApiError) else failure()
    return JSONResponse(found.to_json(), found.status, {"Retry-After": "1"} if found.status == 503 else None)


async def _client_leaves(receive: Receive) -> None:
    """Wait until the client disconnects."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _stream_head() -> Message:
    headers = {
        "content-type": "text/event-stream; charset=utf-8",
        "cache-control": "no-store",
        "x-accel-buffering": "no",
    }
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http.response.start", "status": 200, "headers": raw}


def _event(body: dict[str, Any]) -> str:
    return f"data: {dump_json(body)}\n\n"
