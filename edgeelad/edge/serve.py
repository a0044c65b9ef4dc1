"""Serve a package over HTTP in OpenAI's form: `edgeelad serve`.

`/v1/chat/completions` and `/v1/completions` (streamed or not), `/v1/models`, `/health`. One generation runs at a time,
since two at once share the same cores; up to `max_waiting` requests wait, further ones get 503 with Retry-After.
Listens on loopback by default. There is no authentication: put a proxy in front before opening it to a network.
`guard` holds the limits on what is accepted. starlette and uvicorn are imported inside functions only.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, MutableMapping
from contextlib import aclosing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeelad.edge.api import ApiError, Kind, parse_request
from edgeelad.edge.generation import Generation, ServedStudent, Turns, check_length, close, prepare
from edgeelad.edge.guard import LOOPBACK, Guard, RepeatsFilter, guarded_protocol
from edgeelad.edge.responses import Envelope, chunk_body, models_body, usage_body, whole_body
from edgeelad.engine.options import num_cores
from edgeelad.errors import MissingExtraError, PromptTooLongError, UsageError
from edgeelad.files import dump_json
from edgeelad.hosts import is_loopback

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request

MAX_BODY_BYTES = 1 << 20
# request bodies that are being received, all connections together
MAX_BUFFERED_BYTES = 16 << 20
MAX_WAITING = 16
_SHUTDOWN_S = 5
_log = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Responder = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]


def serve_package(
    package: Path,
    host: str = "127.0.0.1",
    port: int = 8080,
    *,
    num_threads: int | None = None,
    announce: Callable[[str], None],
    allowed_hosts: Iterable[str] = (),
) -> None:
    """Serve a package until interrupted.

    Args:
        package: The package folder.
        host: Address to listen on.
        port: Port to listen on; 0 for any free one.
        num_threads: Threads of the ONNX session; default: one per core.
        announce: Receives a line with the URL once the server listens.
        allowed_hosts: Names under which the server may be addressed, besides loopback and `host`.

    Raises:
        MissingExtraError: starlette or uvicorn is not installed.
        PackageError, ModelError: The package cannot be used.
        UsageError: The address is unknown, taken or not permitted.
    """
    try:
        import uvicorn
    except ImportError:
        raise MissingExtraError("uvicorn", "serve", "edgeelad serve") from None
    from edgeelad.edge.run import open_student
    from edgeelad.package.hub import find_package
    from edgeelad.package.open import open_package

    opened = open_package(find_package(package), is_device=True)
    with listen(host, port) as listener, open_student(opened, num_threads=num_threads or num_cores()) as student:
        manifest = opened.manifest
        served = ServedStudent(student, manifest.name, manifest.answer_kind, manifest.max_explanation_tokens)
        address, bound = listener.getsockname()[:2]
        app = make_app(served, allowed_hosts=(*LOOPBACK, host, address, socket.gethostname(), *allowed_hosts))
        if not is_loopback(address):
            _log.warning(
                "%s can be reached from other machines, and there is no authentication; put a proxy in front, or leave "
                "out --host",
                address,
            )
        logging.getLogger("uvicorn.error").addFilter(RepeatsFilter())
        announce(f"http://{f'[{address}]' if ':' in address else address}:{bound}/v1 serves {served.name}")
        config = uvicorn.Config(
            app,
            http=guarded_protocol(),
            ws="none",
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=_SHUTDOWN_S,
        )
        with suppress(KeyboardInterrupt):  # uvicorn raises it again after an orderly shutdown
            uvicorn.Server(config).run(sockets=[listener])


def make_app(
    served: ServedStudent,
    *,
    max_body_bytes: int = MAX_BODY_BYTES,
    max_waiting: int = MAX_WAITING,
    allowed_hosts: Iterable[str] = LOOPBACK,
) -> Starlette:
    """Make the ASGI application that serves one student.

    Args:
        served: The student, under its name.
        max_body_bytes: Size of the largest request body that is read.
        max_waiting: Requests that may wait for their turn.
        allowed_hosts: Names under which the server may be addressed; see `guard.Guard`.

    Raises:
        MissingExtraError: starlette is not installed.
    """
    try:
        from starlette.applications import Starlette
        from starlette.concurrency import run_in_threadpool
        from starlette.exceptions import HTTPException
        from starlette.middleware import Middleware
        from starlette.responses import JSONResponse
        from starlette.routing import Route
    except ImportError:
        raise MissingExtraError("starlette", "serve", "edgeelad serve") from None

    turns, buffered = Turns(max_waiting), Buffered(MAX_BUFFERED_BYTES)

    async def generate(request: Request, kind: Kind) -> Any:
        wanted = parse_request(await _read_json(request, max_body_bytes, buffered), kind, served.name)
        check_length(served, wanted)
        generation = await run_in_threadpool(prepare, served, wanted)  # it tokenizes: not on the event loop
        await turns.take()  # nothing may fail between here and the responder, which releases the turn
        return _streamed(generation, turns) if wanted.is_stream else _whole(generation, turns, request)

    async def chat(request: Request) -> Any:
        return await generate(request, "chat")

    async def completions(request: Request) -> Any:
        return await generate(request, "completion")

    async def models(request: Request) -> JSONResponse:
        return JSONResponse(models_body(served.name))

    async def health(request: Request) -> JSONResponse:
        return JSONResponse({"status": "ok", "model": served.name, "waiting": turns.num_waiting})

    async def on_error(request: Request, error: Exception) -> JSONResponse:
        if isinstance(error, HTTPException):
            found = ApiError(error.status_code, f"{request.method} {request.url.path}: {error.detail}")
        elif isinstance(error, PromptTooLongError):
            found = ApiError(400, str(error), code="context_length_exceeded")
        else:
            found = error if isinstance(error, ApiError) else _failure()
        headers = {"Retry-After": "1"} if found.status == 503 else None
        return JSONResponse(found.to_json(), found.status, headers)

    return Starlette(
        routes=[
            Route("/v1/chat/completions", chat, methods=["POST"]),
            Route("/v1/completions", completions, methods=["POST"]),
            Route("/v1/models", models),
            Route("/health", health),
        ],
        middleware=[Middleware(Guard, allowed_hosts=tuple(allowed_hosts))],
        exception_handlers=dict.fromkeys((ApiError, HTTPException, PromptTooLongError, Exception), on_error),
    )


def listen(host: str, port: int) -> socket.socket:
    """Open a socket that listens on an address.

    Raises:
        UsageError: The address is unknown, not this machine's, taken, or not permitted.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise UsageError(f"--host {host}: no such address ({error}); --host 127.0.0.1 is this machine alone") from None
    try:
        if os.name != "nt":  # there the option would let two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except OSError as error:
        listener.close()
        raise UsageError(f"--host {host} --port {port}: {error.strerror}; choose another --port") from None
    return listener


class Buffered:
    """Counts the bytes of request bodies that are being received, up to `max_bytes` in all."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes, self.num_bytes = max_bytes, 0

    def add(self, num_bytes: int) -> None:
        """Count bytes; `num_bytes` is negative when they are released.

        Raises:
            ApiError: 503, too many are held already.
        """
        if num_bytes > 0 and self.num_bytes + num_bytes > self.max_bytes:
            raise ApiError(503, "Too many requests are arriving; try again in a moment.", code="overloaded")
        self.num_bytes += num_bytes


async def _read_json(request: Request, max_bytes: int, buffered: Buffered) -> Any:
    body = bytearray()
    try:
        async for chunk in request.stream():
            buffered.add(len(chunk))
            body += chunk
            if len(body) > max_bytes:
                raise ApiError(413, f"The request body is larger than {max_bytes:,} bytes.", code="request_too_large")
    finally:
        buffered.add(-len(body))
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise ApiError(400, "The request body is not valid JSON.") from None


def _whole(generation: Generation, turns: Turns, request: Request) -> Responder:
    async def respond(scope: Message, receive: Any, send: Any) -> None:
        from starlette.responses import JSONResponse

        text = ""
        pieces = generation.pieces()
        try:
            async for piece in _in_thread(pieces):
                text += piece
                if await request.is_disconnected():
                    return
        finally:
            close(pieces)
            turns.release()
        body = whole_body(_envelope(generation), text, *generation.outcome(text))
        await JSONResponse(body)(scope, receive, send)

    return respond


def _streamed(generation: Generation, turns: Turns) -> Responder:
    async def respond(scope: Message, receive: Any, send: Any) -> None:
        from starlette.responses import StreamingResponse

        pieces = generation.pieces()
        try:
            async with aclosing(_events(generation, pieces)) as events:
                headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
                await StreamingResponse(events, media_type="text/event-stream", headers=headers)(scope, receive, send)
        finally:  # also if the client disconnected
            close(pieces)
            turns.release()

    return respond


async def _events(generation: Generation, pieces: Iterator[str]) -> AsyncGenerator[str, None]:
    """Yield the server-sent events of a stream; a failure becomes an event, since the status is already sent."""
    envelope, text = _envelope(generation), ""
    if generation.request.kind == "chat":
        yield _event(chunk_body(envelope, None, None, is_first=True))
    try:
        async for piece in _in_thread(pieces):
            text += piece
            yield _event(chunk_body(envelope, piece, None))
        finish, usage = generation.outcome(text)
    except Exception:
        yield _event(_failure().to_json())
        raise
    yield _event(chunk_body(envelope, None, finish))
    if generation.request.include_usage:
        yield _event(usage_body(envelope, usage))
    yield "data: [DONE]\n\n"


async def _in_thread(pieces: Iterator[str]) -> AsyncIterator[str]:
    """Take pieces in a worker thread, one at a time; a cancellation waits for the current piece."""
    from starlette.concurrency import run_in_threadpool

    while (piece := await run_in_threadpool(next, pieces, None)) is not None:
        yield piece


def _envelope(generation: Generation) -> Envelope:
    kind = generation.request.kind
    prefix = "chatcmpl" if kind == "chat" else "cmpl"
    return Envelope(kind, f"{prefix}-{uuid.uuid4().hex}", int(time.time()), generation.served.name)


def _event(body: dict[str, Any]) -> str:
    return f"data: {dump_json(body)}\n\n"


def _failure() -> ApiError:
    return ApiError(500, "The server failed while generating; its log says why.", kind="server_error")
