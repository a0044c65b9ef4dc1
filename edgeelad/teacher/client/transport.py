"""POST a JSON body and read the whole answer, with requests: pooled connections, one deadline, no redirects elsewhere.
A stream of server-sent events is read to its end and put together.

Gives what came back, or why nothing did and whether the request may have reached the server; decides nothing about
retries or money. The key to the API is put into the Authorization header here and nowhere else, and where an answer
repeats it, it is taken out before anything is made of the answer. Proxies and CA bundles come from the environment as
in requests.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, AnyStr

from edgeelad.errors import ConfigError, MissingExtraError
from edgeelad.teacher.client.event_stream import CONTENT_TYPE, assemble, is_event_stream

if TYPE_CHECKING:
    import requests

# no reply to a capped completion is longer; in a stream, each token brings some hundred bytes of its own
MAX_BODY_BYTES = 8 * 2**20
MAX_STREAM_BYTES = 64 * 2**20
MAX_REDIRECTS = 3
CHUNK_BYTES = 2**16
# a shorter key ("EMPTY", "none") is a placeholder for a server that asks for none, and may be a word of an honest reply
MIN_SECRET_CHARS = 8
HIDDEN_KEY = "[key]"


@dataclass(frozen=True, slots=True)
class HttpReply:
    """A status, its headers (names in lower case) and its body; `problem` says why the body is incomplete, if it is."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Lost:
    """No status came back. `was_sent`: the request may have reached the server. `is_final`: a retry cannot help."""

    reason: str
    was_sent: bool
    is_final: bool = False


class Transport:
    """HTTP connections to one endpoint, kept open between requests; one session per thread."""

    def __init__(
        self,
        url: str,
        key: str | None,
        headers: Mapping[str, str],
        *,
        connect_timeout_s: float,
        read_timeout_s: float,
        secret_headers: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare; nothing is sent.

        Args:
            url: What is posted to.
            key: The API key, or None for none.
            headers: Further headers.
            connect_timeout_s: For the connection.
            read_timeout_s: For the whole answer, from the last byte sent to the last byte received.
            secret_headers: Headers whose values are hidden as the key is.

        Raises:
            MissingExtraError: requests is not installed.
        """
        try:
            import requests  # noqa: F401
        except ImportError:
            raise MissingExtraError("requests", "teacher", "asking a teacher") from None
        self.url = url
        self._key = key
        secret_headers = secret_headers or {}
        self._headers = {"Accept-Encoding": "identity", **headers, **secret_headers}
        secrets = [secret for secret in (key, *secret_headers.values()) if secret]
        self._secrets = sorted((secret for secret in secrets if len(secret) >= MIN_SECRET_CHARS), key=len, reverse=True)
        self._timeouts = (connect_timeout_s, read_timeout_s)
        self._local = threading.local()
        self._sessions: list[requests.Session] = []
        self._lock = threading.Lock()

    def post(self, body: Mapping[str, Any], *, url: str | None = None, request_id: str = "") -> HttpReply | Lost:
        """Send one request and read its answer.

        Args:
            body: The JSON body.
            url: Where to, at the same host; default: the endpoint.
            request_id: Names this attempt in the provider's logs (the header X-Client-Request-Id).

        Raises:
            ConfigError: The URL or a header is not one.
        """
        headers = {"Content-Type": "application/json"}
        if request_id:
            headers["X-Client-Request-Id"] = request_id
        reply = self._send("POST", url or self.url, json.dumps(body, ensure_ascii=False).encode(), headers)
        if not isinstance(reply, HttpReply) or not is_event_stream(reply.headers, reply.body):
            return reply
        whole, problem = assemble(reply.body)
        # a key that comes in two deltas is whole only now
        return dataclasses.replace(reply, body=self._hide(whole), problem=reply.problem or problem)

    def get(self, url: str, max_bytes: int = MAX_BODY_BYTES) -> HttpReply | Lost:
        """Read what is at a URL of the same host."""
        return self._send("GET", url, None, {}, max_bytes)

    def upload(self, url: str, fields: Mapping[str, str], name: str, content: bytes) -> HttpReply | Lost:
        """Send a file in a form, in the field `file`."""
        from urllib3.filepost import encode_multipart_formdata

        data, content_type = encode_multipart_formdata({**fields, "file": (name, content, "application/jsonl")})
        return self._send("POST", url, data, {"Content-Type": content_type})

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            for session in self._sessions:
                session.close()
            self._sessions.clear()

    def _send(
        self, method: str, url: str, data: bytes | None, headers: dict[str, str], max_bytes: int = MAX_BODY_BYTES
    ) -> HttpReply | Lost:
        for _ in range(MAX_REDIRECTS + 1):
            reply = self._send_once(method, url, data, {**self._headers, **headers}, max_bytes)
            if not isinstance(reply, HttpReply) or reply.status not in (307, 308):
                return reply
            target = urllib.parse.urljoin(url, reply.headers.get("location", ""))
            if _origin(target) != _origin(self.url):
                # the key and the questions are not for another host
                return reply
            url = target
        return Lost(f"more than {MAX_REDIRECTS} redirects from {self.url}", was_sent=False, is_final=True)

    def _send_once(
        self, method: str, url: str, data: bytes | None, headers: dict[str, str], max_bytes: int
    ) -> HttpReply | Lost:
        import requests

        session = self._session()
        with _deadline(self._timeouts[0] + self._timeouts[1]) as watch:
            try:
                response = session.request(
                    method,
                    url,
                    data=data,
                    headers=headers,
                    auth=self._authorize,
                    timeout=self._timeouts,
                    allow_redirects=False,
                    stream=True,
                )
            except (requests.exceptions.InvalidURL, requests.exceptions.InvalidHeader, ValueError) as error:
                raise ConfigError(f"teacher.url or teacher.extra_headers: {error}") from None
            except requests.exceptions.RequestException as error:
                return _lost(error, watch)
            if response.headers.get("Content-Type", "").startswith(CONTENT_TYPE):
                max_bytes = max(max_bytes, MAX_STREAM_BYTES)
            with response:
                body, problem = _read(response, watch, max_bytes)
        received = {name.lower(): self._hide(value) for name, value in response.headers.items()}
        return HttpReply(response.status_code, received, self._hide(body), problem)

    def _hide(self, received: AnyStr) -> AnyStr:
        """Replace the key and other secrets in what was received, in case the endpoint repeats them."""
        for secret in self._secrets:
            if isinstance(received, bytes):
                received = received.replace(secret.encode(), HIDDEN_KEY.encode())
            else:
                received = received.replace(secret, HIDDEN_KEY)
        return received

    def _authorize(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        # given as `auth`, so that requests does not look for other credentials in a netrc file
        if self._key is not None:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = _make_session()
            self._local.session = session
            with self._lock:
                self._sessions.append(session)
        return session


class _Watch:
    """The connection of one request, shut down by a timer's thread unless the request ends first."""

    def __init__(self) -> None:
        self.connection: Any = None
        self.is_late = False
        self._is_over = False
        self._lock = threading.Lock()

    @property
    def was_sent(self) -> bool:
        """Whether the whole request was sent, since only then the answer is read."""
        return self.connection is not None

    def cut(self) -> None:
        with self._lock:
            if self._is_over:
                return
            self.is_late = True
            sock = getattr(self.connection, "sock", None)
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        with self._lock:
            self._is_over = True


_thread = threading.local()  # .watch: the watch over the request that this thread has under way


def _make_session() -> requests.Session:
    """A session whose connections `_deadline` can shut down."""
    import requests
    from urllib3.connection import HTTPConnection, HTTPSConnection
    from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

    class WatchedConnection(HTTPConnection):
        def getresponse(self) -> Any:
            _thread.watch.connection = self
            return super().getresponse()

    class WatchedHttpsConnection(HTTPSConnection):
        def getresponse(self) -> Any:
            _thread.watch.connection = self
            return super().getresponse()

    class WatchedPool(HTTPConnectionPool):
        ConnectionCls = WatchedConnection

    class WatchedHttpsPool(HTTPSConnectionPool):
        ConnectionCls = WatchedHttpsConnection

    class WatchedAdapter(requests.adapters.HTTPAdapter):
        def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
            super().init_poolmanager(*args, **kwargs)
            self.poolmanager.pool_classes_by_scheme = {"http": WatchedPool, "https": WatchedHttpsPool}

        def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
            manager = super().proxy_manager_for(*args, **kwargs)
            manager.pool_classes_by_scheme = {"http": WatchedPool, "https": WatchedHttpsPool}
            return manager

    session = requests.Session()
    session.mount("http://", WatchedAdapter(pool_connections=1, pool_maxsize=1))
    session.mount("https://", WatchedAdapter(pool_connections=1, pool_maxsize=1))
    return session


@contextlib.contextmanager
def _deadline(seconds: float) -> Iterator[_Watch]:
    """Shut down this thread's connection after `seconds`; the read timeout of requests restarts with every byte."""
    watch = _Watch()
    _thread.watch = watch
    timer = threading.Timer(seconds, watch.cut)
    timer.daemon = True
    timer.start()
    try:
        yield watch
    finally:
        timer.cancel()
        watch.end()


def _read(response: requests.Response, watch: _Watch, max_bytes: int) -> tuple[bytes, str]:
    import requests

    chunks: list[bytes] = []
    num_bytes = 0
    try:
        for chunk in response.iter_content(CHUNK_BYTES):
            chunks.append(chunk)
            num_bytes += len(chunk)
            if num_bytes > max_bytes:
                return b"".join(chunks), f"a body of more than {max_bytes} bytes"
    except requests.exceptions.RequestException as error:
        reason = "too slow" if watch.is_late else type(error).__name__
        return b"".join(chunks), f"the body broke off after {num_bytes} bytes ({reason})"
    if watch.is_late:
        return b"".join(chunks), f"the body broke off after {num_bytes} bytes (too slow)"
    return b"".join(chunks), ""


def _lost(error: requests.exceptions.RequestException, watch: _Watch) -> Lost:
    import requests
    from urllib3.exceptions import NewConnectionError

    if watch.is_late:
        return Lost("no complete answer within the read timeout", was_sent=True)
    if isinstance(error, requests.exceptions.SSLError):
        if "CERTIFICATE_VERIFY_FAILED" in str(error) or "doesn't match" in str(error):
            reason = "its certificate cannot be verified; name a private CA in the variable REQUESTS_CA_BUNDLE"
            return Lost(reason, was_sent=False, is_final=True)
        return Lost("the TLS connection broke; if it always does, the server may speak http only", watch.was_sent)
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return Lost("no connection within the connect timeout", was_sent=False)
    if isinstance(error, requests.exceptions.ProxyError):
        return Lost("the proxy does not connect", was_sent=False)
    if isinstance(error, requests.exceptions.ReadTimeout):
        return Lost("no answer within the read timeout", was_sent=True)
    cause = getattr(error.args[0] if error.args else None, "reason", None)
    if isinstance(cause, NewConnectionError):
        return Lost("no connection (refused, or an unknown host)", was_sent=False)
    return Lost(f"the connection broke ({type(error).__name__})", watch.was_sent)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
