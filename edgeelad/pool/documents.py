"""Read rows from JSON and XML documents, which are read whole: arrays, objects that hold an array, SQuAD's and DROP's
nesting, ASDiv's XML. JSON lines stream.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from edgeelad.errors import PoolError
from edgeelad.pool.rows import (
    BOM,
    MAX_LINE_BYTES,
    Row,
    decode,
    object_row,
    open_bytes,
    open_text,
    parse_json,
    read_json_lines,
)

MAX_DOCUMENT_BYTES = 64_000_000
ARRAYS = ("examples", "data", "questions")  # names under which published files keep their rows


def read_json(path: Path) -> Iterator[Row]:
    """JSON lines, an array of objects, or an object that holds an array of objects, whichever the file contains."""
    open_text(path)
    if _holds_lines(path):
        yield from read_json_lines(path)
        return
    text = _document(path)
    start = len(text) - len(text.lstrip())
    if text[start : start + 1] == "[":
        yield from _array(path, text, start + 1)
        return
    value = parse_json(path, 1, text)
    yield from _rows_of(path, dict(object_row(str(path), value, "write an array of objects").fields))


def read_xml(path: Path) -> Iterator[Row]:
    """The elements that hold nothing but texts, such as ASDiv's problems: a field per attribute and per inner element.

    Elements that have attributes alone are rows, too, beside rows of the same name, or if there is nothing else.

    A document type is refused: its entities can expand without bound, or name other files.
    """
    open_text(path)
    text = _document(path)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise PoolError(f"{path}: XML with a document type, which is not read; write it without <!DOCTYPE>")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, RecursionError) as error:
        raise PoolError(f"{path}: not XML ({error}); correct the file") from None
    for number, element in enumerate(_row_elements(root), start=1):
        where = f"{path}: {element.tag} {element.get('ID') or number}"
        inner = list(element)
        if not inner and _text(element):
            raise PoolError(f"{where}: text without a name; write it as an attribute or an inner element")
        names = [*element.keys(), *(child.tag for child in inner)]
        if len(set(names)) < len(names):
            raise PoolError(f"{where}: two values of one name; give each its own")
        yield Row(where, {**element.attrib, **{child.tag: _text(child) for child in inner}}, is_typed=False)


def _row_elements(root: ElementTree.Element) -> Iterator[ElementTree.Element]:
    """The elements that are rows, in order."""
    empty: set[ElementTree.Element] = set()  # rows without inner elements, found with the element that holds them
    for element in root.iter():
        if _holds_texts(element) or element in empty:
            yield element
        is_list = _holds_attributes(element)
        names = {child.tag for child in element if is_list or _holds_texts(child)}
        empty.update(child for child in element if not len(child) and child.tag in names)


def _holds_texts(element: ElementTree.Element) -> bool:
    """Whether an element has inner elements, which have none, and is not a list of rows."""
    return len(element) > 0 and not any(len(child) for child in element) and not _holds_attributes(element)


def _holds_attributes(element: ElementTree.Element) -> bool:
    """Whether an element is a list of rows that have attributes alone: all of one name, without texts."""
    if len(element) == 0 or len({child.tag for child in element}) > 1 or (len(element) == 1 and element.attrib):
        return False
    return all(child.attrib and not len(child) and not _text(child) for child in element)


def _text(element: ElementTree.Element) -> str:
    return (element.text or "").strip()


def _rows_of(path: Path, document: dict[str, Any]) -> Iterator[Row]:
    """The rows of a JSON object: those of its array; else its values, if all are objects."""
    arrays = [name for name in ARRAYS if isinstance(document.get(name), list)]
    if arrays:
        shared = {key: value for key, value in document.items() if key == "name"}
        for number, element in enumerate(document[arrays[0]], start=1):
            row = object_row(f"{path}: example {number}", element, "every example must be an object")
            yield from _nested(Row(row.where, {**shared, **row.fields}))
        return
    if not _is_table(document):
        raise PoolError(
            f"{path}: a JSON object without an array of objects named {', '.join(map(repr, ARRAYS))}; "
            "write an array of objects, or one object per line"
        )
    for name, element in document.items():
        yield from _nested(Row(f"{path}: {name!r}", {"id": name, **element}))


def _nested(row: Row) -> Iterator[Row]:
    """The questions of one passage, as SQuAD and DROP nest them; any other row as it is."""
    paragraphs = row.fields.get("paragraphs")  # SQuAD: articles of paragraphs of questions
    pairs = row.fields.get("qa_pairs")  # DROP: passages of questions
    if isinstance(paragraphs, list):
        for number, paragraph in enumerate(paragraphs, start=1):
            inner = object_row(f"{row.where}, paragraph {number}", paragraph, "restore the file as published")
            questions = inner.fields.get("qas")
            if not isinstance(questions, list):
                inner.fail("qas", "expected a list of questions", "restore the file as published")
            shared = {"title": row.fields.get("title"), "context": inner.fields.get("context")}
            yield from _spread(inner.where, questions, shared)
    elif isinstance(pairs, list):
        yield from _spread(row.where, pairs, {"passage": row.fields.get("passage")})
    else:
        yield row


def _spread(where: str, questions: list[Any], shared: dict[str, Any]) -> Iterator[Row]:
    for number, question in enumerate(questions, start=1):
        row = object_row(f"{where}, question {number}", question, "every question must be an object")
        yield Row(row.where, {**shared, **row.fields})


def _is_table(document: dict[str, Any]) -> bool:
    """Whether an object maps ids to rows, not names to values."""
    return bool(document) and all(isinstance(value, dict) and value for value in document.values())


def _holds_lines(path: Path) -> bool:
    """Whether the first line that is not empty is a row by itself."""
    with open_bytes(path) as file:
        first = next((line for line in iter(lambda: file.readline(MAX_LINE_BYTES), b"") if line.strip()), b"")
    try:
        value = json.loads(first.removeprefix(BOM.encode()))
    except (ValueError, RecursionError):
        return False
    if not isinstance(value, dict) or _is_table(value):
        return False
    return not any(isinstance(value.get(name), list) for name in ARRAYS)


def _document(path: Path) -> str:
    with path.open("rb") as file:
        raw = file.read(MAX_DOCUMENT_BYTES + 1)
    if len(raw) > MAX_DOCUMENT_BYTES:
        raise PoolError(
            f"{path}: a JSON document of over {MAX_DOCUMENT_BYTES // 1_000_000} MB, which cannot be streamed; "
            "write it as JSON lines"
        )
    return decode(path, 1, raw)


def _array(path: Path, text: str, position: int) -> Iterator[Row]:
    """The elements of a JSON array whose bracket opened just before `position`, with their line numbers."""
    parse_json(path, 1, text)  # the whole first, so that what follows cannot fail
    decoder, line, counted = json.JSONDecoder(), 1, 0
    while True:
        while text[position] in " \t\r\n,":
            position += 1
        if text[position] == "]":
            return
        line, counted = line + text.count("\n", counted, position), position
        value, position = decoder.raw_decode(text, position)
        yield from _nested(object_row(f"{path}:{line}", value, "every element must be an object"))
