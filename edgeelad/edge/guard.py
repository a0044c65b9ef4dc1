"""Limits on what `edgeelad serve` accepts from the network: connections, deadlines, Host and Origin, keys, log size.

`guarded_protocol` is uvicorn's HTTP protocol with a cap on connections and deadlines in both directions. `Guard` is an
ASGI middleware that refuses what was not meant for this server, `KeyCheck` one that requires a key. `RepeatsFilter`
keeps a flood of messages out of the log. uvicorn is imported inside functions only.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from edgeelad.edge.api import ApiError
from edgeelad.hosts import is_address

MAX_CONNECTIONS = 256
# a request (headers and body) must arrive within this time, and a reader must make room in the send buffer within it
DEADLINE_S = 30.0
# of one message, per minute; the number of those left out is logged with the next
MAX_REPEATS = 10
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def guarded_protocol(max_connections: int = MAX_CONNECTIONS, deadline_s: float = DEADLINE_S) -> type[asyncio.Protocol]:
    """uvicorn's h11 protocol with limits; a connection that breaks one is closed, and nothing else is affected.

    Args:
        max_connections: Further connections are closed at once, before anything is read.
        deadline_s: Seconds within which a client must complete its request, or read what it is sent.
    """
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class GuardedProtocol(H11Protocol):
        """An HTTP connection under deadlines."""

        _receiving: asyncio.TimerHandle | None = None
        _sending: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > max_connections:
                transport.abort()
            else:
                self._receiving = self.loop.call_later(deadline_s, transport.abort)

        def data_received(self, data: bytes) -> None:
            if self._receiving is None and not self._is_answering:
                self._receiving = self.loop.call_later(deadline_s, self.transport.abort)
            super().data_received(data)
            if self._is_answering and self._receiving is not None:
                self._receiving.cancel()
                self._receiving = None

        def pause_writing(self) -> None:
            self._sending = self.loop.call_later(deadline_s, self.transport.abort)
            super().pause_writing()

        def resume_writing(self) -> None:
            if self._sending is not None:
                self._sending.cancel()
            super().resume_writing()

        def connection_lost(self, exc: Exception | None) -> None:
            for timer in (self._receiving, self._sending):
                if timer is not None:
                    timer.cancel()
            super().connection_lost(exc)

        @property
        def _is_answering(self) -> bool:
            """Whether the whole request has arrived and its response is not complete."""
            return self.cycle is not None and not self.cycle.more_body and not self.cycle.response_complete

    return GuardedProtocol


class Guard:
    """ASGI middleware: refuse requests that a page of another site makes through its visitor's browser.

    The Host header must be an address or an allowed name (DNS rebinding), an Origin must be allowed, and a POST must be
    JSON: a form or plain text can be posted by any page without the browser asking first.
    """

    def __init__(self, app: Any, allowed_hosts: Iterable[str] = LOOPBACK, allowed_origins: Iterable[str] = ()) -> None:
        """Wrap an ASGI application.

        Args:
            app: The application.
            allowed_hosts: Host names and addresses, without ports; "*" allows all.
            allowed_origins: Origins whose pages may use the server besides those of the allowed hosts, such as
                "https://app.example"; "*" allows all.
        """
        self._app = app
        self._allowed = frozenset(map(_host_key, allowed_hosts))
        self._origins = frozenset(allowed_origins)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass an acceptable request on; answer others with an error in OpenAI's form."""
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        if refusal is None:
            await self._app(scope, receive, send)
            return
        from starlette.responses import JSONResponse

        await JSONResponse(refusal.to_json(), refusal.status)(scope, receive, send)

    def _refusal(self, scope: Any) -> ApiError | None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "")
        # an attacker's page can have its own name resolve to this machine, but cannot be served under our address
        if not self._allows(f"//{host}", any_address=True):
            return ApiError(421, f"This server is not {host!r}; start it with --allow-host to name it so.")
        origin = headers.get("origin")
        if origin is not None and not (self._origins & {origin, "*"} or self._allows(origin)):
            return ApiError(403, f"Pages of {origin!r} may not use this server; --cors-origin allows them.")
        media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        if scope["method"] == "POST" and media_type != "application/json":
            return ApiError(415, f"The Content-Type must be application/json, found {media_type or 'none'}.")
        return None

    def _allows(self, url: str, *, any_address: bool = False) -> bool:
        try:
            host = _host_key(urlsplit(url).hostname or "")
        except ValueError:
            return False
        return "*" in self._allowed or host in self._allowed or (any_address and is_address(host))


class KeyCheck:
    """ASGI middleware: require `Authorization: Bearer KEY`, except for /health."""

    def __init__(self, app: Any, key: str) -> None:
        """Wrap an ASGI application; `key` is the key that clients need."""
        self._app, self._key = app, key.encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request with the key on; answer others with 401."""
        if scope["type"] != "http" or scope["path"] == "/health" or self._is_known(scope):
            await self._app(scope, receive, send)
            return
        from starlette.responses import JSONResponse

        error = ApiError(401, "Send the server's key: Authorization: Bearer KEY.", code="invalid_api_key")
        await JSONResponse(error.to_json(), 401, {"WWW-Authenticate": "Bearer"})(scope, receive, send)

    def _is_known(self, scope: Any) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        scheme, _, key = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        return scheme.lower() == b"bearer" and hmac.compare_digest(key.strip(), self._key)


class RepeatsFilter(logging.Filter):
    """Let each message through `MAX_REPEATS` times per minute; messages are told apart by their format string."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[object, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is logged."""
        now, message = time.monotonic(), record.msg
        start, count = self._seen.get(message, (now, 0))
        if now - start > 60.0:
            if count > MAX_REPEATS:
                record.msg = f"{message} ({count - MAX_REPEATS} more in the last minute)"
            start, count = now, 0
        if len(self._seen) > 1000:  # messages without a format string of their own
            self._seen.clear()
        self._seen[message] = (start, count + 1)
        return count < MAX_REPEATS


def _host_key(host: str) -> str:
    return host.strip("[]").rstrip(".").lower()
