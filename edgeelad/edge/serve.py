"""Serve a package over HTTP in OpenAI's form: `edgeelad serve`.

`/v1/chat/completions` and `/v1/completions` (streamed or not), `/v1/models`, `/health`, and `/metrics` for Prometheus.
The explanations of all requests advance together (`scheduler`); a bounded number of them waits, and further requests
get 503 with Retry-After. Listens on loopback by default. `guard` holds the limits on what is accepted. starlette and
uvicorn are imported inside functions only.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeelad.edge.answering import Answering, Message, Receive, Send, error_response
from edgeelad.edge.api import ApiError, Kind, parse_request
from edgeelad.edge.escalation import Escalation
from edgeelad.edge.generation import ServedStudent, check_length, insight, prepare
from edgeelad.edge.guard import LOOPBACK, Guard, KeyCheck, RepeatsFilter, guarded_protocol
from edgeelad.edge.limits import MAX_BODY_MIB, MAX_RUNNING, MAX_WAITING
from edgeelad.edge.metrics import CONTENT_TYPE, Metrics
from edgeelad.edge.responses import model_body
from edgeelad.edge.scheduler import Scheduler
from edgeelad.engine.generate import GeneratedTokens
from edgeelad.engine.memory import PLENTY_BYTES, kv_share
from edgeelad.engine.options import EngineOptions, num_cores
from edgeelad.engine.student import Student
from edgeelad.errors import MissingExtraError, UsageError
from edgeelad.hosts import is_loopback
from edgeelad.records import Question

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request

# request bodies that are being received, all connections together
MAX_BUFFERED_BYTES = 16 << 20
_SHUTDOWN_S = 5.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """How a package is served.

    Attributes:
        host, port: Address to listen on; port 0 is any free one.
        num_threads: Threads of the ONNX session; None: one per core.
        allowed_hosts: Names under which the server may be addressed, besides loopback and `host`.
        cors_origins: Origins whose pages may use the server, such as "https://app.example"; "*" allows all.
        api_key: The key that clients need; None: none.
        max_running: Maximum explanations that advance together.
        max_waiting: Maximum explanations that wait.
        max_tokens: Maximum tokens that a request may ask for; None: what the student's context has room for.
        max_body_bytes: Size of the largest request body that is read.
        kv_bytes: Maximum KV cache; None: half of the free memory, up to 1.5 GiB.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    num_threads: int | None = None
    allowed_hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    api_key: str | None = None
    max_running: int = MAX_RUNNING
    max_waiting: int = MAX_WAITING
    max_tokens: int | None = None
    max_body_bytes: int = MAX_BODY_MIB << 20
    kv_bytes: int | None = None


def serve_package(
    package: Path, options: ServeOptions, announce: Callable[[str], None], escalation: Escalation | None = None
) -> None:
    """Serve a package until interrupted.

    Args:
        package: The package folder.
        options: How to serve it.
        announce: Receives a line with the URL once the server listens.
        escalation: Hands questions to the teacher.

    Raises:
        MissingExtraError: starlette or uvicorn is not installed.
        PackageError, ModelError: The package cannot be used.
        UsageError: The address is unknown, taken or not permitted.
    """
    try:
        import uvicorn
    except ImportError:
        raise MissingExtraError("uvicorn", "serve", "edgeelad serve") from None
    from edgeelad.package.hub import find_package
    from edgeelad.package.open import open_package

    opened = open_package(find_package(package))
    engine = EngineOptions(
        num_threads=options.num_threads or num_cores(),
        precision=opened.precision,
        kv_bytes=options.kv_bytes or kv_share(1) or PLENTY_BYTES,
        graph="rows",
    )
    with ExitStack() as stack:
        listener = stack.enter_context(listen(options.host, options.port))
        student = stack.enter_context(Student.open(opened.path, engine))
        scheduler = stack.enter_context(Scheduler(student.open_batch(options.max_running), options.max_waiting))
        if scheduler.max_running < options.max_running:
            _log.warning("%s: has no engine graph: requests take turns instead of sharing steps", opened.path)
        manifest = opened.manifest
        served = ServedStudent(
            student, manifest.name, manifest.answer_kind, manifest.max_explanation_tokens, options.max_tokens
        )
        _warm_up(student)
        address, bound = listener.getsockname()[:2]
        hosts = (*LOOPBACK, options.host, address, socket.gethostname(), *options.allowed_hosts)
        app = make_app(served, scheduler, options, allowed_hosts=hosts, escalation=escalation)
        if options.api_key is None and not is_loopback(address):
            _log.warning(
                "%s can be reached from other machines without a key; set --api-key-env, or leave out --host", address
            )
        for name in ("uvicorn.error", "edgeelad.edge.scheduler", "edgeelad.edge.escalation"):
            logging.getLogger(name).addFilter(RepeatsFilter())
        announce(f"http://{f'[{address}]' if ':' in address else address}:{bound}/v1 serves {served.name}")
        config = uvicorn.Config(
            app,
            http=guarded_protocol(),
            ws="none",
            log_level="warning",
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
        with suppress(KeyboardInterrupt):  # uvicorn raises it again after an orderly shutdown
            _draining(uvicorn.Server, scheduler, escalation)(config).run(sockets=[listener])


def make_app(
    served: ServedStudent,
    scheduler: Scheduler,
    options: ServeOptions,
    *,
    allowed_hosts: Iterable[str] = LOOPBACK,
    escalation: Escalation | None = None,
) -> Starlette:
    """Make the ASGI application that serves one student.

    Args:
        served: The student, under its name.
        scheduler: Runs its explanations.
        options: Limits, key and origins; the address is not used.
        allowed_hosts: Names under which the server may be addressed; see `guard.Guard`.
        escalation: Hands questions to the teacher.

    Raises:
        MissingExtraError: starlette is not installed.
    """
    try:
        from starlette.applications import Starlette
        from starlette.concurrency import run_in_threadpool
        from starlette.exceptions import HTTPException
        from starlette.middleware import Middleware
        from starlette.middleware.cors import CORSMiddleware
        from starlette.responses import JSONResponse, PlainTextResponse
        from starlette.routing import Route
    except ImportError:
        raise MissingExtraError("starlette", "serve", "edgeelad serve") from None

    buffered, metrics = Buffered(MAX_BUFFERED_BYTES), Metrics()

    async def generate(request: Request, kind: Kind) -> Any:
        wanted = parse_request(await _read_json(request, options.max_body_bytes, buffered), kind, served.name)
        check_length(served, wanted)
        generation = await run_in_threadpool(prepare, served, wanted)  # it tokenizes: not on the event loop
        return Answering(generation, scheduler, metrics, escalation).respond

    async def chat(request: Request) -> Any:
        return await generate(request, "chat")

    async def completions(request: Request) -> Any:
        return await generate(request, "completion")

    async def models(request: Request) -> JSONResponse:
        return JSONResponse({"object": "list", "data": [model_body(served.name)]})

    async def model(request: Request) -> JSONResponse:
        name = request.path_params["name"]
        if name != served.name:
            raise ApiError(
                404, f"The model {name!r} is not served here; this is {served.name!r}.", "model", "model_not_found"
            )
        return JSONResponse(model_body(served.name))

    async def health(request: Request) -> JSONResponse:
        counts = {"running": scheduler.num_running, "waiting": scheduler.num_waiting}
        return JSONResponse({"status": "ok", "model": served.name, **counts})

    async def show_metrics(request: Request) -> PlainTextResponse:
        gauges = {name: getattr(scheduler, f"num_{name}") for name in ("running", "waiting")}
        return PlainTextResponse(
            metrics.text({**gauges, "max_running": scheduler.max_running}), media_type=CONTENT_TYPE
        )

    async def on_error(request: Request, error: Exception) -> Any:
        return error_response(
            ApiError(error.status_code, f"{request.method} {request.url.path}: {error.detail}")
            if isinstance(error, HTTPException)
            else error
        )

    middleware = [Middleware(Guard, allowed_hosts=tuple(allowed_hosts), allowed_origins=options.cors_origins)]
    if options.cors_origins:
        middleware.append(
            Middleware(CORSMiddleware, allow_origins=options.cors_origins, allow_methods=["*"], allow_headers=["*"])
        )
    if options.api_key is not None:
        middleware.append(Middleware(KeyCheck, key=options.api_key))
    routes = [
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/v1/completions", completions, methods=["POST"]),
        Route("/v1/models", models),
        Route("/v1/models/{name:path}", model),
        Route("/health", health),
        Route("/metrics", show_metrics),
    ]
    paths = frozenset(route.path for route in routes)
    return Starlette(
        routes=routes,
        middleware=[Middleware(_Counted, metrics=metrics, paths=paths), *middleware],
        exception_handlers=dict.fromkeys((ApiError, HTTPException, Exception), on_error),
    )


class _Counted:
    """ASGI middleware: count requests by path and status."""

    def __init__(self, app: Any, metrics: Metrics, paths: frozenset[str]) -> None:
        self._app, self._metrics, self._paths = app, metrics, paths

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        status = 499

        async def counting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, counting)
        except Exception:
            status = 500  # which Starlette sends outside of all middleware
            raise
        finally:
            path = scope.get("path")
            self._metrics.count("requests_total", path=path if path in self._paths else "other", status=str(status))


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
    too_large = ApiError(413, f"The request body is larger than {max_bytes:,} bytes.", code="request_too_large")
    if int(request.headers.get("content-length", 0)) > max_bytes:  # h11 has checked that it is a number
        raise too_large
    try:
        async for chunk in request.stream():
            buffered.add(len(chunk))
            body += chunk
            if len(body) > max_bytes:
                raise too_large
    finally:
        buffered.add(-len(body))
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise ApiError(400, "The request body is not valid JSON.") from None


def _draining(server: Any, scheduler: Scheduler, escalation: Escalation | None) -> Any:
    """uvicorn's server, which ends running requests in order before it closes their connections."""

    class Draining(server):  # type: ignore[misc]
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            if escalation is not None:
                escalation.interrupt()
            await scheduler.drain(_SHUTDOWN_S)
            await super().shutdown(sockets)

    return Draining


def _warm_up(student: Student) -> None:
    """Load what the first request would wait for: patterns of answers, and what the vocabulary's tokens are."""
    ids = tuple(student.codec.encode_completion("1 + 1 = 2\nThe answer is 2"))
    sequence = GeneratedTokens(ids, (0.0,) * len(ids), (0.0,) * len(ids), "eos")
    insight(student.read(Question("warm-up", "1 + 1", "number"), ids, sequence))
