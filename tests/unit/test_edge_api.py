import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeelad.edge.api import ApiError, parse_request
from edgeelad.edge.stops import cut_at_stops

HELLO = [{"role": "user", "content": "hello"}]


def refused(body, kind="chat"):
    with pytest.raises(ApiError) as caught:
        parse_request(body, kind, "m")
    return caught.value


def test_the_last_user_message_is_the_question():
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is 1 + 1?"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "2 + 2?"}]},
        {"role": "assistant", "content": ""},
    ]
    request = parse_request({"model": "m", "messages": messages}, "chat", "m")
    assert request.text == "What is 2 + 2?"
    assert (request.max_tokens, request.stop, request.is_stream, request.include_usage) == (None, (), False, False)


def test_everything_that_can_be_asked():
    body = {
        "prompt": ["What is 2 + 2?"],
        "max_tokens": 7,
        "stop": ["\n\n"],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0,
        "top_p": 0.9,
        "n": 1,
        "user": "me",
        "seed": 3,
        "logit_bias": None,
        "echo": False,
        "presence_penalty": 0.0,
    }
    request = parse_request(body, "completion", "m")
    assert request.text == "What is 2 + 2?"
    assert (request.max_tokens, request.stop, request.is_stream, request.include_usage) == (7, ("\n\n",), True, True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 2),
        ("n", True),
        ("tools", [{"type": "function"}]),
        ("functions", [{}]),
        ("tool_choice", "required"),
        ("response_format", {"type": "json_object"}),
        ("logprobs", True),
        ("top_logprobs", 3),
        ("logit_bias", {"5": 1}),
        ("presence_penalty", 0.5),
        ("audio", {"voice": "x"}),
        ("temperature", 0.7),
        ("temperature", "hot"),
        ("temperature", True),
        ("temperature", -1),
        ("top_p", 2),
        ("max_tokens", 0),
        ("max_tokens", 1.5),
        ("max_tokens", True),
        ("max_completion_tokens", "many"),
        ("stop", ["a", "b", "c", "d", "e"]),
        ("stop", [""]),
        ("stop", 5),
        ("stream", "yes"),
        ("stream_options", {"include_usage": True}),
        ("reasoning", {}),
        ("prompt", "in chat"),
    ],
)
def test_what_cannot_be_done_is_refused_and_named(name, value):
    error = refused({"messages": HELLO, name: value})
    assert error.status == 400
    assert error.param == name
    assert error.to_json()["error"]["type"] == "invalid_request_error"
    assert name in str(error)


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        (None, "messages"),
        ([], "messages"),
        ("hi", "messages"),
        ([{"role": "system", "content": "x"}], "messages"),
        (["hi"], "messages[0]"),
        ([{"content": "x"}], "messages[0]"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "user", "content": "  "}], "messages[0].content"),
        ([{"role": "user", "content": "\ud800"}], "messages[0].content"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "messages[0].content"),
    ],
)
def test_messages_that_hold_no_question(messages, param):
    assert refused({"messages": messages}).param == param


@pytest.mark.parametrize("prompt", [None, ["a", "b"], [1, 2, 3], "", {}])
def test_prompts_that_are_not_one_text(prompt):
    assert refused({"prompt": prompt}, "completion").param == "prompt"


def test_other_models_and_other_bodies():
    error = refused({"model": "gpt-4", "messages": HELLO})
    assert (error.status, error.code, error.param) == (404, "model_not_found", "model")
    assert refused([1]).status == 400
    assert refused({"messages": HELLO, "made_up": 1}).code == "unknown_parameter"


TEXTS = st.text(alphabet="ab\n", max_size=30)


@given(TEXTS, st.lists(st.text(alphabet="ab\n", min_size=1, max_size=4), max_size=3), st.integers(1, 5))
def test_stops_cut_at_the_same_place_whatever_the_pieces(text, stops, size):
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    got = list(cut_at_stops(iter(pieces), stops))
    ends = [end for end in range(len(text) + 1) if any(text[:end].endswith(stop) for stop in stops)]
    complete = [stop for stop in stops if ends and text[: ends[0]].endswith(stop)]
    assert "".join(got) == (text[: ends[0] - max(map(len, complete))] if ends else text)
    assert "" not in got


def test_stops_take_no_more_than_needed():
    taken = []

    def pieces():
        for piece in ("one ", "two ", "STOP", "three"):
            taken.append(piece)
            yield piece

    assert "".join(cut_at_stops(pieces(), ["STOP"])) == "one two "
    assert taken == ["one ", "two ", "STOP"]
