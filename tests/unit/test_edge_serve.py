import asyncio
import contextlib
import http.client
import json
import logging
import math
import socket
import threading

import pytest
from fixtures.served import CONTEXT, TEXT, ScriptedBatch, events, make_codec, serving, wait_until

from edgeelad.edge.api import ApiError
from edgeelad.edge.guard import MAX_REPEATS, RepeatsFilter
from edgeelad.edge.scheduler import Scheduler
from edgeelad.edge.serve import Buffered, listen
from edgeelad.engine.generate import SequenceRequest
from edgeelad.engine.sampling import SamplingParams
from edgeelad.errors import UsageError
from edgeelad.hosts import is_loopback

NUM_TOKENS = len(make_codec().encode_completion(TEXT))


@pytest.fixture
def server():
    with serving() as running:
        yield running


def num_prompt_tokens(question):
    return len(make_codec().encode_completion(f"Q: {question}\n"))


def test_chat(server):
    status, body = server.ask("What is 2 + 2?", model="org/words")
    assert status == 200
    assert body["object"] == "chat.completion"
    assert body["model"] == "org/words"
    (choice,) = body["choices"]
    extension = choice.pop("edgeelad")
    assert choice == {
        "index": 0,
        "message": {"role": "assistant", "content": TEXT, "refusal": None},
        "logprobs": None,
        "finish_reason": "stop",
    }
    num_prompt = num_prompt_tokens("What is 2 + 2?")
    total = num_prompt + NUM_TOKENS
    assert body["usage"] == {
        "prompt_tokens": num_prompt, "completion_tokens": NUM_TOKENS, "total_tokens": total
    }  # fmt: skip
    assert server.batch.questions == [("What is 2 + 2?", 40)]
    assert extension["source"] == "student"
    assert extension["steps"] == ["Start with 2.", "2 + 2 = 4 ∴ so"]
    assert extension["answer"] == "4"
    # the script's token i has the log-probability -(i + 1) / 8, the end token included
    ends = [len(make_codec().encode_completion(TEXT[:end])) for end in (14, 29)]
    means = [-(1 + ends[0]) / 16, -(ends[0] + 1 + ends[1]) / 16]
    assert extension["confidences"] == pytest.approx([math.exp(mean) for mean in means])
    assert extension["confidence"] == pytest.approx(math.exp(-(2 + NUM_TOKENS) / 16))
    assert 0 < extension["risk"] < 1


def test_completion_and_limits(server):
    status, text, _ = server.call("/v1/completions", prompt="What is 2 + 2?", max_tokens=3)
    body = json.loads(text)
    assert status == 200
    assert body["object"] == "text_completion"
    assert body["choices"][0]["text"] == make_codec().decode(make_codec().encode_completion(TEXT)[:3])
    assert body["choices"][0]["finish_reason"] == "length"
    question = "and " * 60
    server.ask(question)
    assert server.batch.questions[-1][1] == CONTEXT - num_prompt_tokens(question)


def test_tokens_per_request_can_be_limited():
    with serving(max_tokens=5) as server:
        server.ask("q", max_tokens=30)
        server.ask("q")
        server.ask("q", max_tokens=2)
        assert [limit for _, limit in server.batch.questions] == [5, 5, 2]


def test_stop_texts(server):
    _, body = server.ask("q", stop="\nThe")
    (choice,) = body["choices"]
    assert choice["message"]["content"] == "Start with 2.\n2 + 2 = 4 ∴ so"
    assert choice["finish_reason"] == "stop"
    assert choice["edgeelad"]["steps"] == ["Start with 2.", "2 + 2 = 4 ∴ so"]
    assert choice["edgeelad"]["answer"] == "4"  # its last number
    _, body = server.ask("q", stop="Start")
    assert body["choices"][0]["message"]["content"] == ""
    assert (body["choices"][0]["edgeelad"]["confidence"], body["choices"][0]["edgeelad"]["risk"]) == (None, None)


def test_chat_stream(server):
    options = {"stream": True, "stream_options": {"include_usage": True}}
    status, text, headers = server.call(messages=[{"role": "user", "content": "q"}], **options)
    assert status == 200
    assert headers["content-type"].startswith("text/event-stream")
    first, *middle, last, usage = events(text)
    assert first["choices"][0]["delta"] == {"role": "assistant"}
    assert "".join(event["choices"][0]["delta"]["content"] for event in middle) == TEXT
    assert len(middle) > 5
    assert last["choices"][0]["delta"] == {}
    assert last["choices"][0]["finish_reason"] == "stop"
    assert last["choices"][0]["edgeelad"] == server.ask("q")[1]["choices"][0]["edgeelad"]
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == NUM_TOKENS
    assert len({event["id"] for event in (first, *middle, last, usage)}) == 1


def test_completion_stream(server):
    _, text, _ = server.call("/v1/completions", prompt="q", stream=True)
    *pieces, last = events(text)
    assert "".join(event["choices"][0]["text"] for event in pieces) == TEXT
    assert last["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("stream", [False, True])
def test_choices_are_sampled_with_seeds_of_their_own(stream):
    with serving(max_running=4) as server:

        def sample(**fields):
            _, text, _ = server.call(
                "/v1/completions", prompt="q", n=3, temperature=0.7, top_p=0.5, stream=stream, **fields
            )
            if not stream:
                return [choice["text"] for choice in json.loads(text)["choices"]]
            texts = ["", "", ""]
            for event in events(text):
                for choice in event["choices"]:
                    texts[choice["index"]] += choice["text"]
            return texts

        found = sample(seed=7)
        assert all(text.endswith(TEXT) for text in found)
        assert found == sample(seed=7)
        assert any(sample(seed=seed) != found for seed in range(3))
        assert server.batch.most_running == 3


def test_logprobs_of_a_chat(server):
    fields = {"logprobs": True, "top_logprobs": 2}
    choice = server.ask("q", **fields)[1]["choices"][0]
    rows = choice["logprobs"]["content"]
    assert "".join(row["token"] for row in rows).replace("\ufffd", "") == TEXT.replace("∴", "")
    assert [row["logprob"] for row in rows] == [-(place + 1) / 8 for place in range(NUM_TOKENS)]
    assert rows[0]["bytes"] == list(rows[0]["token"].encode())
    assert [row["bytes"] for row in rows].count(None) == 3  # the parts of a character
    top = {"token": rows[0]["token"], "logprob": -0.125, "bytes": rows[0]["bytes"]}
    assert rows[0]["top_logprobs"][0] == top
    assert len(rows[0]["top_logprobs"]) == 2
    _, text, _ = server.call(messages=[{"role": "user", "content": "q"}], stream=True, **fields)
    chunks = [event["choices"][0]["logprobs"] for event in events(text)]
    assert [row for chunk in chunks if chunk for row in chunk["content"]] == rows
    stopped = server.ask("q", stop=" so\n", **fields)[1]["choices"][0]
    assert stopped["logprobs"]["content"] == rows[: len(stopped["logprobs"]["content"])]
    assert "".join(row["token"] for row in stopped["logprobs"]["content"]).startswith("Start with 2.\n2 + 2 = 4 ")
    assert server.ask("q", logprobs=True)[1]["choices"][0]["logprobs"]["content"][0]["top_logprobs"] == []


def test_logprobs_of_a_completion(server):
    _, text, _ = server.call("/v1/completions", prompt="q", logprobs=2)
    found = json.loads(text)["choices"][0]["logprobs"]
    assert found["tokens"][0] == TEXT[: len(found["tokens"][0])]
    assert found["token_logprobs"][:2] == [-0.125, -0.25]
    assert found["text_offset"][:2] == [0, len(found["tokens"][0])]
    assert found["top_logprobs"][0][found["tokens"][0]] == -0.125
    _, text, _ = server.call("/v1/completions", prompt="q", logprobs=2, stream=True)
    chunks = [event["choices"][0]["logprobs"] for event in events(text)]
    assert [token for chunk in chunks if chunk for token in chunk["tokens"]] == found["tokens"]


def test_models_and_health(server):
    _, text, _ = server.call("/v1/models")
    assert [model["id"] for model in json.loads(text)["data"]] == ["org/words"]
    assert json.loads(server.call("/v1/models/org/words")[1]) == json.loads(text)["data"][0]
    status, text, _ = server.call("/v1/models/gpt-4")
    assert (status, json.loads(text)["error"]["code"]) == (404, "model_not_found")
    assert server.health() == {"status": "ok", "model": "org/words", "running": 0, "waiting": 0}


def test_metrics(server):
    server.ask("q")
    server.ask("q", max_tokens=0)
    server.call("/no/such/path")
    server.call("/v1/models/gpt-4")
    _, text, headers = server.call("/metrics")
    assert headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = text.splitlines()
    for line in (
        'edgeelad_requests_total{path="/v1/chat/completions",status="200"} 1',
        'edgeelad_requests_total{path="/v1/chat/completions",status="400"} 1',
        'edgeelad_requests_total{path="other",status="404"} 2',
        f"edgeelad_prompt_tokens_total {num_prompt_tokens('q')}",
        f"edgeelad_generated_tokens_total {NUM_TOKENS}",
        "edgeelad_running 0",
        "edgeelad_max_running 2",
        'edgeelad_generation_seconds_bucket{le="+Inf"} 1',
        "edgeelad_queue_seconds_count 1",
        "edgeelad_escalated_total 0",
    ):
        assert line in lines
    names = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    server.ask("broken")
    assert 'edgeelad_requests_total{path="/v1/chat/completions",status="500"} 1' in server.call("/metrics")[1]
    assert all(line.startswith("#") or line.split("{")[0].split()[0].startswith(tuple(names)) for line in lines)


@pytest.mark.parametrize(
    ("path", "method", "body", "status"),
    [
        ("/v1/chat/completions", "POST", b"{", 400),
        ("/v1/chat/completions", "POST", b"[" * 4000, 400),
        ("/v1/chat/completions", "POST", b"\xff\xfe", 400),
        ("/v1/chat/completions", "POST", b" " * 5001, 413),
        ("/v1/chat/completions", "GET", None, 405),
        ("/v1/embeddings", "POST", b"{}", 404),
        ("/v1/completions", "POST", b'{"prompt": "q", "n": 99}', 400),
        ("/v1/completions", "POST", b'{"prompt": "q", "response_format": {"type": "json_object"}}', 400),
        ("/v1/completions", "POST", b'{"prompt": "q", "model": "other"}', 404),
        ("/v1/completions", "POST", json.dumps({"prompt": "2 " * 80}).encode(), 400),
        ("/v1/completions", "POST", b'{"prompt": "torn"}', 500),
        ("/v1/completions", "POST", b'{"prompt": "broken"}', 500),
        ("/v1/completions", "POST", b'{"prompt": "torn", "stream": true}', 500),
    ],
)
def test_errors_have_openais_form(server, path, method, body, status):
    got, text, _ = server.call(path, body, method)
    assert got == status
    error = json.loads(text)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "secret detail" not in text
    assert server.ask("q")[0] == 200  # the place is free
    assert server.health()["running"] == 0


def test_a_body_that_says_it_is_too_large_is_not_read(server):
    head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(f"{head}Content-Length: {100 << 20}\r\n\r\n{{".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 413")
    assert server.ask("q")[0] == 200


def test_failure_under_way_ends_a_stream_with_an_error(server):
    status, text, _ = server.call("/v1/completions", prompt="broken", stream=True)
    *pieces, error = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert status == 200
    assert pieces
    assert json.loads(error)["error"]["type"] == "server_error"
    assert "secret detail" not in text
    assert server.ask("q")[0] == 200


def test_a_failure_ends_the_requests_in_its_company_and_no_others():
    with serving(max_running=3, max_waiting=1) as server:
        with asking(server, "slow broken", "slow other") as results:
            wait_until(lambda: server.health()["running"] == 2)
            server.batch.fail = True
            server.batch.permission.set()
        assert sorted(status for status, _ in results) == [500, 500]
        assert server.ask("q")[0] == 200


def test_a_sequence_that_fails_alone_ends_its_request_alone():
    with serving(max_running=3) as server:
        with asking(server, "slow nan", "slow other") as results:
            wait_until(lambda: server.health()["running"] == 2)
            server.batch.permission.set()
        assert sorted(status for status, _ in results) == [200, 500]
        assert "secret detail" not in json.dumps(results)
        assert server.health()["running"] == 0


@contextlib.contextmanager
def asking(server, *questions):
    """Ask several questions at the same time; the results are complete when the block ends."""
    results = []
    threads = [threading.Thread(target=lambda q=question: results.append(server.ask(q))) for question in questions]
    for thread in threads:
        thread.start()
    yield results
    for thread in threads:
        thread.join(20)


def test_a_first_token_does_not_wait_for_other_prompts():
    batch = ScriptedBatch(2)
    requests = [
        SequenceRequest(tuple(make_codec().encode_completion(f"Q: {question}\n")), SamplingParams(9))
        for question in ("q", "held")
    ]

    async def ask(scheduler):
        first, second = scheduler.submit(requests)
        try:
            fresh = await asyncio.wait_for(anext(first.tokens()), 10)
            return len(fresh), second.sequence
        finally:
            batch.permission.set()
            await scheduler.drain(10)

    with Scheduler(batch, 2) as scheduler:
        assert asyncio.run(ask(scheduler)) == (1, None)


def test_requests_share_steps_and_the_queue_is_bounded(server):
    with asking(server, "slow 1", "slow 2", "slow 3") as results:
        wait_until(lambda: (server.health()["running"], server.health()["waiting"]) == (2, 1))
        status, text, headers = server.call(messages=[{"role": "user", "content": "one too many"}])
        assert status == 503
        assert headers["retry-after"] == "1"
        assert json.loads(text)["error"]["code"] == "overloaded"
        lines = server.call("/metrics")[1].splitlines()
        assert "edgeelad_running 2" in lines
        assert "edgeelad_waiting 1" in lines
        server.batch.permission.set()
    assert [status for status, _ in results] == [200, 200, 200]
    assert server.batch.most_running == 2


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_place_at_once(server, stream):
    body = json.dumps({"prompt": "endless", "stream": stream, "max_tokens": 70}).encode()
    slow = json.dumps({"prompt": "slow", "stream": stream}).encode()
    with contextlib.ExitStack() as stack:
        running = [socket.create_connection(("127.0.0.1", server.port), timeout=20) for _ in range(2)]
        for connection in running:
            stack.enter_context(connection).sendall(http_post(slow))
        wait_until(lambda: server.health()["running"] == 2)
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as waiting:
            waiting.sendall(http_post(body))
            wait_until(lambda: server.health()["waiting"] == 1)
        wait_until(lambda: server.health()["waiting"] == 0)  # though nothing has moved
        assert [question for question, _ in server.batch.questions] == ["slow", "slow"]
        running[0].close()
        server.batch.permission.set()
        wait_until(lambda: server.health()["running"] <= 1)
    wait_until(lambda: server.health()["running"] == 0)
    assert server.ask("q")[0] == 200
    assert 'status="499"' in server.call("/metrics")[1]


def test_addresses_that_cannot_be_listened_on():
    with listen("127.0.0.1", 0) as taken, pytest.raises(UsageError, match="choose another --port"):
        listen("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(UsageError, match="no such address"):
        listen("127.0.0.1.1.1.1", 0)


def test_a_question_that_cannot_fit_is_refused_without_tokenizing_it(server, monkeypatch):
    monkeypatch.setattr(type(make_codec()), "encode_prompt", None)
    status, body = server.ask("x" * (CONTEXT * make_codec().max_token_chars + 1))
    assert status == 400
    assert body["error"]["code"] == "context_length_exceeded"


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
    got, text, _ = server.call("/v1/completions", b'{"prompt": "q"}', headers=headers)
    assert got == status
    assert (server.batch.questions == []) == (status != 200)
    if status != 200:
        assert set(json.loads(text)["error"]) == {"message", "type", "param", "code"}


def test_pages_of_other_origins_may_use_the_server_if_they_are_named():
    with serving(cors_origins=("https://app.example",)) as server:
        origin = {"Origin": "https://app.example"}
        asked = {**origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        status, _, headers = server.call("/v1/completions", method="OPTIONS", headers=asked)
        assert (status, headers["access-control-allow-origin"]) == (200, "https://app.example")
        status, _, headers = server.call("/v1/completions", b'{"prompt": "q"}', headers=origin)
        assert (status, headers["access-control-allow-origin"]) == (200, "https://app.example")
        status, _, headers = server.call(
            "/v1/completions", b'{"prompt": "q"}', headers={"Origin": "http://app.example"}
        )
        assert (status, headers.get("access-control-allow-origin")) == (403, None)
    with serving() as server:
        _, _, headers = server.call("/health", headers={"Origin": "http://localhost:3000"})
        assert "access-control-allow-origin" not in headers


def test_a_key_is_required_if_the_server_has_one():
    with serving(api_key="sésame", cors_origins=("https://app.example",)) as server:
        for given, status in (
            (None, 401),
            ("Bearer wrong", 401),
            ("Basic sésame", 401),
            ("Bearer", 401),
            ("Bearer sésame", 200),
            ("bearer  sésame", 200),
        ):
            headers = {} if given is None else {"Authorization": given.encode()}
            for path, body in (("/v1/completions", b'{"prompt": "q"}'), ("/metrics", None), ("/v1/models", None)):
                got, text, found = server.call(path, body, headers=headers)
                assert got == status
                if status == 401:
                    assert found["www-authenticate"] == "Bearer"
                    assert json.loads(text)["error"]["code"] == "invalid_api_key"
        assert server.call("/health")[0] == 200
        asked = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
        assert server.call("/v1/completions", method="OPTIONS", headers=asked)[0] == 200  # browsers send no key here


def test_slow_requests_are_cut_off_and_others_are_served():
    whole = http_post(json.dumps({"prompt": "q"}).encode())
    with serving(deadline_s=0.2) as server, contextlib.ExitStack() as stack:
        for part in (b"", whole[:20], whole[:-3]):  # nothing, half a head, half a body
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=20))
            connection.sendall(part)
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(100) == b""  # closed by the server
        assert server.ask("q")[0] == 200


def test_connections_over_the_cap_are_closed_at_once():
    with serving(max_connections=3) as server, contextlib.ExitStack() as stack:
        open_ones = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 20)) for _ in range(3)]
        one_more = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 20))
        with contextlib.suppress(ConnectionResetError):
            assert one_more.recv(100) == b""
        open_ones.pop().close()
        wait_until(lambda: _is_served(server))


def _is_served(server):
    try:
        return server.ask("q")[0] == 200
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
