"""Read the text of a chat completion out of its choices, and say why it cannot be used, if so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeelad.teacher.prompts.messages import clean_text


def read_choice(data: Mapping[str, Any], reasoning_tokens: int) -> tuple[str, str, str]:
    """The first choice's text, why it ended, and why it cannot be used ("" where it can)."""
    choices = data.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        return "", "", "a reply without choices"
    finish_reason = choice.get("finish_reason")
    finish_reason = clean_text(finish_reason) if isinstance(finish_reason, str) else ""
    content = clean_text(_text(message.get("content")))
    refusal = message.get("refusal")
    if finish_reason == "length":
        return content, finish_reason, "cut off at the completion cap"
    if finish_reason == "content_filter":
        return content, finish_reason, "withheld by the endpoint's content filter"
    if isinstance(refusal, str) and refusal and not content:
        return content, finish_reason, f"the teacher declined: {excerpt(refusal.encode('utf-8', 'replace'))}"
    if not content.strip():
        return (
            content,
            finish_reason,
            "an empty reply" + (f" ({reasoning_tokens} reasoning tokens billed)" if reasoning_tokens else ""),
        )
    return content, finish_reason, ""


def excerpt(body: bytes, limit: int = 200) -> str:
    """The beginning of a text that came from elsewhere, on one printable line."""
    text = " ".join(body[: 4 * limit].decode("utf-8", "replace").split())
    text = "".join(character if character.isprintable() else "?" for character in text)
    return (text if len(text) <= limit else text[:limit] + "…") or "(empty)"


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = (part.get("text") for part in content if isinstance(part, dict))
        return "".join(part for part in parts if isinstance(part, str))
    return ""
