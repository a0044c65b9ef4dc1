"""Parse OpenAI's request forms; parameters that a student cannot honor are refused, not ignored.

Takes parsed JSON and returns frozen requests. Knows no HTTP server and no models. A chat request's question is its last
user message: a student answers one question at a time and was never taught to read a conversation, so earlier turns and
system messages do not reach it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from edgeelad.edge.formats import FormatError, ObjectFormat, parse_format
from edgeelad.pool.fields import is_blank

Kind = Literal["chat", "completion"]
MAX_STOPS = 4
MAX_CHOICES = 16
# OpenAI's limits on the most likely tokens that are returned per token
MAX_TOP = {"chat": 20, "completion": 5}
# below it, a temperature is 0: dividing by it would overflow
MIN_TEMPERATURE = 1e-5
# OpenAI allows 0, which no token reaches: it means the most likely one
MIN_TOP_P = 1e-6

# accepted without effect: they name the caller, or ask for the default
_WITHOUT_EFFECT = frozenset(
    {
        "user",
        "metadata",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "parallel_tool_calls",
        "store",
    }
)
# parameter -> the values that change nothing; any other value asks for something that a student cannot do
_NOTHING_ASKED: Mapping[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),  # of completions
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "logit_bias": ({},),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "echo": (False,),
    "suffix": ("",),
}
_OWN = {
    "chat": frozenset({"messages", "max_tokens", "max_completion_tokens", "top_logprobs", "response_format"}),
    "completion": frozenset({"prompt", "max_tokens"}),
}
_COMMON = frozenset({"model", "stream", "stream_options", "stop", "temperature", "top_p", "n", "seed", "logprobs"})


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


def failure() -> ApiError:
    """The error of a request that failed through no fault of its own."""
    return ApiError(500, "The server failed while generating; its log says why.", kind="server_error")


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
        temperature: 0 (the default, with which students are measured) takes the most likely token.
        top_p: Sample from the most likely tokens that together reach this probability.
        num_choices: Number of explanations.
        seed: The same one gives the same explanations; None: a random one.
        num_top: Number of most likely tokens to return per token; None: no log-probabilities.
        format: The JSON object to return instead of the explanation's text; None: the text.
    """

    kind: Kind
    text: str
    max_tokens: int | None
    stop: tuple[str, ...]
    is_stream: bool
    include_usage: bool
    temperature: float = 0.0
    top_p: float = 1.0
    num_choices: int = 1
    seed: int | None = None
    num_top: int | None = None
    format: ObjectFormat | None = None

    @property
    def question_param(self) -> str:
        """The parameter that holds the question."""
        return "messages" if self.kind == "chat" else "prompt"


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
    temperature, top_p = _number(body, "temperature", 2), _number(body, "top_p", 1)
    return GenerationRequest(
        kind=kind,
        text=_last_question(body.get("messages")) if kind == "chat" else _prompt(body.get("prompt")),
        max_tokens=_max_tokens(body),
        stop=_stops(body.get("stop")),
        is_stream=is_stream,
        include_usage=_boolean(options, "include_usage"),
        temperature=temperature if temperature is not None and temperature >= MIN_TEMPERATURE else 0.0,
        top_p=1.0 if top_p is None else max(top_p, MIN_TOP_P),
        num_choices=_whole_number(body, "n", 1, MAX_CHOICES) or 1,
        seed=_whole_number(body, "seed", -(2**63), 2**63 - 1),
        num_top=_num_top(body, kind),
        format=_format(body) if kind == "chat" else None,
    )


def _refuse_impossible(body: Mapping[str, Any], kind: Kind) -> None:
    for name, value in body.items():
        if name in _OWN[kind] or name in _COMMON or name in _WITHOUT_EFFECT:
            continue
        if name not in _NOTHING_ASKED:
            shown = name.encode("utf-8", "backslashreplace").decode()  # JSON's escapes can spell half a surrogate pair
            raise ApiError(400, f"Unrecognized request argument supplied: {shown}", shown, "unknown_parameter")
        # True == 1 in Python: a boolean is not a number here
        is_nothing = value is None or any(
            value == allowed and isinstance(value, bool) == isinstance(allowed, bool)
            for allowed in _NOTHING_ASKED[name]
        )
        if not is_nothing:
            raise ApiError(
                400,
                f"{name} = {_short(value)} is not supported: a student answers one question per request, in its own "
                "words.",
                name,
                "unsupported_parameter",
            )


def _format(body: Mapping[str, Any]) -> ObjectFormat | None:
    name = "response_format"
    try:
        found = parse_format(body.get(name))
    except FormatError as error:
        raise ApiError(400, str(error), name, "unsupported_parameter") from None
    if found is not None and body.get("logprobs"):
        raise ApiError(400, f"logprobs are of the explanation's tokens: leave them out, or {name}.", name)
    return found


def _num_top(body: Mapping[str, Any], kind: Kind) -> int | None:
    """How many of the most likely tokens to return per token; None: no log-probabilities."""
    if kind == "completion":
        return _whole_number(body, "logprobs", 0, MAX_TOP[kind])
    number = _whole_number(body, "top_logprobs", 0, MAX_TOP[kind])
    if _boolean(body, "logprobs"):
        return number or 0
    if number:
        raise ApiError(400, "top_logprobs needs logprobs: true.", "top_logprobs")
    return None


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
    """Refuse what a pool refuses, so that every question that is answered can be logged for the next one."""
    if is_blank(text):
        raise ApiError(400, "The question is empty.", param)
    if "\0" in text:
        raise ApiError(400, "The question holds a NUL character; remove it.", param)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ApiError(400, "The question holds half a surrogate pair, which is no text.", param) from None
    return text


def _max_tokens(body: Mapping[str, Any]) -> int | None:
    names = ("max_completion_tokens", "max_tokens")
    found = (_whole_number(body, name, 1) for name in names)
    return next((value for value in found if value is not None), None)


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


def _whole_number(body: Mapping[str, Any], name: str, least: int, most: int | None = None) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and least <= value and (most is None or value <= most):
        return value
    allowed = f"of at least {least}" if most is None else f"from {least} to {most}"
    raise ApiError(400, f"{name} must be a whole number {allowed}, found {_short(value)}.", name)


def _number(body: Mapping[str, Any], name: str, most: int) -> float | None:
    value = body.get(name)
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= most):
        return value
    raise ApiError(400, f"{name} must be a number from 0 to {most}, found {_short(value)}.", name)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
