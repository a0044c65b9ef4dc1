"""One exchange with a teacher: the request with its content address, and the reply as it is kept.

A request's key is a tagged SHA-256 of its canonical JSON: endpoint, model, messages, temperature, extra body, prompt id
and hash, sample number, retry number. How it is transported is no part of it: neither the key to the API nor headers,
nor the completion cap, nor the form of structured output, so that raising a cap or learning what an endpoint can do
buys nothing twice.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from edgeelad.teacher.prompts.messages import Message

KEY_TAG = "edgeelad-request-1"


@dataclass(frozen=True, slots=True)
class TeacherRequest:
    """What is asked; two equal requests are one request.

    Attributes:
        endpoint: The URL that is posted to.
        model: The model's name there.
        messages: The chat.
        temperature: Sampling temperature.
        prompt_id: Which prompt file made the messages.
        prompt_sha256: The hash of that file.
        sample: Which of several samples of the same question this is.
        retry: 1 if a first reply could not be used.
        extra_body: Further fields of the request's body, as JSON text with sorted keys.
    """

    endpoint: str
    model: str
    messages: tuple[Message, ...]
    temperature: float
    prompt_id: str
    prompt_sha256: str
    sample: int = 0
    retry: int = 0
    extra_body: str = "{}"

    def canonical(self) -> str:
        """The request as canonical JSON: what the ledger keeps, and what the key is made of."""
        return canonical_json(
            {
                "endpoint": self.endpoint,
                "model": self.model,
                "messages": [{"role": message.role, "content": message.content} for message in self.messages],
                "temperature": self.temperature,
                "prompt_id": self.prompt_id,
                "prompt_sha256": self.prompt_sha256,
                "sample": self.sample,
                "retry": self.retry,
                "extra_body": json.loads(self.extra_body),
            }
        )

    @property
    def key(self) -> str:
        """The content address."""
        return content_key(self.canonical())


@dataclass(frozen=True, slots=True)
class Billing:
    """Tokens that one reply was billed for.

    `is_estimated` says that the reply did not tell, and that the counts are estimates; `reasoning_tokens` are among
    `completion_tokens`, `cached_prompt_tokens` among `prompt_tokens`. `cost_pico` is the price that the endpoint says
    it charged, in picodollars; None if it does not say.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_prompt_tokens: int = 0
    reasoning_tokens: int = 0
    is_estimated: bool = False
    cost_pico: int | None = None


@dataclass(frozen=True, slots=True)
class StoredReply:
    """A reply that was paid for.

    Attributes:
        key: The request's key.
        content: The text of the reply.
        finish_reason: As the endpoint said it.
        problem: Why it cannot be used; "" if it can.
        completion_cap: The completion cap that it was bought under.
        billing: What it was billed.
    """

    key: str
    content: str
    finish_reason: str
    problem: str = ""
    completion_cap: int = 0
    billing: Billing = field(default_factory=Billing)


def content_key(canonical: str) -> str:
    """The tagged hash of a canonical request.

    >>> content_key("{}")[:26]
    'edgeelad-request-1:9c41081'
    """
    digest = hashlib.sha256(f"{KEY_TAG}\n{canonical}".encode()).hexdigest()
    return f"{KEY_TAG}:{digest}"


def reply_digest(key: str, content: str, finish_reason: str, completion_cap: int, model: str) -> str:
    """The hash that is kept beside a reply, of all that is read of it."""
    text = canonical_json([key, content, finish_reason, completion_cap, model])
    return hashlib.sha256(f"edgeelad-reply-1\n{text}".encode()).hexdigest()


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces; the same value gives the same text on every machine."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
