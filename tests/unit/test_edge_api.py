import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeelad.edge.api import ApiError, parse_request
from edgeelad.edge.stops import StopCutter
from edgeelad.files import dump_json

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
        "temperature": 0.7,
        "top_p": 0.9,
        "n": 3,
        "logprobs": 5,
        "user": "me",
        "seed": -3,
        "response_format": {"type": "text"},
        "logit_bias": None,
        "echo": False,
        "presence_penalty": 0.0,
    }
    request = parse_request(body, "completion", "m")
    assert request.text == "What is 2 + 2?"
    assert (request.max_tokens, request.stop, request.is_stream, request.include_usage) == (7, ("\n\n",), True, True)
    assert (request.temperature, request.top_p, request.num_choices, request.seed) == (0.7, 0.9, 3, -3)
    assert request.num_top == 5


def test_defaults_are_greedy_and_extremes_are_safe():
    request = parse_request({"messages": HELLO}, "chat", "m")
    assert (request.temperature, request.top_p, request.num_choices, request.seed) == (0.0, 1.0, 1, None)
    assert request.num_top is None
    request = parse_request({"messages": HELLO, "temperature": 1e-300, "top_p": 0, "logprobs": True}, "chat", "m")
    assert (request.temperature, request.num_top) == (0.0, 0)
    assert 0 < request.top_p < 1e-3
    assert parse_request({"prompt": "x", "logprobs": 0}, "completion", "m").num_top == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 0),
        ("n", 17),
        ("n", True),
        ("seed", 0.5),
        ("seed", 2**63),
        ("tools", [{"type": "function"}]),
        ("functions", [{}]),
        ("tool_choice", "required"),
        ("response_format", {"type": "xml"}),
        ("logprobs", 5),
        ("top_logprobs", 3),
        ("top_logprobs", 21),
        ("logit_bias", {"5": 1}),
        ("presence_penalty", 0.5),
        ("audio", {"voice": "x"}),
        ("temperature", "hot"),
        ("temperature", float("nan")),
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
        ([{"role": "user", "content": "\u200b\u2060 \x07"}], "messages[0].content"),
        ([{"role": "user", "content": "What is\0 1 + 1?"}], "messages[0].content"),
        ([{"role": "user", "content": "\ud800"}], "messages[0].content"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "messages[0].content"),
    ],
)
def test_messages_that_hold_no_question(messages, param):
    assert refused({"messages": messages}).param == param


@pytest.mark.parametrize("prompt", [None, ["a", "b"], [1, 2, 3], "", "\u200b", "a\0", {}])
def test_prompts_that_are_not_one_text(prompt):
    assert refused({"prompt": prompt}, "completion").param == "prompt"


def test_other_models_and_other_bodies():
    error = refused({"model": "gpt-4", "messages": HELLO})
    assert (error.status, error.code, error.param) == (404, "model_not_found", "model")
    assert refused([1]).status == 400
    assert refused({"messages": HELLO, "made_up": 1}).code == "unknown_parameter"
    error = refused({"messages": HELLO, "made \ud800 up": 1})
    assert (error.status, error.param) == (400, "made \\ud800 up")
    assert dump_json(error.to_json()).encode("utf-8")


TEXTS = st.text(alphabet="ab\n", max_size=30)


def cut(pieces, stops):
    cutter = StopCutter(stops)
    for piece in pieces:
        yield cutter.push(piece)
        if cutter.is_stopped:
            break
    yield cutter.flush()


@given(TEXTS, st.lists(st.text(alphabet="ab\n", min_size=1, max_size=4), max_size=3), st.integers(1, 5))
def test_stops_cut_at_the_same_place_whatever_the_pieces(text, stops, size):
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    ends = [end for end in range(len(text) + 1) if any(text[:end].endswith(stop) for stop in stops)]
    complete = [stop for stop in stops if ends and text[: ends[0]].endswith(stop)]
    expected = text[: ends[0] - max(map(len, complete))] if ends else text
    assert "".join(cut(pieces, stops)) == expected


def test_what_cannot_begin_a_stop_is_not_held_back():
    cutter = StopCutter(["STOP", "\n\n"])
    assert [cutter.push(piece) for piece in ("one ", "two S", "ave\n", "x STO", "P")] == [
        "one ",
        "two ",
        "Save",
        "\nx ",
        "",
    ]
    assert cutter.is_stopped
    assert cutter.flush() == ""
