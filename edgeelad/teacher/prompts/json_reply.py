"""Find the JSON object of a reply, whatever surrounds it and however it is written.

Strict JSON first. What that does not read is tried with lone backslashes doubled, as JSON inside a JSON string, and
with json-repair, whose reading counts only if it holds every word of the reply in its order. LaTeX that JSON ate is
restored (`latex`). Never guesses: half an object is none, and if the last one cannot be read, an earlier one does not
stand in for it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgeelad.errors import MissingExtraError, TeacherReplyError
from edgeelad.teacher.prompts.latex import restore, texts
from edgeelad.teacher.prompts.messages import clean_text

# a longer reply is none: the completion cap is far below this
MAX_REPLY_CHARS = 400_000
# opening braces tried in one reply, from the last one back
MAX_CANDIDATES = 200
# json-repair is slow on long texts, and what is that long is not a slip of the pen
MAX_REPAIR_CHARS = 20_000
MAX_DEPTH = 4

_TAG = re.compile(r"<(/?)(?:think|thinking|thought|reasoning)>|\[(/?)THINK\]")
# a backslash that JSON knows; a backspace or a form feed before a letter is none that anybody means
_ESCAPE = re.compile(r'\\(["\\/nrt]|[bf](?![A-Za-z])|u[0-9a-fA-F]{4})|\\')
# in a text, it is a sign that a quotation mark was taken for another one
_STRUCTURE = re.compile(r"[\"'\]}]\s*[:,]\s*[\"'\[{]|[\"']\s*:")
_DECODER = json.JSONDecoder(strict=False)


def read_object(text: str, fields: Sequence[str], is_cut: bool = False) -> Mapping[str, Any]:
    """Find the last JSON object in a reply that has one of `fields`: models repeat the question or think aloud first.

    Args:
        text: The reply.
        fields: Names of which the object has at least one.
        is_cut: Whether the reply was cut off, so that what is broken at its end says nothing.

    Raises:
        TeacherReplyError: There is none, or it cannot be read for certain.
    """
    if len(text) > MAX_REPLY_CHARS:
        raise TeacherReplyError(f"a reply of {len(text)} characters; the maximum is {MAX_REPLY_CHARS}")
    text = without_reasoning(text)
    found, is_unescaped = _last_object(text, fields, is_cut)
    if found is None:
        raise TeacherReplyError(f"no JSON object with {' or '.join(fields)} in the reply {quote(text)}")
    try:
        restored: Mapping[str, Any] = restore(found, is_unescaped)
    except TeacherReplyError as error:
        raise TeacherReplyError(f"{error}: {quote(text)}") from None
    return restored


def without_reasoning(text: str) -> str:
    """A reply without the reasoning that is marked as such; its opening tag may be part of the prompt."""
    tags = list(_TAG.finditer(text))
    last = next((tag for tag in reversed(tags) if tag[1] or tag[2]), None)
    if last is None or text[last.end() :].strip():
        return text[last.end() :] if last is not None else text
    return text[: tags[0].start()]


def has_field(text: str, fields: Sequence[str]) -> bool:
    """Whether a text looks like JSON with one of these fields, readable or not."""
    names = "|".join(fields)
    return re.search(rf"(?:[\"']|[{{,]\s*)(?:{names})\\*[\"']?\s*:", text.replace("\\_", "_")) is not None


def read_objects(text: str) -> list[str]:
    """The whole JSON objects in a text, each as it stands there; empty ones are LaTeX's braces."""
    return [text[start:end] for start, end, value in _scan(text) if value]


def read_value(text: str) -> Any:
    """A JSON object, list or text that stands alone; None if it is none of them."""
    try:
        value, end = _DECODER.raw_decode(text.strip())
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict | list | str) and not text.strip()[end:].strip() else None


def quote(text: str, limit: int = 120) -> str:
    """The beginning of a reply, for a message."""
    text = clean_text(text)
    return repr(text if len(text) <= limit else text[:limit] + "…")


def _last_object(text: str, fields: Sequence[str], is_cut: bool, depth: int = 0) -> tuple[dict[str, Any] | None, bool]:
    """The last object with one of the fields, and whether its backslashes were not doubled."""
    whole = read_value(re.sub(r"^\s*```\w*\s*|\s*```\s*$", "", text))
    if isinstance(whole, str) and depth < MAX_DEPTH:
        return _last_object(whole, fields, is_cut, depth + 1)
    doubled = _ESCAPE.sub(lambda match: match[0] if match[1] else "\\\\", text)
    found: dict[str, Any] | None = None
    broken = -1
    for start, end, value in _scan(doubled):
        inner = _with_fields(value, fields) if end else None
        if inner is not None:
            found, broken = inner, -1
        elif not end and broken < 0:
            broken = start
    if broken >= 0 and not is_cut and has_field(doubled[broken:], fields):
        found = _repaired(doubled[broken:], fields, depth)
    return found, doubled != text


def _scan(text: str) -> Iterator[tuple[int, int, Any]]:
    """Where an object begins in a text, where it ends and what it is; the end is 0 if it cannot be read."""
    end = 0
    for start in [match.start() for match in re.finditer(r"\{", text)][-MAX_CANDIDATES:]:
        if start < end:
            continue
        try:
            value, end = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            yield start, 0, None
        else:
            yield start, end, value


def _repaired(text: str, fields: Sequence[str], depth: int) -> dict[str, Any] | None:
    """An object that is not quite JSON, from its opening brace on; None if it cannot be read for certain."""
    end = text.rfind("}") + 1
    text, after = text[:end], text[end:]
    if depth < MAX_DEPTH and '\\"' in text:
        # JSON as it stands in a JSON string
        inside = read_value(f'"{text}"')
        if isinstance(inside, str):
            return _last_object(inside, fields, False, depth + 1)[0]
    if not text or len(text) > MAX_REPAIR_CHARS or text.count("{") != text.count("}") or '"' in after:
        return None  # half an object, or too much of one
    try:
        import json_repair
    except ImportError:
        raise MissingExtraError("json-repair", "teacher", "reading a teacher's replies") from None
    try:
        value = json_repair.loads(text, skip_json_loads=True)
        is_same = _words(json.dumps(value, ensure_ascii=False)) == _words(text)
    except (ValueError, TypeError, RecursionError):
        return None
    is_doubtful = any(_STRUCTURE.search(item) for item in texts(value))
    return _with_fields(value, fields) if is_same and not is_doubtful else None


def _words(text: str) -> list[str]:
    """The words and numbers of a text in their order, for comparing two ways of writing one value."""
    text = re.sub(r"\\(?:u[0-9a-fA-F]{4}|.)", " ", text)
    names = {"None": "null", "True": "true", "False": "false"}
    return [names.get(word, word) for word in re.findall(r"\w+", text)]


def _with_fields(value: Any, fields: Sequence[str], depth: int = 0) -> dict[str, Any] | None:
    """The object with one of the fields: the value itself, or what is wrapped in it."""
    if depth > MAX_DEPTH:
        return None
    if isinstance(value, str):
        value = read_value(value) if value.lstrip()[:1] in ("{", "[", '"') else None
    if isinstance(value, list):
        items = value
    elif isinstance(value, dict):
        # Markdown puts a backslash before an underscore
        value = {key.replace("\\", ""): item for key, item in value.items()}
        if any(field in value for field in fields):
            return {key: _unwrapped(key, item) for key, item in value.items()}
        items = list(value.values())
    else:
        return None
    wrapped = (_with_fields(item, fields, depth + 1) for item in reversed(items))
    return next((item for item in wrapped if item is not None), None)


def _unwrapped(name: str, value: Any) -> Any:
    """A field's value, if that is JSON in a text: a list, or the whole object once more."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("{", "["):
        return value
    inner = read_value(value)
    if isinstance(inner, dict) and name in inner:
        return inner[name]
    return inner if isinstance(inner, list) else value
