"""Parse OpenAI's request forms; what a student cannot honor is refused, not ignored.

Takes parsed JSON and returns frozen requests. Knows no HTTP server and no models. A chat request's question is its last
user message: a student answers one question at a time and was never taught to read a conversation, so earlier turns and
system messages do not reach it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["chat", "completion"]
MAX_STOPS = 4

# accepted without effect: they name the caller, or ask for the default
_WITHOUT_EFFECT = frozenset(
    {
        "user",
        "metadata",
        "seed",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "parallel_tool_calls",
        "store",
    }
)
# parameter -> the values that change nothing; any other value asks for something that a student cannot do
_NOTHING_ASKED: Mapping[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "echo": (False,),
    "suffix": ("",),
}
_OWN = {
    "chat": frozenset({"messages", "max_tokens", "max_completion_tokens"}),
    "completion": frozenset({"prompt", "max_tokens"}),
}
_COMMON = frozenset({"model", "stream", "stream_options", "stop", "temperature", "top_p"})


class ApiError(Exception):
    """An error response in OpenAI's form."""

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        kind: str = "invalid_request_error",
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code, self.kind = status, param, code, kind

    def to_json(self) -> dict[str, Any]:
        """Return the body of the response."""
        return {"error": {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}}


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """A valid request.

    Attributes:
        kind: The endpoint that received it.
        text: The question.
        max_tokens: Maximum number of tokens to generate; None for the package's limit.
        stop: Stop sequences; generation ends before the first.
        is_stream: Whether to send pieces as they are generated.
        include_usage: Whether the last chunk of a stream holds the token counts.
    """

    kind: Kind
    text: str
    max_tokens: int | None
    stop: tuple[str, ...]
    is_stream: bool
    include_usage: bool


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one generation."""

    prompt_tokens: int
    completion_tokens: int

    def to_json(self) -> dict[str, int]:
        """In OpenAI's form."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }


def parse_request(body: Any, kind: Kind, model: str) -> GenerationRequest:
    """Parse and check a request's JSON.

    Raises:
        ApiError: It is malformed or unsupported (400), or names another model (404).
    """
    if not isinstance(body, dict):
        raise ApiError(400, "The request body must be a JSON object.")
    _refuse_impossible(body, kind)
    asked = body.get("model")
    if asked is not None and asked != model:
        raise ApiError(404, f"The model {asked!r} is not served here; this is {model!r}.", "model", "model_not_found")
    is_stream = _boolean(body, "stream")
    options = body.get("stream_options") or {}
    if not isinstance(options, dict) or (options and not is_stream):
        raise ApiError(400, "stream_options must be an object, and needs stream: true.", "stream_options")
    _check_greedy(body)
    return GenerationRequest(
        kind=kind,
        text=_last_question(body.get("messages")) if kind == "chat" else _prompt(body.get("prompt")),
        max_tokens=_max_tokens(body),
        stop=_stops(body.get("stop")),
        is_stream=is_stream,
        include_usage=_boolean(options, "include_usage"),
    )


def _refuse_impossible(body: Mapping[str, Any], kind: Kind) -> None:
    for name, value in body.items():
        if name in _OWN[kind] or name in _COMMON or name in _WITHOUT_EFFECT:
            continue
        if name not in _NOTHING_ASKED:
            raise ApiError(400, f"Unrecognized request argument supplied: {name}", name, "unknown_parameter")
        # True == 1 in Python: a boolean is not a number here
        is_nothing = value is None or any(
            value == allowed and isinstance(value, bool) == isinstance(allowed, bool)
            for allowed in _NOTHING_ASKED[name]
        )
        if not is_nothing:
            raise ApiError(
                400,
                f"{name} = {_short(value)} is not supported: this server answers one question a request, in text, "
                "with one greedy explanation.",
                name,
                "unsupported_parameter",
            )


def _check_greedy(body: Mapping[str, Any]) -> None:
    temperature, top_p = body.get("temperature"), body.get("top_p")
    if temperature is not None and (not _is_number(temperature) or not 0 <= temperature <= 2):
        raise ApiError(400, f"temperature must be a number from 0 to 2, found {_short(temperature)}.", "temperature")
    if top_p is not None and (not _is_number(top_p) or not 0 <= top_p <= 1):
        raise ApiError(400, f"top_p must be a number from 0 to 1, found {_short(top_p)}.", "top_p")
    if temperature:
        raise ApiError(
            400,
            f"temperature = {temperature} is not supported: the student's accuracy was measured on greedy answers; "
            "leave temperature out or set it to 0.",
            "temperature",
            "unsupported_value",
        )


def _last_question(messages: Any) -> str:
    if not isinstance(messages, list) or not messages:
        raise ApiError(400, "messages must be a list of at least one message.", "messages")
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise ApiError(400, "Each message must be an object with a role.", f"messages[{index}]")
    from_user = [index for index, message in enumerate(messages) if message["role"] == "user"]
    if not from_user:
        raise ApiError(400, "messages holds no message with the role user: there is no question.", "messages")
    text = _content(messages[from_user[-1]].get("content"), f"messages[{from_user[-1]}].content")
    return _not_empty(text, f"messages[{from_user[-1]}].content")


def _content(content: Any, param: str) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
        if len(texts) == len(content) and all(isinstance(text, str) for text in texts):
            return "".join(str(text) for text in texts)
    raise ApiError(400, "A message's content must be text, or a list of text parts.", param)


def _prompt(prompt: Any) -> str:
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise ApiError(400, "prompt must be one text; several prompts or token ids are not supported.", "prompt")
    return _not_empty(prompt, "prompt")


def _not_empty(text: str, param: str) -> str:
    if not text.strip():
        raise ApiError(400, "The question is empty.", param)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ApiError(400, "The question holds half a surrogate pair, which is no text.", param) from None
    return text


def _max_tokens(body: Mapping[str, Any]) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        value = body.get(name)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ApiError(400, f"{name} must be a whole number of at least 1, found {_short(value)}.", name)
        return value
    return None


def _stops(stop: Any) -> tuple[str, ...]:
    stops = [] if stop is None else [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or len(stops) > MAX_STOPS or not all(isinstance(s, str) and s for s in stops):
        raise ApiError(400, f"stop must be a text or a list of up to {MAX_STOPS} texts, none empty.", "stop")
    return tuple(stops)


def _boolean(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise ApiError(400, f"{name} must be true or false, found {_short(value)}.", name)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
