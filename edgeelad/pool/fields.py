"""Read one field of a row as what it must be; anything else is a PoolError with file, line, field and remedy."""

from __future__ import annotations

import json
import math
from typing import Any

from edgeelad.pool.rows import Row, type_name


def field_names(row: Row) -> str:
    """The names of a row's fields, for messages."""
    return ", ".join(map(str, row.fields)) or "no fields"


def text_of(row: Row, name: str) -> str:
    """A text that must be there and hold something."""
    if name not in row.fields:
        row.fail(name, "missing", f"the row has {field_names(row)}: name the right field, or the right --format")
    value = row.fields[name]
    if not isinstance(value, str):
        row.fail(name, f"expected text, found {type_name(value)}", "put it in quotation marks")
    if not value.strip():
        row.fail(name, "empty", "fill it in, or delete the row")
    return value


def scalar_of(row: Row, name: str) -> str | None:
    """A text, number or truth value as text; None where it is missing, null or empty."""
    value = row.fields.get(name)
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):  # NaN: pandas' missing value
        return None
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str | int | float):
        return str(value)
    return row.fail(name, f"expected text or a number, found {type_name(value)}", "give one value")


def id_of(row: Row, name: str) -> str | None:
    """A row's own id as text; None where the field is missing or null."""
    value = row.fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        row.fail(name, f"expected text or a whole number, found {type_name(value)}", "give each question its own id")
    if not str(value).strip():
        row.fail(name, "empty", "fill it in, or leave the field out everywhere")
    return str(value).strip()


def texts_of(row: Row, name: str) -> list[str]:
    """A list of texts; a CSV's one field holds it as JSON or separated by `|`. Empty where it is missing."""
    value = row.fields.get(name)
    if value is None or value == "":
        return []
    if isinstance(value, dict) and isinstance(value.get("text"), list):  # as datasets give lists of objects
        value = value["text"]
    if isinstance(value, str):
        value = _split(row, name, value)
    if not isinstance(value, list) or any(isinstance(item, bool | list | dict | None) for item in value):
        row.fail(name, f"expected a list of texts, found {type_name(value)}", 'write it as ["first", "second"]')
    return [str(item) for item in value]


def _split(row: Row, name: str, value: str) -> Any:
    """A list in one field of a CSV: JSON, or items separated by `|`."""
    if not value.lstrip().startswith("["):
        return [item.strip() for item in value.split("|")]
    try:
        return json.loads(value)
    except ValueError:
        return row.fail(name, "not a JSON list", 'write it as ["first", "second"]')


def choices_of(row: Row, name: str) -> tuple[str, ...]:
    """The choices' texts; empty where there are none."""
    return tuple(texts_of(row, name))


def explanation_of(row: Row, name: str) -> str | None:
    """An explanation as lines of text, from text or a list of steps; None where it is missing."""
    value = row.fields.get(name)
    if isinstance(value, list):
        return "\n".join(" ".join(item.split()) for item in texts_of(row, name))
    if value is not None and not isinstance(value, str):
        row.fail(name, f"expected text or a list of steps, found {type_name(value)}", "write one step a line")
    return value


def labeled_choices_of(row: Row) -> tuple[list[str], tuple[str, ...]]:
    """Labels and texts of CommonsenseQA's choices: a list of objects, or an object of two lists."""
    value = row.fields.get("choices")
    try:
        pairs = (
            list(zip(value["label"], value["text"], strict=True))
            if isinstance(value, dict)
            else [(choice["label"], choice["text"]) for choice in value]  # type: ignore[union-attr]
        )
    except (TypeError, KeyError, ValueError):
        row.fail("choices", "expected a list of objects with label and text", "correct the row")
    return [str(label) for label, _ in pairs], tuple(str(text) for _, text in pairs)
