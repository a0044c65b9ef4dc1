"""Fill the JSON object that a request's `response_format` asks for.

A student writes steps and an answer, and no JSON. So the object is filled from what its explanation says of itself
(`generation.insight`), and a schema may have these properties and no others. What a value cannot be, such as an answer
of "1/3" where an integer is asked for, is a refusal and not an invalid object.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from typing import Any

from edgeelad.records import AnswerKind
from edgeelad.text.answers import canonical

# the properties that a schema may have -> JSON types of their values, and of an array's items
FIELDS: Mapping[str, tuple[frozenset[str], frozenset[str]]] = {
    "steps": (frozenset({"array"}), frozenset({"string"})),
    "confidences": (frozenset({"array"}), frozenset({"number", "null"})),
    "answer": (frozenset({"string", "number", "integer", "boolean", "null"}), frozenset()),
    "confidence": (frozenset({"number", "null"}), frozenset()),
    "risk": (frozenset({"number", "null"}), frozenset()),
}
CAN_FILL = (
    "a student can fill an object of steps (array of string), confidences (array of number), answer (string, number, "
    "integer, boolean, or an enum), confidence (number) and risk (number)"
)
DEFAULT_FIELDS = ("steps", "answer")
STUDENT_FIELDS = ("confidences", "confidence", "risk")  # how sure the student was of its own explanation
TYPES = frozenset({"string", "number", "integer", "boolean", "null", "array", "object"})
NOTES = frozenset({"title", "description", "default", "examples", "$schema", "$id", "$comment"})
MAX_ALTERNATIVES, MAX_DEPTH = 16, 4
MAX_VALUES, MAX_VALUE_CHARS = 256, 200
NUMBER = re.compile(r"-?[0-9]{1,300}(?:[./][0-9]{1,300})?")  # canonical ones: decimals and fractions


class FormatError(Exception):
    """A `response_format` that is malformed, or that a student cannot fill; says what it can fill."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"response_format: {reason}; {CAN_FILL}.")


class UnfilledError(Exception):
    """A required property has no value of the type that the schema asks for."""


@dataclass(frozen=True, slots=True)
class Form:
    """One of the forms that a value may have: its types, the types of an array's items, and the only allowed values."""

    types: frozenset[str]
    items: frozenset[str] = TYPES
    values: tuple[Any, ...] | None = None


@dataclass(frozen=True, slots=True)
class ObjectFormat:
    """The object to fill: the forms of each property, and which properties it must have."""

    properties: Mapping[str, tuple[Form, ...]]
    required: frozenset[str]

    @property
    def is_of_student(self) -> bool:
        """Whether it requires a value that only a student's explanation has, and null will not do."""
        return any(
            not any(True for form in self.properties[name] for _ in _values(None, form, "text"))
            for name in self.required.intersection(STUDENT_FIELDS)
        )


def parse_format(value: Any) -> ObjectFormat | None:
    """Read a request's `response_format`; None: text.

    Raises:
        FormatError: It is malformed, or a student cannot fill what it asks for.
    """
    kind = value.get("type") if isinstance(value, dict) else None
    if value is None or kind == "text":
        return None
    if kind == "json_object":
        return ObjectFormat({name: (Form(TYPES),) for name in DEFAULT_FIELDS}, frozenset(DEFAULT_FIELDS))
    named = value.get("json_schema") if kind == "json_schema" else None
    if not isinstance(named, dict) or not isinstance(schema := named.get("schema", {}), dict):
        raise FormatError(
            'it must be {"type": "text"}, {"type": "json_object"} or {"type": "json_schema", "json_schema": …}'
        )
    return _read_object(schema)


def fill(wanted: ObjectFormat, found: Mapping[str, Any], kind: AnswerKind) -> dict[str, Any]:
    """Fill an object.

    Args:
        wanted: The object.
        found: What an explanation says of itself, as `generation.insight` names it.
        kind: Of its answer.

    Raises:
        UnfilledError: A required property cannot be filled.
    """
    filled = {}
    for name, forms in wanted.properties.items():
        fits = (value for form in forms for value in _values(found.get(name), form, kind))
        try:
            filled[name] = next(fits)
        except StopIteration:
            if name in wanted.required:
                said = "none" if found.get(name) is None else repr(found[name])[:80]
                raise UnfilledError(f"The student's {name} is {said}, which the schema does not allow.") from None
    return filled


def _read_object(schema: Mapping[str, Any]) -> ObjectFormat:
    """Read a schema's outermost object."""
    _check_keywords(schema, {"type", "properties", "required", "additionalProperties", "$defs", "definitions"})
    properties, required = schema.get("properties", {}), schema.get("required", [])
    is_open = schema.get("additionalProperties", True)
    if schema.get("type", "object") != "object" or not isinstance(properties, dict) or not isinstance(required, list):
        raise FormatError("the schema is no object's")
    if not isinstance(is_open, bool):
        raise FormatError("additionalProperties must be true or false")
    if not properties:
        if not is_open:
            raise FormatError("the schema allows no properties")
        properties = {name: {} for name in DEFAULT_FIELDS}
    for name in (*properties, *required):
        if not isinstance(name, str) or name not in FIELDS or name not in properties:
            raise FormatError(f"the schema asks for {str(name)[:40]!r}")
    return ObjectFormat(
        {name: _read_property(name, own, schema) for name, own in properties.items()}, frozenset(required)
    )


def _read_property(name: str, schema: Any, whole: Mapping[str, Any]) -> tuple[Form, ...]:
    types, items = FIELDS[name]
    forms = tuple(islice(_alternatives(schema, whole, 0), MAX_ALTERNATIVES + 1))
    if len(forms) > MAX_ALTERNATIVES:
        raise FormatError(f"{name} has more than {MAX_ALTERNATIVES} alternatives")
    if not any(form.types & (types - {"null"}) and (not items or form.items & items) for form in forms):
        raise FormatError(f"the schema asks for another type of {name}")
    return forms


def _alternatives(schema: Any, whole: Mapping[str, Any], depth: int) -> Iterator[Form]:
    """The forms that a property's schema allows; references and `anyOf` are followed, to a bounded depth."""
    if not isinstance(schema, dict) or depth > MAX_DEPTH:
        raise FormatError("a property's schema is no object, or is nested too deeply")
    if "$ref" in schema:
        _check_keywords(schema, {"$ref"})
        place, _, name = str(schema["$ref"]).rpartition("/")
        found = whole.get(place.removeprefix("#/")) if place in ("#/$defs", "#/definitions") else None
        yield from _alternatives(found.get(name) if isinstance(found, dict) else None, whole, depth + 1)
    elif "anyOf" in schema:
        _check_keywords(schema, {"anyOf"})
        if not isinstance(schema["anyOf"], list) or not schema["anyOf"]:
            raise FormatError("anyOf must be a list of schemas")
        for alternative in schema["anyOf"]:
            yield from _alternatives(alternative, whole, depth + 1)
    else:
        _check_keywords(schema, {"type", "items", "enum", "const"})
        items = schema.get("items", {})
        if not isinstance(items, dict):
            raise FormatError("items must be a schema")
        _check_keywords(items, {"type"})
        yield Form(_types(schema), _types(items), _allowed(schema))


def _types(schema: Mapping[str, Any]) -> frozenset[str]:
    found = schema.get("type")
    types = [found] if isinstance(found, str) else TYPES if found is None else found
    if not isinstance(types, list | frozenset) or not all(isinstance(each, str) and each in TYPES for each in types):
        raise FormatError(f"{str(found)[:40]!r} is no type")
    return frozenset(types)


def _allowed(schema: Mapping[str, Any]) -> tuple[Any, ...] | None:
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if values is None:
        return None
    is_short = isinstance(values, list) and len(values) <= MAX_VALUES
    if not is_short or any(isinstance(value, dict | list) or len(str(value)) > MAX_VALUE_CHARS for value in values):
        raise FormatError(f"an enum must be a list of up to {MAX_VALUES} values of up to {MAX_VALUE_CHARS} characters")
    try:
        "".join(map(str, values)).encode("utf-8")
    except UnicodeEncodeError:
        raise FormatError("a value of the enum holds half a surrogate pair, which is no text") from None
    return tuple(values)


def _check_keywords(schema: Mapping[str, Any], known: set[str]) -> None:
    for name in schema:
        if name not in known | NOTES:
            raise FormatError(f"the keyword {name[:40]!r} is not supported here")


def _values(value: Any, form: Form, kind: AnswerKind) -> Iterator[Any]:
    """The value as the form allows it, if it does."""
    for own in _readings(value):
        if not _types_of(own) & form.types:
            continue
        if isinstance(own, list) and not all(_types_of(item) & form.items for item in own):
            continue
        if form.values is None:
            yield own
        else:
            yield from (allowed for allowed in form.values if _is_same(allowed, own, kind))


def _readings(value: Any) -> Iterator[Any]:
    """A value, and an answer also as the number or the boolean that it states."""
    yield value
    if value in ("yes", "no"):
        yield value == "yes"
    elif isinstance(value, str) and NUMBER.fullmatch(value):
        with suppress(ArithmeticError):  # a fraction of zero, or too large for a float
            number = Fraction(value)
            yield number.numerator if number.denominator == 1 else float(number)


def _types_of(value: Any) -> frozenset[str]:
    """The JSON types of a value; an integer is a number, too."""
    if value is None:
        return frozenset({"null"})
    if isinstance(value, bool):
        return frozenset({"boolean"})
    if isinstance(value, int):
        return frozenset({"integer", "number"})
    return frozenset({"number" if isinstance(value, float) else "string" if isinstance(value, str) else "array"})


def _is_same(allowed: Any, value: Any, kind: AnswerKind) -> bool:
    """Whether an allowed value says what an answer says: "Yes" and "yes", "(B)" and "B"."""
    if not _types_of(allowed) & _types_of(value):
        return False
    return bool(allowed == value) or (isinstance(allowed, str) and canonical(allowed, kind) == value)
