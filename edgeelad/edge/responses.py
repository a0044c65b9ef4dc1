"""OpenAI's response bodies: whole, or in chunks of a stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgeelad.edge.api import Kind, Usage
from edgeelad.edge.generation import Finish

OBJECTS = {"chat": "chat.completion", "completion": "text_completion"}
CHUNK_OBJECTS = {"chat": "chat.completion.chunk", "completion": "text_completion"}


@dataclass(frozen=True, slots=True)
class Envelope:
    """What every body of one response has in common."""

    kind: Kind
    id: str
    created: int
    model: str


def whole_body(envelope: Envelope, text: str, finish: Finish, usage: Usage) -> dict[str, Any]:
    """The body of a response that is not streamed."""
    content: dict[str, Any] = (
        {"message": {"role": "assistant", "content": text, "refusal": None}}
        if envelope.kind == "chat"
        else {"text": text}
    )
    choice = {"index": 0, **content, "logprobs": None, "finish_reason": finish}
    return {**_head(envelope, OBJECTS[envelope.kind]), "choices": [choice], "usage": usage.to_json()}


def chunk_body(
    envelope: Envelope, text: str | None, finish: Finish | None, *, is_first: bool = False
) -> dict[str, Any]:
    """One chunk of a stream: a piece of text, or the end with its reason."""
    if envelope.kind == "chat":
        role = {"role": "assistant"} if is_first else {}
        content: dict[str, Any] = {"delta": role if text is None else {**role, "content": text}}
    else:
        content = {"text": text or ""}
    choice = {"index": 0, **content, "logprobs": None, "finish_reason": finish}
    return {**_head(envelope, CHUNK_OBJECTS[envelope.kind]), "choices": [choice]}


def usage_body(envelope: Envelope, usage: Usage) -> dict[str, Any]:
    """The last chunk of a stream whose request asked for the token counts."""
    return {**_head(envelope, CHUNK_OBJECTS[envelope.kind]), "choices": [], "usage": usage.to_json()}


def models_body(name: str) -> dict[str, Any]:
    """The list of models: the one that is served."""
    return {"object": "list", "data": [{"id": name, "object": "model", "created": 0, "owned_by": "edgeelad"}]}


def _head(envelope: Envelope, kind: str) -> dict[str, Any]:
    return {"id": envelope.id, "object": kind, "created": envelope.created, "model": envelope.model}
