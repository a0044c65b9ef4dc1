"""OpenAI's response bodies: whole, or in chunks of a stream. The field `edgeelad` of a choice is an extension."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from edgeelad.edge.api import Kind, Usage
from edgeelad.edge.generation import Finish, TokenInfo
from edgeelad.engine.codec import INCOMPLETE

OBJECTS = {"chat": "chat.completion", "completion": "text_completion"}
CHUNK_OBJECTS = {"chat": "chat.completion.chunk", "completion": "text_completion"}
Tokens = Sequence[TokenInfo] | None


@dataclass(frozen=True, slots=True)
class Envelope:
    """What every body of one response has in common."""

    kind: Kind
    id: str
    created: int
    model: str


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The end of a choice.

    Attributes:
        text: Its content.
        finish: Why it ended.
        extension: The field `edgeelad`.
        is_rewritten: Whether the text is not what the student wrote: the teacher's, or an object filled from it.
        refusal: Why the requested object could not be filled; there is no content then.
    """

    text: str
    finish: Finish
    extension: dict[str, Any]
    is_rewritten: bool = False
    refusal: str | None = None


def whole_choice(kind: Kind, index: int, end: Conclusion, tokens: Tokens) -> dict[str, Any]:
    """One choice of a response that is not streamed."""
    message = {"role": "assistant", "content": None if end.refusal else end.text, "refusal": end.refusal}
    content: dict[str, Any] = {"message": message} if kind == "chat" else {"text": end.text}
    return {
        "index": index,
        **content,
        "logprobs": _logprobs(kind, tokens, 0),
        "finish_reason": end.finish,
        "edgeelad": end.extension,
    }


def whole_body(envelope: Envelope, choices: Sequence[dict[str, Any]], usage: Usage) -> dict[str, Any]:
    """The body of a response that is not streamed."""
    return {**_head(envelope, OBJECTS[envelope.kind]), "choices": list(choices), "usage": usage.to_json()}


def first_chunk(envelope: Envelope, index: int) -> dict[str, Any]:
    """The first chunk of a choice in a chat's stream: its role."""
    return _chunk(envelope, index, {"delta": {"role": "assistant"}}, None)


def piece_chunk(envelope: Envelope, index: int, text: str, tokens: Tokens, start: int) -> dict[str, Any]:
    """A chunk with a piece of a choice's text, which begins at the character `start`."""
    content: dict[str, Any] = {"delta": {"content": text}} if envelope.kind == "chat" else {"text": text}
    return _chunk(envelope, index, content, _logprobs(envelope.kind, tokens, start))


def refusal_chunk(envelope: Envelope, index: int, refusal: str) -> dict[str, Any]:
    """A chunk that says why there is no content."""
    return _chunk(envelope, index, {"delta": {"refusal": refusal}}, None)


def last_chunk(envelope: Envelope, index: int, end: Conclusion) -> dict[str, Any]:
    """The last chunk of a choice: why it ended, and the extension."""
    content: dict[str, Any] = {"delta": {}} if envelope.kind == "chat" else {"text": ""}
    body = _chunk(envelope, index, content, None, end.finish)
    body["choices"][0]["edgeelad"] = end.extension
    return body


def usage_body(envelope: Envelope, usage: Usage) -> dict[str, Any]:
    """The last chunk of a stream whose request asked for the token counts."""
    return {**_head(envelope, CHUNK_OBJECTS[envelope.kind]), "choices": [], "usage": usage.to_json()}


def model_body(name: str) -> dict[str, Any]:
    """The model that is served."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "edgeelad"}


def _chunk(
    envelope: Envelope,
    index: int,
    content: dict[str, Any],
    logprobs: dict[str, Any] | None,
    finish: Finish | None = None,
) -> dict[str, Any]:
    choice = {"index": index, **content, "logprobs": logprobs, "finish_reason": finish}
    return {**_head(envelope, CHUNK_OBJECTS[envelope.kind]), "choices": [choice]}


def _logprobs(kind: Kind, tokens: Tokens, start: int) -> dict[str, Any] | None:
    """Log-probabilities in the form of chats, or in that of completions, whose tokens have offsets in the text."""
    if tokens is None:
        return None
    if kind == "chat":
        rows = [
            {**_token(info.text, info.logprob), "top_logprobs": [_token(*top) for top in info.top]} for info in tokens
        ]
        return {"content": rows, "refusal": None}
    texts = [info.text for info in tokens]
    return {
        "tokens": texts,
        "token_logprobs": [info.logprob for info in tokens],
        "top_logprobs": [dict(reversed(info.top)) for info in tokens],  # of equal texts, the most likely one stays
        "text_offset": list(accumulate(map(len, texts), initial=start))[:-1],
    }


def _token(text: str, logprob: float) -> dict[str, Any]:
    """A token; the bytes of part of a character are not known."""
    return {
        "token": text,
        "logprob": logprob,
        "bytes": list(text.encode()) if text and INCOMPLETE not in text else None,
    }


def _head(envelope: Envelope, kind: str) -> dict[str, Any]:
    return {"id": envelope.id, "object": kind, "created": envelope.created, "model": envelope.model}
