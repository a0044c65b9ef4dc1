"""Read one field of a row as a given type; any other value is a PoolError with file, line, field and remedy."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgeelad.pool.rows import Row, type_name
from edgeelad.text.answers import canonical
from edgeelad.text.explanation import without_drawings
from edgeelad.text.prompts import CHOICE_LABELS


@dataclass(frozen=True, slots=True)
class Options:
    """The choices of a question: their texts, and the labels that the file gives them (A, B, … if it gives none)."""

    texts: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()


NO_OPTIONS = Options()


def field_names(row: Row) -> str:
    """The names of a row's fields, for messages."""
    return ", ".join(map(str, row.fields)) or "no fields"


def text_of(row: Row, name: str) -> str:
    """A required text that is not empty."""
    value = _required(row, name)
    if not isinstance(value, str):
        row.fail(name, f"expected text, found {type_name(value)}", "put it in quotation marks")
    if is_blank(value):
        row.fail(name, "empty", "fill it in, or delete the row")
    return value


def is_blank(text: str) -> bool:
    """Whether a text shows nothing: spaces, control characters and zero-width characters alone."""
    return not any(character.isprintable() and not character.isspace() for character in text)


def part_of(row: Row, name: str) -> str:
    """A part of a question as text: text, a number, or a list of texts, one per line; "" if null or empty."""
    value = _required(row, name)
    if isinstance(value, list):
        value = "\n".join(texts_of(row, name))
    text = scalar_of(row, name) if not isinstance(value, str) else value
    return "" if text is None or is_blank(text) else text.strip()


def joined_of(row: Row, names: Sequence[str], separator: str = "\n\n") -> str:
    """The question that several fields make up, in order; the last is required, the others may be empty."""
    *before, last = names
    parts = [*(part_of(row, name) for name in before), text_of(row, last).strip()]
    return separator.join(part for part in parts if part)


def scalar_of(row: Row, name: str) -> str | None:
    """A text, number or truth value as text; None if it is missing, null or empty."""
    value = row.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str | int | float):
        return str(value)
    inner = f", or name a field in it, such as {name}.{next(iter(value))}" if isinstance(value, dict) and value else ""
    return row.fail(name, f"expected text or a number, found {type_name(value)}", f"give one value{inner}")


def id_of(row: Row, name: str) -> str | None:
    """A row's own id as text; None if the field is missing or null."""
    value = row.get(name)
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():  # pandas, where some ids of the column are missing
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int):
        row.fail(name, f"expected text or a whole number, found {type_name(value)}", "give each question its own id")
    if is_blank(str(value)):
        row.fail(name, "empty", "fill it in, or leave the field out everywhere")
    return str(value).strip()


def texts_of(row: Row, name: str) -> list[str]:
    """A list of texts; a single text holds it as JSON or separated by `|`. Empty if it is missing or null."""
    value = row.get(name)
    if value is None or value == "":
        return []
    if isinstance(value, str):
        value = _split(row, name, value)
    if not isinstance(value, list) or any(not isinstance(item, str | int | float) for item in value):
        row.fail(name, f"expected a list of texts, found {type_name(value)}", 'write it as ["first", "second"]')
    if any(isinstance(item, bool) or item != item for item in value):
        row.fail(name, "expected a list of texts, found true, false or NaN in it", 'write it as ["first", "second"]')
    return [str(item) for item in value]


def explanation_of(row: Row, name: str) -> str | None:
    """An explanation as lines of text, from text or a list of steps, without drawings; None if it is missing."""
    value = row.get(name)
    if isinstance(value, list):
        return "\n".join(" ".join(item.split()) for item in texts_of(row, name))
    if value is not None and not isinstance(value, str):
        row.fail(name, f"expected text or a list of steps, found {type_name(value)}", "write one step per line")
    return without_drawings(value) if value is not None else None


# --- choices --------------------------------------------------------------------------------------------------------


def options_of(row: Row, names: Sequence[str]) -> Options:
    """The choices, from one field that lists them or from one field per choice; none if missing or null.

    A list may hold texts, or objects with `text` and `label`; an object may hold two such lists, or map labels to
    texts. Labels that begin all texts, as in "(A) …", are dropped.
    """
    if len(names) > 1:
        return _columns(row, names)
    (name,) = names
    value = row.get(name)
    if isinstance(value, str) and (inline := _inline_options(value)):
        return inline
    if isinstance(value, str) and value.strip():
        value = _split(row, name, value)
    if isinstance(value, dict):
        return _labeled_object(row, name, value)
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return _labeled(row, name, [(item.get("label"), item.get("text")) for item in value])
    return _plain(texts_of(row, name))


def right_choice(row: Row, name: str, options: Options, *, first_index: int | None = None) -> str | None:
    """The label (A, B, …) of the right choice, or the field's text if it is none; None if it is not known.

    Args:
        row: The row.
        name: The field that tells the right choice: by its label, its text or its index.
        options: The choices.
        first_index: The index of the first choice, if whole numbers are indexes. Otherwise a number is read as the
            text of a choice, else as an index from 0; a number that could be both is refused, and so are digits in
            a file without types, such as CSV. Quoted digits in JSON are text.
    """
    value = row.get(name)
    if isinstance(value, list):
        if len(value) > 1:
            row.fail(name, f"{len(value)} right choices", "keep one, or delete the row")
        value = value[0] if value else None
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return scalar_of(row, name)
    text = str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()
    label = text.strip("().:").casefold()
    labels = [given.casefold() for given in options.labels]
    if label in labels:
        return _label_at(labels.index(label), options)
    index = int(text) - (first_index or 0) if re.fullmatch(r"[0-9]{1,3}", text) else None
    by_index = _label_at(index, options) if index is not None else None
    by_text = canonical(text, "choice", options.texts) if first_index is None or index is None else None
    is_text = isinstance(value, str) and row.is_typed
    if by_text and by_index and by_text != by_index and not is_text:
        row.fail(name, f"{text} is the index of ({by_index}) and the text of ({by_text})", "write the choice's label")
    if text == "-1" and by_text is None:  # how published test files hide the answer
        return None
    if by_text is None and by_index is None and labels:
        row.fail(name, f"{text!r} is none of the labels {', '.join(options.labels)}", "correct the row")
    if by_text is None and by_index is None and index is not None:
        row.fail(
            name, f"{text!r} is not one of the choices, nor the index of one, from {first_index or 0}", "correct it"
        )
    return by_text or by_index or text


def _label_at(index: int, options: Options) -> str | None:
    return CHOICE_LABELS[index] if 0 <= index < min(len(options.texts), len(CHOICE_LABELS)) else None


def _columns(row: Row, names: Sequence[str]) -> Options:
    """One field per choice; fields at the end may be empty, for questions with fewer choices."""
    texts = [scalar_of(row, name) for name in names]
    while texts and texts[-1] is None:
        texts.pop()
    if None in texts:
        row.fail(names[texts.index(None)], "an empty choice before others", "fill it in, or move the others up")
    return Options(tuple(map(str, texts)))


def _plain(texts: Sequence[str]) -> Options:
    """Texts, without the labels that they begin with if all of them do: "(A) 5", "B) 6"."""
    stripped = [text.lstrip() for text in texts]
    matches = [
        re.match(rf"\(?{label}\s*\)\s*", text, re.IGNORECASE)
        for label, text in zip(CHOICE_LABELS, stripped, strict=False)
    ]
    if texts and len(matches) == len(texts) and all(matches):
        return Options(tuple(text[match.end() :] for text, match in zip(stripped, matches, strict=True) if match))
    return Options(tuple(texts))


def _labeled_object(row: Row, name: str, value: dict[str, Any]) -> Options:
    if "text" in value and "label" in value:
        labels, texts = value["label"] or [], value["text"] or []
        if not isinstance(labels, list) or not isinstance(texts, list) or len(labels) != len(texts):
            row.fail(name, "label and text are not lists of one length", "correct the row")
        return _labeled(row, name, list(zip(labels, texts, strict=True)))
    if isinstance(value.get("text"), list):
        return _labeled(row, name, list(zip(CHOICE_LABELS, value["text"], strict=False)))
    return _labeled(row, name, [(label, text) for label, text in value.items() if text is not None])


def _labeled(row: Row, name: str, pairs: Sequence[tuple[Any, Any]]) -> Options:
    for pair in pairs:
        if any(isinstance(item, bool) or not isinstance(item, str | int | float) for item in pair):
            row.fail(name, "expected choices with a label and a text each", "correct the row")
    return Options(tuple(str(text) for _, text in pairs), tuple(str(label).strip() for label, _ in pairs))


def _inline_options(value: str) -> Options | None:
    """Choices in one text, as MathQA has them: "a ) 38 , b ) 27.675 , c ) 30"; None for any other text."""
    if not value.startswith("a ) "):
        return None
    parts = re.split(r"([a-e]) \) ", value)
    labels, texts = parts[1::2], parts[2::2]
    if len(labels) < 2 or labels != list("abcde"[: len(labels)]):
        return None
    return Options(tuple(text.strip().removesuffix(",").strip() for text in texts), tuple(labels))


def _split(row: Row, name: str, value: str) -> Any:
    """A list or an object in one text: JSON, or items separated by `|`."""
    if not value.lstrip().startswith(("[", "{")):
        return [item.strip() for item in value.split("|")]
    for parse in (json.loads, ast.literal_eval):  # JSON, or as Python prints a list
        try:
            return parse(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return row.fail(name, "not a JSON list", 'write it as ["first", "second"]')


def _required(row: Row, name: str) -> Any:
    if not row.has(name):
        row.fail(name, "missing", f"the row has {field_names(row)}: name the right field, or the right --format")
    return row.get(name)
