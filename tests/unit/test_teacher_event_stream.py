"""Streams of server-sent events as servers send them."""

import json
import random

import pytest

from edgeelad.teacher.client.event_stream import assemble, is_event_stream


def events(*items, end="\n\n"):
    return "".join(f"data: {item if isinstance(item, str) else json.dumps(item)}{end}" for item in items).encode()


def delta(finish_reason=None, index=0, **fields):
    return {"model": "m", "choices": [{"index": index, "delta": fields, "finish_reason": finish_reason}]}


def whole(body):
    reply, problem = assemble(body)
    assert problem == ""
    return json.loads(reply)


@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n", "\n\n\n"])
def test_deltas_are_joined_and_the_last_usage_counts(end):
    usage = {"prompt_tokens": 10, "completion_tokens": 5}
    body = events(
        delta(role="assistant", content=""),
        delta(content='{"answer": '),
        {**delta(content='"½"}'), "usage": {"prompt_tokens": 10, "completion_tokens": 1}},
        delta("stop"),
        {"model": "m", "choices": [], "usage": usage},
        "[DONE]",
        end=end,
    )
    reply = whole(b"\xef\xbb\xbf: OPENROUTER PROCESSING\n\nevent: message\n" + body)
    assert reply["usage"] == usage
    assert reply["model"] == "m"
    assert reply["choices"] == [
        {"message": {"role": "assistant", "content": '{"answer": "½"}'}, "finish_reason": "stop"}
    ]


def test_reasoning_and_tool_calls_are_joined():
    body = events(
        delta(role="assistant", content=None, reasoning_content="3 "),
        delta(reasoning_content="+ 4"),
        delta(
            tool_calls=[{"index": 0, "id": "a", "type": "function", "function": {"name": "answer", "arguments": ""}}]
        ),
        delta(tool_calls=[{"index": 0, "function": {"arguments": '{"answer"'}}]),
        delta("tool_calls", tool_calls=[{"index": 0, "function": {"arguments": ': "7"}'}}]),
    )
    message = whole(body)["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == (None, "3 + 4")
    (call,) = message["tool_calls"]
    assert call["function"] == {"name": "answer", "arguments": '{"answer": "7"}'}
    assert (call["id"], call["type"]) == ("a", "function")


def test_other_shapes():
    message = {"role": "assistant", "content": "7"}
    body = events(
        {"choices": [{"message": message, "finish_reason": "stop"}], "x_groq": {"usage": {"prompt_tokens": 3}}}
    )
    reply = whole(body)
    assert reply["choices"][0]["message"] == message
    assert reply["usage"] == {"prompt_tokens": 3}
    parts = events(
        delta(content=[{"type": "text", "text": "a"}]), delta("stop", content=[{"type": "text", "text": "b"}])
    )
    assert [part["text"] for part in whole(parts)["choices"][0]["message"]["content"]] == ["a", "b"]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (events(delta(content="7")), "broke off"),
        (events(delta(content="7"))[:-9], "no JSON"),
        (b"event: ping\n\n", "broke off"),
        (events("[1]"), "no JSON object"),
        (events(delta(content="7"), {"error": {"message": "overloaded", "code": 502}}), "ended with an error"),
    ],
)
def test_what_is_incomplete_is_said(body, problem):
    assert problem in assemble(body)[1]


def test_an_error_before_any_text_is_an_error():
    body = events(delta(role="assistant"), {"error": {"message": "overloaded", "code": 502}})
    assert whole(body) == {"error": {"message": "overloaded", "code": 502}}


def test_what_is_a_stream():
    assert is_event_stream({"content-type": "text/event-stream"}, b"")
    assert is_event_stream({}, b"data: {}")
    assert is_event_stream({}, b": comment")
    assert not is_event_stream({"content-type": "text/event-stream"}, b'{"choices": []}')
    assert not is_event_stream({"content-type": "application/json"}, b"")
    assert not is_event_stream({}, b"database error")


def test_any_split_gives_the_same_text():
    rng = random.Random(0)
    text = "3 + 4 = 7 … " * 50
    for _ in range(20):
        cuts = sorted(rng.sample(range(len(text)), 12))
        pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, None], strict=True)]
        assert whole(events(*(delta(content=piece) for piece in pieces), "[DONE]"))["choices"][0]["message"] == {
            "content": text
        }
