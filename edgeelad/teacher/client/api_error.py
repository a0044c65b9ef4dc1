"""Read the body of an error: its codes, the parameters that it names, its words, and how long it asks to wait.

Takes bytes in any of the forms that providers use: OpenAI's `{"error": {…}}`, a list of these (Gemini), FastAPI's
`{"detail": [{"loc": …}]}`, a bare message, an error inside the message of another (gateways), plain text. What a body
repeats of the request (`input`, `failed_generation`, values in braces) and links are left out, so that no word of them
is taken for a complaint. Decides nothing: see `refusals`.
"""

from __future__ import annotations

import ast
import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeelad.teacher.client.message import excerpt

MAX_BODY_CHARS = 20_000
MAX_DEPTH = 12
CODE_KEYS = frozenset(
    {"code", "type", "status", "reason", "error_type", "error_code", "errorcode", "quotaid", "quota_limit"}
)
PARAMETER_KEYS = frozenset({"param", "parameter", "loc", "field"})
TEXT_KEYS = frozenset(
    {"message", "msg", "detail", "error", "error_msg", "error_message", "errors", "description", "raw"}
)
# what repeats the request
ECHO_KEYS = frozenset(
    {
        "input",
        "input_value",
        "ctx",
        "body",
        "request",
        "prompt",
        "messages",
        "failed_generation",
        "flagged_input",
        "url",
    }
)

_LINK = re.compile(r"https?://\S+|\bwww\.\S+")
_NAME = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|milli|[hms])[a-z]*")
_WAIT = re.compile(
    r"\b(?:try again|retry|wait)(?: in| after| for| at least| again)*((?:,? ?(?:and )?\d+(?:\.\d+)?\s*[a-z]+)+)"
)
_SECONDS = {"ms": 0.001, "milli": 0.001, "m": 60.0, "h": 3600.0, "s": 1.0}


@dataclass(frozen=True, slots=True)
class ApiError:
    """What an error's body says.

    Attributes:
        codes: Codes, types and reasons, in lower case.
        parameters: The names in the paths of the parameters that it complains about, in lower case.
        text: Its words in lower case, without links and without what repeats the request.
        is_moderated: Whether it lists a moderation's reasons.
        has_no_quota: Whether it says that the quota is zero.
        retry_delay_s: How long it asks to wait; None if it does not.
    """

    codes: frozenset[str]
    parameters: tuple[str, ...]
    text: str
    is_moderated: bool = False
    has_no_quota: bool = False
    retry_delay_s: float | None = None


def read_error(body: bytes) -> ApiError:
    """Read an error's body.

    >>> read_error(b'{"error": {"message": "No.", "code": "bad", "param": "messages[0].role"}}').parameters
    ('messages', 'role')
    """
    reader = _Reader()
    # a page of HTML is a proxy's, and says nothing of the request
    if not body.lstrip().startswith(b"<"):
        reader.walk("message", body.decode("utf-8", "replace")[:MAX_BODY_CHARS], 0)
    text = " ".join(_without_echoes(_LINK.sub(" ", text)) for text in reader.texts).lower()
    delay = reader.retry_delay_s
    if delay is None and (match := _WAIT.search(text)):
        delay = duration_s(match[1])
    return ApiError(
        frozenset(reader.codes), tuple(reader.parameters), text, reader.is_moderated, reader.has_no_quota, delay
    )


def error_message(body: bytes) -> str:
    """What an error's body says, on one printable line."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return excerpt(body)
    data = data[0] if isinstance(data, list) and data else data
    error = (data.get("error") or data) if isinstance(data, dict) else data
    if isinstance(error, dict):
        parts = [error.get("message"), error.get("code")]
        metadata = error.get("metadata")
        if isinstance(metadata, dict):
            reasons = metadata.get("reasons")
            parts += [metadata.get("raw"), ", ".join(map(str, reasons)) if isinstance(reasons, list) else None]
        told = [part for part in parts if isinstance(part, str) and part]
        if told:
            return excerpt(" / ".join(told).encode("utf-8", "replace"))
    return excerpt(error.encode("utf-8", "replace") if isinstance(error, str) else body)


def duration_s(text: str) -> float | None:
    """The seconds of a duration; None if it is none.

    >>> duration_s("7m12s"), duration_s("2.1s"), duration_s("20 seconds"), duration_s("soon")
    (432.0, 2.1, 20.0, None)
    """
    parts = _DURATION.findall(text.lower())
    return sum(float(number) * _SECONDS[unit] for number, unit in parts) if parts else None


class _Reader:
    """Collects from a body, whatever its shape."""

    def __init__(self) -> None:
        self.codes: set[str] = set()
        self.parameters: list[str] = []
        self.texts: list[str] = []
        self.is_moderated = False
        self.has_no_quota = False
        self.retry_delay_s: float | None = None

    def walk(self, key: str, value: Any, depth: int) -> None:
        """Read one value that stands under `key`."""
        if depth > MAX_DEPTH or key in ECHO_KEYS:
            return
        if isinstance(value, Mapping):
            for name, item in value.items():
                self._take(str(name).lower(), item, depth)
        elif isinstance(value, list | tuple):
            for item in value:
                self.walk(key, item, depth + 1)
        elif isinstance(value, str) and key in TEXT_KEYS:
            words, inner = _embedded(value)
            self.texts.append(words)
            if inner is not None:
                self.walk(key, inner, depth + 1)

    def _take(self, name: str, item: Any, depth: int) -> None:
        if name in CODE_KEYS and isinstance(item, str | int):
            self.codes.add(str(item).lower())
        elif name in PARAMETER_KEYS and isinstance(item, str | list | tuple):
            path = item if isinstance(item, str) else " ".join(map(str, item))
            self.parameters += [part.lower() for part in _NAME.findall(path)]
        elif name == "retrydelay" and isinstance(item, str):
            self.retry_delay_s = duration_s(item)
        elif name == "quotavalue":
            self.has_no_quota = self.has_no_quota or str(item) == "0"
        elif name == "reasons" and isinstance(item, list):
            self.is_moderated = self.is_moderated or bool(item)
        else:
            self.walk(name, item, depth + 1)


def _embedded(text: str) -> tuple[str, Any]:
    """The words of a text, and the JSON (or Python's way of writing it) in it, if there is any."""
    start = min((at for at in (text.find("{"), text.find("[{")) if at >= 0), default=-1)
    if start < 0:
        return text, None
    with contextlib.suppress(ValueError, RecursionError):
        value, end = json.JSONDecoder(strict=False).raw_decode(text, start)
        return f"{text[:start]} {text[end:]}", value
    with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError):
        value = ast.literal_eval(text[start:].strip())
        return text[:start], value
    return text, None


def _without_echoes(text: str) -> str:
    """A text without what stands in braces, and without the beginning of a JSON object that was cut off."""
    kept: list[str] = []
    opened: list[int] = []
    for character in text:
        if character == "}" and opened:
            del kept[opened.pop() :]
            continue
        if character == "{":
            opened.append(len(kept))
        kept.append(character)
    cut = [at for at in opened if kept[at + 1 : at + 2] in (['"'], ["'"])]
    return "".join(kept[: cut[0]] if cut else kept)
