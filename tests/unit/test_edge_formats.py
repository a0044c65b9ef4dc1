"""`response_format`: which objects can be asked for, and what is filled into them."""

import json

import pytest
from fixtures.served import TEXT, events, serving

from edgeelad.edge.api import ApiError, parse_request
from edgeelad.edge.formats import FormatError, UnfilledError, fill, parse_format

FOUND = {
    "steps": ["2 + 2 = 4"],
    "confidences": [0.9],
    "answer": "4",
    "confidence": 0.8,
    "risk": 0.1,
    "source": "student",
}
STRINGS = {"type": "array", "items": {"type": "string"}}
# as pydantic writes a model with steps, an optional number, an enum
DEFINED = {
    "$defs": {"Label": {"enum": ["Four", "(4)", "Five"], "title": "Label", "type": "string"}},
    "properties": {
        "steps": {"items": {"type": "string"}, "title": "Steps", "type": "array"},
        "answer": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None, "title": "Answer"},
    },
    "required": ["steps"],
    "title": "Solution",
    "type": "object",
    "additionalProperties": False,
}


def as_format(schema, **fields):
    return {"type": "json_schema", "json_schema": {"name": "solution", "schema": schema, "strict": True, **fields}}


def schema_of(required=None, **properties):
    names = list(properties) if required is None else required
    return {"type": "object", "properties": properties, "required": names, "additionalProperties": False}


def filled(schema, kind="number", **found):
    return fill(parse_format(as_format(schema)), FOUND | found, kind)


def test_text_is_no_format():
    assert parse_format(None) is parse_format({"type": "text"}) is None


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (schema_of(answer={"type": "string"}, confidence={"type": "number"}), True),
        (schema_of(steps=STRINGS, confidences={"type": "array", "items": {"type": "number"}}), True),
        (schema_of(risk={"anyOf": [{"type": "number"}, {"type": "integer"}]}), True),
        (schema_of(risk={"anyOf": [{"type": "number"}, {"type": "null"}]}), False),
        (schema_of(answer={"type": "string"}, confidence={}), False),
        (schema_of(["answer"], answer={"type": "string"}, confidence={"type": "number"}), False),
        (schema_of(steps=STRINGS, answer={"type": "string"}), False),
    ],
)
def test_an_object_with_confidences_is_the_students(schema, expected):
    assert parse_format(as_format(schema)).is_of_student == expected


def test_an_object_holds_steps_and_answer():
    for wanted in ({"type": "json_object"}, as_format({}), as_format({"type": "object"})):
        assert fill(parse_format(wanted), FOUND, "number") == {"steps": ["2 + 2 = 4"], "answer": "4"}
    with pytest.raises(FormatError, match="no properties"):
        parse_format(as_format(schema_of()))
    cut = FOUND | {"answer": None}
    assert fill(parse_format({"type": "json_object"}), cut, "number") == {"steps": ["2 + 2 = 4"], "answer": None}


@pytest.mark.parametrize(
    ("schema", "kind", "answer", "expected"),
    [
        ({"type": "string"}, "number", "4", "4"),
        ({"type": "integer"}, "number", "-12", -12),
        ({"type": "number"}, "number", "4", 4),
        ({"type": "number"}, "number", "0.5", 0.5),
        ({"type": "number"}, "number", "1/4", 0.25),
        ({"type": "number"}, "text", "4", 4),
        ({"type": "boolean"}, "boolean", "no", False),
        ({"type": ["integer", "null"]}, "number", "4", 4),
        ({"type": ["integer", "null"]}, "number", None, None),
        ({"type": ["integer", "string"]}, "number", "1/3", "1/3"),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, "number", "7", 7),
        ({"enum": [3, 4]}, "number", "4", 4),
        ({"enum": [1, True]}, "boolean", "yes", True),
        ({"const": 4.0}, "number", "4", 4.0),
        ({"type": "string", "enum": ["Yes", "No"]}, "boolean", "yes", "Yes"),
        ({"type": "string", "enum": ["(A)", "(B)"]}, "choice", "B", "(B)"),
        ({"type": "string", "enum": ["The Mall", "a bank"]}, "text", "mall", "The Mall"),
        ({}, "number", "4", "4"),
        ({"$ref": "#/$defs/Label"}, "number", "4", "(4)"),
    ],
)
def test_an_answer_has_the_type_that_the_schema_says(schema, kind, answer, expected):
    found = filled(schema_of(answer=schema) | {"$defs": DEFINED["$defs"]}, kind, answer=answer)
    assert found == {"answer": expected}
    assert type(found["answer"]) is type(expected)
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(
    ("schema", "answer"),
    [
        ({"type": "integer"}, "0.5"),
        ({"type": "integer"}, "1/3"),
        ({"type": "integer"}, None),
        ({"type": "number"}, "1e9999999"),
        ({"type": "number"}, "9" * 299 + "0" * 20),
        ({"type": "number"}, "1/0"),
        ({"type": "number"}, "mall"),
        ({"type": "string"}, None),
        ({"type": "boolean"}, "4"),
        ({"enum": [3, 5]}, "4"),
        ({"enum": ["4", 4], "type": "boolean"}, "4"),
    ],
)
def test_an_answer_of_another_type_is_not_sent(schema, answer):
    with pytest.raises(UnfilledError, match="answer"):
        filled(schema_of(answer=schema), answer=answer)
    optional = schema_of(required=["steps"], steps=STRINGS, answer=schema)
    assert filled(optional, answer=answer) == {"steps": ["2 + 2 = 4"]}


def test_all_properties():
    number, numbers = {"type": "number"}, {"type": "array", "items": {"type": "number"}}
    schema = schema_of(risk=number, confidence=number, steps=STRINGS, confidences=numbers, answer={"type": "integer"})
    assert filled(schema) == {"risk": 0.1, "confidence": 0.8, "steps": ["2 + 2 = 4"], "confidences": [0.9], "answer": 4}
    assert list(filled(schema)) == list(schema["properties"])
    with pytest.raises(UnfilledError, match="confidences"):
        filled(schema, confidences=[0.9, None])
    assert filled(DEFINED) == {"steps": ["2 + 2 = 4"], "answer": 4}
    assert filled(DEFINED, answer=None) == {"steps": ["2 + 2 = 4"], "answer": None}


def deep(levels):
    return {"anyOf": [deep(levels - 1)]} if levels else {"type": "string"}


@pytest.mark.parametrize(
    "wanted",
    [
        "json",
        {},
        {"type": "xml"},
        {"type": "json_schema"},
        {"type": "json_schema", "json_schema": {"name": "x", "schema": []}},
        as_format({"type": "array", "items": {"type": "string"}}),
        as_format(schema_of(name={"type": "string"})),
        as_format(schema_of(required=["answer", "unit"], answer={"type": "string"})),
        as_format(schema_of(required=["steps"], answer={"type": "string"})),
        as_format(schema_of(answer={"type": "object"})),
        as_format(schema_of(answer={"type": "null"})),
        as_format(schema_of(answer={"type": "decimal"})),
        as_format(schema_of(answer={"type": [["string"]]})),
        as_format(schema_of(answer={"type": "string", "pattern": "^(a+)+$"})),
        as_format(schema_of(answer={"type": "integer", "minimum": 0})),
        as_format(schema_of(answer={"enum": [{"a": 1}]})),
        as_format(schema_of(answer={"enum": list(range(300))})),
        as_format(schema_of(answer={"enum": 4})),
        as_format(schema_of(answer={"enum": ["3", "4 \ud800"]})),
        as_format(schema_of(answer={"anyOf": []})),
        as_format(schema_of(answer={"anyOf": [{"type": "string"}] * 40})),
        as_format(schema_of(answer={"anyOf": {"type": "string"}})),
        as_format(schema_of(answer={"$ref": "#/$defs/Missing"})),
        as_format(schema_of(answer={"$ref": "https://example.org/schema"})),
        as_format(schema_of(answer={"$ref": "#/$defs/x"}) | {"$defs": {"x": {"$ref": "#/$defs/x"}}}),
        as_format(schema_of(answer={"$ref": "#/$defs/x"}) | {"$defs": {"x": {"anyOf": [{"$ref": "#/$defs/x"}] * 99}}}),
        as_format(schema_of(answer={"$ref": "#/$defs/x"}) | {"$defs": [1]}),
        as_format(schema_of(answer=deep(9))),
        as_format(schema_of(answer=True)),
        as_format(schema_of(steps={"type": "string"})),
        as_format(schema_of(steps={"type": "array", "items": {"type": "number"}})),
        as_format(schema_of(steps={"type": "array", "items": {"$ref": "#/$defs/Step"}})),
        as_format(schema_of(steps={"type": "array", "minItems": 3, "items": {"type": "string"}})),
        as_format(schema_of(steps={"type": "array", "items": True})),
        as_format({"type": "object", "properties": {"answer": {}}, "required": [{"a": 1}]}),
        as_format({"type": "object", "properties": [1]}),
        as_format({"type": "object", "properties": {"answer": {}}, "additionalProperties": {"type": "string"}}),
        as_format({"oneOf": [{"type": "object"}]}),
    ],
)
def test_what_a_student_cannot_fill_is_refused_in_a_line_that_says_what_it_can(wanted):
    with pytest.raises(ApiError) as caught:
        parse_request({"messages": [{"role": "user", "content": "q"}], "response_format": wanted}, "chat", "m")
    error = caught.value
    assert (error.status, error.param) == (400, "response_format")
    assert "steps (array of string)" in str(error)
    assert "\n" not in str(error)
    assert len(str(error)) < 400


def test_log_probabilities_are_not_of_an_object():
    body = {
        "messages": [{"role": "user", "content": "q"}],
        "response_format": {"type": "json_object"},
        "logprobs": True,
    }
    with pytest.raises(ApiError, match="leave them out"):
        parse_request(body, "chat", "m")


@pytest.fixture(scope="module")
def server():
    with serving(max_running=4) as running:
        yield running


WANTED = as_format(schema_of(steps=STRINGS, answer={"type": "integer"}))


def test_a_chat_returns_the_object(server):
    status, body = server.ask("q", response_format=WANTED, n=2)
    assert status == 200
    for choice in body["choices"]:
        assert json.loads(choice["message"]["content"]) == {"steps": TEXT.split("\n")[:2], "answer": 4}
        assert (choice["message"]["refusal"], choice["finish_reason"]) == (None, "stop")
        assert choice["edgeelad"]["answer"] == "4"
    _, text, _ = server.call(messages=[{"role": "user", "content": "q"}], response_format=WANTED, stream=True)
    first, piece, last = [event["choices"][0] for event in events(text)]
    assert first["delta"] == {"role": "assistant"}
    assert piece["delta"] == {"content": body["choices"][0]["message"]["content"]}
    assert (last["delta"], last["finish_reason"]) == ({}, "stop")


def test_an_object_that_cannot_be_filled_is_a_refusal(server):
    wanted = as_format(schema_of(steps=STRINGS, answer={"type": "boolean"}))
    _, body = server.ask("q", response_format=wanted)
    (choice,) = body["choices"]
    assert choice["message"]["content"] is None
    assert choice["message"]["refusal"] == "The student's answer is '4', which the schema does not allow."
    _, text, _ = server.call(messages=[{"role": "user", "content": "q"}], response_format=wanted, stream=True)
    deltas = [event["choices"][0]["delta"] for event in events(text)]
    assert deltas == [{"role": "assistant"}, {"refusal": choice["message"]["refusal"]}, {}]
    _, body = server.ask("q", response_format=WANTED, max_tokens=2)
    (choice,) = body["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == (None, "length")
