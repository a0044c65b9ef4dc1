"""Put a stream of server-sent events together into the chat completion that it stands for.

Some endpoints insist on `stream: true`, and some stream though they were not asked to. Takes the whole body, gives the
JSON of a chat completion (deltas joined by index, the last usage) and why it is incomplete, if so. An error inside the
stream that comes before any text is given as an error; one that comes later leaves the reply in doubt.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

CONTENT_TYPE = "text/event-stream"
DONE = "[DONE]"
# of a delta: the same in every event, not to be joined
WHOLE_FIELDS = frozenset({"role", "type", "id", "object"})
MAX_CHOICES = 64
MAX_DEPTH = 8


class _Parts(list[str]):
    """A text in parts; joined at the end, for adding to a text copies it."""


def is_event_stream(headers: Mapping[str, str], body: bytes) -> bool:
    """Whether a body is a stream of server-sent events, whatever its header says."""
    start = body[:64].removeprefix(b"\xef\xbb\xbf").lstrip()
    return start.startswith((b"data:", b"event:", b":")) or (
        headers.get("content-type", "").startswith(CONTENT_TYPE) and not start.startswith((b"{", b"[", b"<"))
    )


def assemble(body: bytes) -> tuple[bytes, str]:
    """The completion that a stream stands for, and why it is incomplete ("" if it is whole).

    >>> assemble(b'data: {"choices": [{"delta": {"content": "7"}}]}\\n\\ndata: [DONE]\\n\\n')
    (b'{"choices": [{"message": {"content": "7"}, "finish_reason": null}]}', '')
    """
    whole: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    is_done = False
    for data in _events(body):
        if data == DONE:
            is_done = True
            break
        try:
            event = json.loads(data)
        except (ValueError, RecursionError):
            return body, "the stream has an event that is no JSON"
        if not isinstance(event, dict):
            return body, "the stream has an event that is no JSON object"
        if event.get("error"):
            if not any(_has_text(choice["message"]) for choice in choices.values()):
                return data.encode(), ""
            return body, f"the stream ended with an error: {json.dumps(event['error'])[:200]}"
        for choice in event.get("choices") or ():
            _add_choice(choices, choice)
        whole.update({name: value for name, value in event.items() if name != "choices" and value is not None})
    is_finished = bool(choices) and all(choice["finish_reason"] for choice in choices.values())
    told = whole.get("x_groq")
    if isinstance(told, dict) and "usage" in told:
        whole.setdefault("usage", told["usage"])
    reply = {**whole, "choices": [_whole(choices[index]) for index in sorted(choices)]}
    problem = "" if is_done or is_finished else "the stream broke off"
    return json.dumps(reply, ensure_ascii=False).encode("utf-8", "replace"), problem


def _events(body: bytes) -> Iterator[str]:
    """The data of each event."""
    lines: list[str] = []
    for line in body.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace").replace("\r\n", "\n").split("\n"):
        if line.startswith("data:"):
            lines.append(line[5:].removeprefix(" "))
        elif not line and lines:
            yield "\n".join(lines).strip()
            lines = []
    if lines:
        yield "\n".join(lines).strip()


def _add_choice(choices: dict[int, dict[str, Any]], choice: Any) -> None:
    if not isinstance(choice, dict):
        return
    index = choice.get("index")
    index = index if isinstance(index, int) and 0 <= index < MAX_CHOICES else 0
    whole = choices.setdefault(index, {"message": {}, "finish_reason": None})
    if isinstance(choice.get("delta"), dict):
        _join(whole["message"], choice["delta"], 0)
    if isinstance(choice.get("message"), dict):
        whole["message"] = choice["message"]
    whole["finish_reason"] = choice.get("finish_reason") or whole["finish_reason"]


def _join(whole: dict[str, Any], delta: Mapping[str, Any], depth: int) -> None:
    """Add a delta to what came before: texts joined, lists by index, anything else as it is."""
    for name, value in delta.items():
        before = whole.get(name)
        if value is None:
            whole.setdefault(name, None)
        elif isinstance(value, str) and name not in WHOLE_FIELDS:
            if isinstance(before, _Parts):
                before.append(value)
            else:
                whole[name] = _Parts([value])
        elif isinstance(value, dict) and depth < MAX_DEPTH:
            if not isinstance(before, dict):
                before = whole[name] = {}
            _join(before, value, depth + 1)
        elif isinstance(value, list) and depth < MAX_DEPTH:
            if not isinstance(before, list):
                before = whole[name] = []
            _join_items(before, value, depth)
        else:
            whole[name] = value


def _join_items(before: list[Any], items: list[Any], depth: int) -> None:
    for item in items:
        if not isinstance(item, dict):
            before.append(item)
            continue
        index = item.get("index", len(before))
        known = next((known for known in before if isinstance(known, dict) and known.get("index") == index), None)
        if known is None:
            known = {"index": index}
            before.append(known)
        _join(known, item, depth + 1)


def _has_text(message: Mapping[str, Any]) -> bool:
    return any(_whole(value) for name, value in message.items() if name not in WHOLE_FIELDS)


def _whole(value: Any) -> Any:
    """A value with its parts joined."""
    if isinstance(value, _Parts):
        return "".join(value)
    if isinstance(value, dict):
        return {name: _whole(item) for name, item in value.items()}
    return [_whole(item) for item in value] if isinstance(value, list) else value
