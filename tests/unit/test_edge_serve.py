import contextlib
import http.client
import json
import logging
import socket
import threading
import time

import pytest
import uvicorn

from edgeelad.edge.api import ApiError
from edgeelad.edge.generation import ServedStudent
from edgeelad.edge.guard import MAX_REPEATS, RepeatsFilter, guarded_protocol
from edgeelad.edge.serve import Buffered, listen, make_app
from edgeelad.errors import PromptTooLongError, UsageError
from edgeelad.hosts import is_loopback

TEXT = "2 + 2 = 4 – so\nThe answer is 4"


class WordCodec:
    """One token a word."""

    max_context = 40
    max_token_chars = 12

    def __init__(self):
        self.encoded = []

    def encode_prompt(self, question):
        self.encoded.append(question.text)
        return self.encode_completion(question.text)

    def encode_completion(self, text):
        return [1] * len(text.split())


class WordStudent:
    """Writes TEXT word by word; "slow" waits for permission, "broken" fails under way, "long" never fits."""

    def __init__(self):
        self.codec = WordCodec()
        self.questions, self.closed, self.running, self.most_running = [], [], 0, 0
        self.permission = threading.Event()
        self.started = threading.Event()

    def fits(self, question):
        return len(self.codec.encode_prompt(question)) < self.codec.max_context

    def stream(self, question, max_tokens):
        self.questions.append((question.text, max_tokens))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        self.started.set()
        try:
            if question.text == "long":
                raise PromptTooLongError("the prompt does not fit")
            words = TEXT.replace("\n", "\n ").split(" ")
            for index, word in enumerate(words[:max_tokens]):
                if question.text.startswith("slow"):
                    assert self.permission.wait(20)
                if question.text == "broken" and index == 2:
                    raise ValueError("secret detail")
                if question.text == "endless":
                    while True:
                        yield "and "
                        time.sleep(0.001)
                if question.text == "flood":
                    while True:
                        yield "and " * 4096
                yield word if word.endswith("\n") or index + 1 == len(words) else word + " "
        finally:
            self.running -= 1
            self.closed.append(question.text)


@pytest.fixture
def server():
    with serving() as running:
        yield running


@contextlib.contextmanager
def serving(max_connections=64, deadline_s=60.0):
    student = WordStudent()
    app = make_app(
        ServedStudent(student, "words", "number", 30),
        max_body_bytes=5000,
        max_waiting=1,
        allowed_hosts=("localhost", "127.0.0.1", "ours.example"),
    )
    with listen("127.0.0.1", 0) as listener:
        config = uvicorn.Config(
            app,
            http=guarded_protocol(max_connections, deadline_s),
            log_level="critical",
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
        running = uvicorn.Server(config)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
        thread.start()
        yield student, listener.getsockname()[1]
        student.permission.set()
        running.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def call(port, path="/v1/chat/completions", body=None, method=None, headers=None, **fields):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    with contextlib.closing(connection):
        data = body if body is not None else json.dumps(fields).encode() if fields else None
        headers = {"Content-Type": "application/json", **(headers or {})}
        connection.request(method or ("POST" if data else "GET"), path, data, headers)
        response = connection.getresponse()
        return response.status, response.read().decode(), dict(response.getheaders())


def ask(port, question, **fields):
    status, text, _ = call(port, messages=[{"role": "user", "content": question}], **fields)
    return status, json.loads(text)


def events(text):
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def test_chat(server):
    student, port = server
    status, body = ask(port, "What is 2 + 2?", model="words")
    assert status == 200
    assert body["object"] == "chat.completion"
    assert body["model"] == "words"
    assert body["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": TEXT, "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    words = len(TEXT.split())
    assert body["usage"] == {"prompt_tokens": 5, "completion_tokens": words, "total_tokens": 5 + words}
    assert student.questions == [("What is 2 + 2?", 30)]


def test_completion_and_limits(server):
    student, port = server
    status, text, _ = call(port, "/v1/completions", prompt="What is 2 + 2?", max_tokens=3)
    body = json.loads(text)
    assert status == 200
    assert body["object"] == "text_completion"
    assert body["choices"][0]["text"] == "2 + 2 "
    assert body["choices"][0]["finish_reason"] == "length"
    ask(port, "word " * 35)
    assert student.questions[-1][1] == 5  # a context of 40 has room for 5 more


def test_stop_texts(server):
    _, port = server
    _, body = ask(port, "q", stop="\nThe")
    assert body["choices"][0]["message"]["content"] == "2 + 2 = 4 – so"
    assert body["choices"][0]["finish_reason"] == "stop"


def test_chat_stream(server):
    _, port = server
    options = {"stream": True, "stream_options": {"include_usage": True}}
    status, text, headers = call(port, messages=[{"role": "user", "content": "q"}], **options)
    assert status == 200
    assert headers["content-type"].startswith("text/event-stream")
    first, *middle, last, usage = events(text)
    assert first["choices"][0]["delta"] == {"role": "assistant"}
    assert "".join(event["choices"][0]["delta"]["content"] for event in middle) == TEXT
    assert len(middle) > 5
    assert last["choices"][0]["delta"] == {}
    assert last["choices"][0]["finish_reason"] == "stop"
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == len(TEXT.split())
    assert len({event["id"] for event in (first, *middle, last, usage)}) == 1


def test_completion_stream(server):
    _, port = server
    _, text, _ = call(port, "/v1/completions", prompt="q", stream=True)
    *pieces, last = events(text)
    assert "".join(event["choices"][0]["text"] for event in pieces) == TEXT
    assert last["choices"][0]["finish_reason"] == "stop"


def test_models_and_health(server):
    _, port = server
    _, text, _ = call(port, "/v1/models")
    assert [model["id"] for model in json.loads(text)["data"]] == ["words"]
    _, text, _ = call(port, "/health")
    assert json.loads(text) == {"status": "ok", "model": "words", "waiting": 0}


@pytest.mark.parametrize(
    ("path", "method", "body", "status"),
    [
        ("/v1/chat/completions", "POST", b"{", 400),
        ("/v1/chat/completions", "POST", b"[" * 4000, 400),
        ("/v1/chat/completions", "POST", b"\xff\xfe", 400),
        ("/v1/chat/completions", "POST", b" " * 5001, 413),
        ("/v1/chat/completions", "GET", None, 405),
        ("/v1/embeddings", "POST", b"{}", 404),
        ("/v1/completions", "POST", b'{"prompt": "q", "n": 2}', 400),
        ("/v1/completions", "POST", b'{"prompt": "q", "model": "other"}', 404),
        ("/v1/completions", "POST", json.dumps({"prompt": "word " * 41}).encode(), 400),
        ("/v1/completions", "POST", b'{"prompt": "long"}', 400),
        ("/v1/completions", "POST", b'{"prompt": "broken"}', 500),
    ],
)
def test_errors_have_openais_form(server, path, method, body, status):
    student, port = server
    got, text, _ = call(port, path, body, method)
    assert got == status
    error = json.loads(text)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "secret detail" not in text
    assert ask(port, "q")[0] == 200  # the turn was released
    assert student.running == 0


def test_failure_under_way_ends_a_stream_with_an_error(server):
    _, port = server
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    with contextlib.closing(connection):
        body = json.dumps({"prompt": "broken", "stream": True})
        connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        received = b""
        with contextlib.suppress(http.client.IncompleteRead):
            received = connection.getresponse().read()
    assert b"secret detail" not in received
    assert ask(port, "q")[0] == 200


def test_one_at_a_time_and_a_bounded_queue(server):
    student, port = server
    results = []
    threads = [threading.Thread(target=lambda i=i: results.append(ask(port, f"slow {i}"))) for i in range(2)]
    for thread in threads:
        thread.start()
    assert student.started.wait(20)
    wait_until(lambda: json.loads(call(port, "/health")[1])["waiting"] == 1)
    status, text, headers = call(port, messages=[{"role": "user", "content": "one too many"}])
    assert status == 503
    assert headers["retry-after"] == "1"
    assert json.loads(text)["error"]["code"] == "overloaded"
    student.permission.set()
    for thread in threads:
        thread.join(20)
    assert [status for status, _ in results] == [200, 200]
    assert student.most_running == 1


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_ends_its_generation(server, stream):
    student, port = server
    body = json.dumps({"prompt": "endless", "stream": stream}).encode()
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(http_post(body))
        assert student.started.wait(20)
    wait_until(lambda: student.closed == ["endless"])
    assert ask(port, "q")[0] == 200


def test_addresses_that_cannot_be_listened_on():
    with listen("127.0.0.1", 0) as taken, pytest.raises(UsageError, match="choose another --port"):
        listen("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(UsageError, match="no such address"):
        listen("127.0.0.1.1.1.1", 0)


def test_a_question_that_cannot_fit_is_refused_without_tokenizing_it(server):
    student, port = server
    status, body = ask(port, "x" * 481)
    assert status == 400
    assert body["error"]["code"] == "context_length_exceeded"
    assert student.codec.encoded == []
    assert ask(port, "x" * 480)[0] == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:1"}, 200),
        ({"Host": "[::1]:8080"}, 200),
        ({"Host": "192.168.1.7"}, 200),
        ({"Host": "ours.example."}, 200),
        ({"Host": "evil.example"}, 421),
        ({"Host": "localhost.evil.example"}, 421),
        ({"Host": ""}, 421),
        ({"Origin": "http://localhost:3000"}, 200),
        ({"Origin": "https://ours.example"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "http://192.168.1.7"}, 403),
        ({"Origin": "null"}, 403),
        ({"Content-Type": "application/json; charset=utf-8"}, 200),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": ""}, 415),
    ],
)
def test_requests_that_other_sites_cause_are_refused(server, headers, status):
    student, port = server
    got, text, _ = call(port, "/v1/completions", b'{"prompt": "q"}', headers=headers)
    assert got == status
    assert (student.questions == []) == (status != 200)
    if status != 200:
        assert set(json.loads(text)["error"]) == {"message", "type", "param", "code"}


def test_slow_requests_are_cut_off_and_others_are_served():
    body = json.dumps({"prompt": "q"}).encode()
    whole = http_post(body)
    with serving(deadline_s=0.2) as (_, port), contextlib.ExitStack() as stack:
        for part in (b"", whole[:20], whole[:-3]):  # nothing, half a head, half a body
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
            connection.sendall(part)
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(100) == b""  # closed by the server
        assert ask(port, "q")[0] == 200


def test_a_client_that_does_not_read_gives_up_its_turn():
    with serving(deadline_s=0.2) as (student, port):
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.sendall(http_post(json.dumps({"prompt": "flood", "stream": True}).encode()))
            wait_until(lambda: student.closed == ["flood"])
        assert ask(port, "q")[0] == 200


def test_connections_over_the_cap_are_closed_at_once():
    with serving(max_connections=3) as (_, port), contextlib.ExitStack() as stack:
        open_ones = [stack.enter_context(socket.create_connection(("127.0.0.1", port), 20)) for _ in range(3)]
        one_more = stack.enter_context(socket.create_connection(("127.0.0.1", port), 20))
        with contextlib.suppress(ConnectionResetError):
            assert one_more.recv(100) == b""
        open_ones.pop().close()
        wait_until(lambda: _is_served(port))


def _is_served(port):
    try:
        return ask(port, "q")[0] == 200
    except (ConnectionError, http.client.HTTPException):
        return False


def test_bodies_under_way_are_bounded_together():
    buffered = Buffered(10)
    buffered.add(6)
    with pytest.raises(ApiError, match="Too many requests"):
        buffered.add(5)
    buffered.add(-6)
    buffered.add(10)


def test_a_flood_of_one_message_is_logged_a_few_times():
    log_filter = RepeatsFilter()
    record = logging.LogRecord("uvicorn.error", logging.WARNING, "", 0, "Invalid HTTP request received.", (), None)
    other = logging.LogRecord("uvicorn.error", logging.WARNING, "", 0, "other", (), None)
    assert sum(log_filter.filter(record) for _ in range(1000)) == MAX_REPEATS
    assert log_filter.filter(other)


def test_a_flood_that_lasts_is_logged_a_few_times_per_minute(monkeypatch):
    now = 0.0
    monkeypatch.setattr("edgeelad.edge.guard.time.monotonic", lambda: now)
    log_filter, logged = RepeatsFilter(), []
    for minute in range(3):
        for _ in range(100):
            record = logging.LogRecord("uvicorn.error", logging.WARNING, "", 0, "Invalid HTTP request.", (), None)
            if log_filter.filter(record):
                logged.append((minute, record.getMessage()))
        now += 61.0
    assert len(logged) == 3 * MAX_REPEATS
    assert [message for _, message in logged if "more in the last minute" in message] == [
        "Invalid HTTP request. (90 more in the last minute)"
    ] * 2


def test_addresses_of_this_machine_alone():
    assert all(map(is_loopback, ("127.0.0.1", "127.8.8.8", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.0.1", "localhost.example")))


def http_post(body):
    head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def wait_until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)
