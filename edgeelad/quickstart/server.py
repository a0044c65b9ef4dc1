"""Serve the quickstart's teacher on loopback, with OpenAI's chat completions API.

`with TeacherServer() as server:` serves at `server.url` until the block ends. It behaves as an LLM's server does:
keep-alive, usage, `finish_reason`, completions cut at the cap, and errors in OpenAI's schema. The replies themselves
are made in `replies`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import socket
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

from edgeelad.errors import EdgeeladError, InputError
from edgeelad.quickstart import solver
from edgeelad.quickstart.replies import NO_FAULTS, ChatMessage, Faults, Solver, reply

MODEL = "quickstart-teacher"
MAX_BODY_BYTES = 4_000_000
_PIECE = re.compile(r"\w+|[^\w\s]")
_TOKENS_PER_MESSAGE = 4  # role and separators, as OpenAI's chat format counts them


@dataclass(frozen=True, slots=True)
class Billed:
    """What a server has billed so far: completions and tokens."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class RequestRefusedError(EdgeeladError):
    """A request that gets an error in OpenAI's schema."""

    def __init__(self, status: int, message: str, kind: str = "invalid_request_error", code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": None, "code": code}}


def count_tokens(text: str) -> int:
    """Number of tokens of a text: words, numbers and punctuation marks."""
    return len(_PIECE.findall(text))


class TeacherServer:
    """The teacher, served on 127.0.0.1 from its own thread until the `with` block ends.

    Args:
        port: The port; 0: any free one.
        model: The model name that requests must give.
        api_key: The key that requests must carry; None: no key.
        faults: Errors that the teacher makes.
        solved_by: Who knows the answers; default: the solver of the quickstart's word problems.
        reasoning_tokens: Hidden tokens that each completion is billed for besides, as of a model that reasons.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        model: str = MODEL,
        api_key: str | None = None,
        faults: Faults = NO_FAULTS,
        solved_by: Solver = solver,
        reasoning_tokens: int = 0,
    ) -> None:
        self.model = model
        self._api_key = api_key
        self._faults = faults
        self._solved_by = solved_by
        self._reasoning_tokens = reasoning_tokens
        self._lock = threading.Lock()
        self._billed = Billed()
        self._num_asked: Counter[bytes] = Counter()
        self._http = _HttpServer(port, self)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> TeacherServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """The base URL for clients."""
        return f"http://127.0.0.1:{self._http.server_port}/v1"

    @property
    def billed(self) -> Billed:
        """Requests and tokens billed so far."""
        with self._lock:
            return self._billed

    def check_key(self, authorization: str | None) -> None:
        """Refuse a request without the right key, if there is one."""
        if self._api_key is not None and authorization != f"Bearer {self._api_key}":
            raise RequestRefusedError(401, "Incorrect API key provided.", code="invalid_api_key")

    def complete(self, body: bytes) -> dict[str, Any]:
        """Answer a chat completion request.

        Raises:
            RequestRefusedError: It is malformed, for another model, or not one of edgeelad's prompts.
        """
        request, messages = _parse_request(body)
        if request.get("model") != self.model:
            message = f"The model {request.get('model')!r} does not exist; this server has {self.model!r}."
            raise RequestRefusedError(404, message, code="model_not_found")
        salt = json.dumps([request.get("temperature"), request.get("seed"), self._occasion(request, body)])
        try:
            text = reply(messages, self._faults, salt, self._solved_by)
        except InputError as error:
            raise RequestRefusedError(400, str(error)) from error
        text, finish_reason = _cut(text, _completion_cap(request))
        prompt_tokens = sum(count_tokens(message.content) + _TOKENS_PER_MESSAGE for message in messages)
        completion_tokens = count_tokens(text) + self._reasoning_tokens
        with self._lock:
            self._billed = Billed(
                self._billed.requests + 1,
                self._billed.prompt_tokens + prompt_tokens,
                self._billed.completion_tokens + completion_tokens,
            )
        return {
            "id": "chatcmpl-" + hashlib.sha256(body).hexdigest()[:24],
            "object": "chat.completion",
            "created": int(time.time()),
            "model": self.model,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text},
                    "logprobs": None,
                    "finish_reason": finish_reason,
                }
            ],
            "usage": {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": completion_tokens,
                "total_tokens": prompt_tokens + completion_tokens,
                "completion_tokens_details": {"reasoning_tokens": self._reasoning_tokens},
            },
        }

    def _occasion(self, request: dict[str, Any], body: bytes) -> int:
        """How often the same request came before; 0 at temperature 0, at which an LLM repeats itself."""
        if not request.get("temperature"):
            return 0
        key = hashlib.sha256(body).digest()
        with self._lock:
            self._num_asked[key] += 1
            return self._num_asked[key] - 1

    def models(self) -> dict[str, Any]:
        """The list of models."""
        return {"object": "list", "data": [self.describe_model()]}

    def describe_model(self) -> dict[str, Any]:
        """The model that is served."""
        return {"id": self.model, "object": "model", "created": 0, "owned_by": "edgeelad"}


def _parse_request(body: bytes) -> tuple[dict[str, Any], list[ChatMessage]]:
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestRefusedError(400, f"The body is not valid JSON: {error}") from error
    messages = request.get("messages") if isinstance(request, dict) else None
    if not isinstance(messages, list) or not messages:
        raise RequestRefusedError(400, "'messages' is missing; expected a list of at least one message.")
    parsed = []
    for index, message in enumerate(messages):
        fields = message if isinstance(message, dict) else {}
        role, content = fields.get("role"), fields.get("content")
        if role not in ("system", "developer", "user", "assistant") or not isinstance(content, str):
            raise RequestRefusedError(400, f"messages[{index}] needs a known 'role' and a string as 'content'.")
        parsed.append(ChatMessage(role, content))
    if request.get("stream"):
        raise RequestRefusedError(400, "'stream' is not supported by this server; leave it out.")
    if request.get("n") not in (None, 1):
        raise RequestRefusedError(400, "'n' must be 1 on this server.")
    return request, parsed


def _completion_cap(request: dict[str, Any]) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        cap = request.get(name)
        if cap is None:
            continue
        if not isinstance(cap, int) or isinstance(cap, bool) or cap < 1:
            raise RequestRefusedError(400, f"'{name}' is {cap!r}; expected an integer, minimum 1.")
        return cap
    return None


def _cut(text: str, cap: int | None) -> tuple[str, str]:
    pieces = list(_PIECE.finditer(text))
    if cap is None or len(pieces) <= cap:
        return text, "stop"
    return text[: pieces[cap - 1].end()], "length"


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # clients keep connections open; `server_close` closes them
    request_queue_size = 128

    def __init__(self, port: int, teacher: TeacherServer) -> None:
        self.teacher = teacher
        self._connections: set[socket.socket] = set()
        self._connections_lock = threading.Lock()
        super().__init__(("127.0.0.1", port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._connections_lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._connections_lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        super().server_close()
        with self._connections_lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):  # the client has closed it already
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect; the base class prints other errors."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 65536  # head and body go out in one packet; otherwise Nagle's algorithm costs 40 ms per reply
    disable_nagle_algorithm = True
    timeout = 300
    server: _HttpServer

    def do_GET(self) -> None:
        """List the models, or describe one."""
        teacher = self.server.teacher
        path = unquote(urlsplit(self.path).path)
        routes = {"/v1/models": teacher.models, f"/v1/models/{teacher.model}": teacher.describe_model}
        try:
            teacher.check_key(self.headers.get("Authorization"))
            if path not in routes:
                raise RequestRefusedError(404, f"Unknown request URL: GET {path}.", code="unknown_url")
            self._send(200, routes[path]())
        except RequestRefusedError as refused:
            self._send(refused.status, refused.body)

    def do_POST(self) -> None:
        """Answer a chat completion."""
        teacher = self.server.teacher
        try:
            body = self._read_body()
            teacher.check_key(self.headers.get("Authorization"))
            path = urlsplit(self.path).path
            if path != "/v1/chat/completions":
                raise RequestRefusedError(404, f"Unknown request URL: POST {path}.", code="unknown_url")
            self._send(200, teacher.complete(body))
        except RequestRefusedError as refused:
            self._send(refused.status, refused.body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Report errors of the protocol layer in OpenAI's schema, too."""
        self.close_connection = True
        self._send(code, RequestRefusedError(code, message or "The request cannot be handled.").body)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: stderr shows the run's progress."""

    def _read_body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            self.close_connection = True
            raise RequestRefusedError(411, "The request needs a Content-Length.")
        if int(length) > MAX_BODY_BYTES:
            self.close_connection = True
            raise RequestRefusedError(413, f"The body has {length} bytes; the maximum is {MAX_BODY_BYTES}.")
        return self.rfile.read(int(length))

    def _send(self, status: int, fields: dict[str, Any]) -> None:
        body = json.dumps(fields, ensure_ascii=False).encode("utf-8", "replace")
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
