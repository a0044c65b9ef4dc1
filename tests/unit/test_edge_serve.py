import contextlib
import http.client
import json
import socket
import threading
import time

import pytest
import uvicorn

from edgeelad.edge.generation import ServedStudent
from edgeelad.edge.serve import listen, make_app
from edgeelad.errors import PromptTooLongError, UsageError

TEXT = "2 + 2 = 4 – so\nThe answer is 4"


class WordCodec:
    """One token a word."""

    max_context = 40

    def encode_prompt(self, question):
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
                yield word if word.endswith("\n") or index + 1 == len(words) else word + " "
        finally:
            self.running -= 1
            self.closed.append(question.text)


@pytest.fixture
def server():
    student = WordStudent()
    app = make_app(ServedStudent(student, "words", "number", 30), max_body_bytes=5000, max_waiting=1)
    with listen("127.0.0.1", 0) as listener:
        running = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
        thread.start()
        yield student, listener.getsockname()[1]
        student.permission.set()
        running.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def call(port, path="/v1/chat/completions", body=None, method=None, **fields):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    with contextlib.closing(connection):
        data = body if body is not None else json.dumps(fields).encode() if fields else None
        connection.request(method or ("POST" if data else "GET"), path, data)
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
    assert ask(port, "q")[0] == 200  # the turn was given back
    assert student.running == 0


def test_failure_under_way_ends_a_stream_with_an_error(server):
    _, port = server
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    with contextlib.closing(connection):
        connection.request("POST", "/v1/completions", json.dumps({"prompt": "broken", "stream": True}))
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
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(head + body)
        assert student.started.wait(20)
    wait_until(lambda: student.closed == ["endless"])
    assert ask(port, "q")[0] == 200


def test_addresses_that_cannot_be_listened_on():
    with listen("127.0.0.1", 0) as taken, pytest.raises(UsageError, match="choose another --port"):
        listen("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(UsageError, match="no such address"):
        listen("127.0.0.1.1.1.1", 0)


def wait_until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)
