"""Read the text of a chat completion out of its body, and say why it cannot be used, if so.

The text is the message's content: a string, parts, or an object; with the arguments of a tool call, if there are any.
If there is no content, whole JSON objects in the reasoning stand for it: some servers put the answer there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from edgeelad.teacher.prompts.json_reply import read_objects
from edgeelad.teacher.prompts.messages import clean_text

# what endpoints call the two ends that matter; other names stay as they are
_ENDS = {
    **dict.fromkeys(("max_tokens", "max_output_tokens", "max_completion_tokens", "model_length"), "length"),
    **dict.fromkeys(
        ("content_filtered", "safety", "prohibited_content", "blocklist", "recitation", "spii", "refusal"),
        "content_filter",
    ),
}
_THOUGHTS = frozenset({"thinking", "reasoning", "redacted_thinking"})


def read_choice(data: Mapping[str, Any], reasoning_tokens: int) -> tuple[str, str, str]:
    """The first choice's text, why it ended, and why it cannot be used ("" if it can)."""
    choices = data.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else data
    message = choice.get("message") if isinstance(choice, dict) else None
    if isinstance(choice, dict) and not isinstance(message, dict) and isinstance(choice.get("text"), str):
        message = {"content": choice["text"]}
    if not isinstance(choice, dict) or not isinstance(message, dict):
        return "", "", "a reply without choices"
    end = choice.get("finish_reason")
    end = clean_text(end) if isinstance(end, str) else ""
    end = _ENDS.get(end.lower(), end)
    content = clean_text(_text(message, is_whole=end != "length"))
    refusal = message.get("refusal")
    if end == "content_filter":
        return content, end, "withheld by the endpoint's content filter"
    if content.strip():
        return content, end, ""
    if isinstance(refusal, str) and refusal:
        return content, end, f"the teacher declined: {excerpt(refusal.encode('utf-8', 'replace'))}"
    reason = "cut off at the completion cap before it began" if end == "length" else "an empty reply"
    return content, end, reason + (f" ({reasoning_tokens} reasoning tokens billed)" if reasoning_tokens else "")


def excerpt(body: bytes, limit: int = 200) -> str:
    """The beginning of a text that came from elsewhere, on one printable line."""
    text = " ".join(body[: 4 * limit].decode("utf-8", "replace").split())
    text = "".join(character if character.isprintable() else "?" for character in text)
    return (text if len(text) <= limit else text[:limit] + "…") or "(empty)"


def _text(message: Mapping[str, Any], is_whole: bool) -> str:
    content = _content(message.get("content"))
    calls = message.get("tool_calls")
    calls = [call.get("function") for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    for call in (*calls, message.get("function_call")):
        if isinstance(call, dict) and call.get("arguments"):
            content += "\n" + _content(call["arguments"])
    if content.strip() or not is_whole:
        return content
    reasoning = (_content(message.get(name)) for name in ("reasoning_content", "reasoning"))
    return "\n".join(found for text in reasoning for found in read_objects(text))


def _content(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(_content(part) for part in value if isinstance(part, dict | str))
    if not isinstance(value, dict) or value.get("type") in _THOUGHTS:
        return ""
    text = value.get("text")
    if isinstance(text, str):
        return text
    if isinstance(text, dict) and isinstance(text.get("value"), str):
        return str(text["value"])
    # an endpoint that has parsed the JSON; a part of another kind has a type
    return json.dumps(value, ensure_ascii=False) if value and "type" not in value else ""
