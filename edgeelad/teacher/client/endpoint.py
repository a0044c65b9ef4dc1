"""An OpenAI-compatible endpoint: its URL, its key, the body of a request, and what it was found not to support.

One rule: what an endpoint refuses by name is left out or lowered, and the ledger remembers it, so that a lesson is
learned once. A level of structured output that the user chose is not lowered: its refusal is an error that names it.
"""

from __future__ import annotations

import json
import os
import re
import threading
import urllib.parse
from typing import Any

from edgeelad.config import TeacherConfig
from edgeelad.errors import ConfigError, TeacherRefusedError
from edgeelad.hosts import is_loopback
from edgeelad.teacher.client.refusals import Unsupported
from edgeelad.teacher.client.transport import Transport
from edgeelad.teacher.client.vocabulary import Feature
from edgeelad.teacher.ledger.exchange import TeacherRequest
from edgeelad.teacher.ledger.ledger import Ledger
from edgeelad.teacher.prompts.schemas import response_format

STRUCTURE_LEVELS = ("json_schema", "json_object", "text")
TOKEN_PARAMETERS = ("max_tokens", "max_completion_tokens")
# fields that decide cost or form: they have options of their own, or would change how replies are read
OWN_FIELDS = frozenset(
    {
        "model", "messages", "temperature", "max_tokens", "max_completion_tokens", "response_format", "stream",
        "stream_options", "n",
    }
)  # fmt: skip
# in the query of a URL, which is kept in config.toml and in the ledger
SECRET_PARAMETER = re.compile(r"key|token|secret|password|signature|\bsig\b", re.IGNORECASE)
# what is remembered of a feature that is left out; `stream` is a feature that is added
LEFT_OUT: dict[Feature, str] = {
    "temperature": "no", "system_role": "no", "reasoning_effort": "no", "stream": "yes", "stream_options": "no"
}  # fmt: skip


class Endpoint:
    """One model at one endpoint; thread-safe.

    Raises:
        ConfigError: No usable URL, no model, or an extra_body that sets what other options set.
    """

    def __init__(self, config: TeacherConfig, ledger: Ledger) -> None:
        self.url = endpoint_url(config.url)
        self.model = check_settings(config)
        self._config = config
        self._ledger = ledger
        self._lock = threading.Lock()

    def __str__(self) -> str:
        return f"the teacher {self.model} at {self.url}"

    def body(
        self, request: TeacherRequest, completion_cap: int, *, levels_down: int = 0, has_system_role: bool = True
    ) -> dict[str, Any]:
        """The JSON body that is posted.

        Args:
            request: What is asked.
            completion_cap: The most tokens of the reply.
            levels_down: How far below the endpoint's level of structured output this request goes.
            has_system_role: Whether to send the system turn as such, if the endpoint is not known to refuse it.
        """
        messages = [{"role": message.role, "content": message.content} for message in request.messages]
        if not has_system_role or self._ability("system_role") == "no":
            messages = _without_system_role(messages)
        body: dict[str, Any] = {"model": request.model, "messages": messages, self._token_parameter(): completion_cap}
        if self._ability("temperature") != "no":
            body["temperature"] = request.temperature
        if self._config.reasoning_effort is not None and self._ability("reasoning_effort") != "no":
            body["reasoning_effort"] = self._config.reasoning_effort
        level = STRUCTURE_LEVELS.index(self._structured()) + levels_down
        structure = response_format(request.prompt_id, STRUCTURE_LEVELS[min(level, len(STRUCTURE_LEVELS) - 1)])
        if structure is not None:
            body["response_format"] = structure
        if self._ability("stream") == "yes":
            body["stream"] = True
            if self._ability("stream_options") != "no":
                body["stream_options"] = {"include_usage": True}
        return {**body, **json.loads(request.extra_body)}

    def learn(self, outcome: Unsupported, body: dict[str, Any]) -> None:
        """Remember that the endpoint does not support something in a request's `body`.

        Raises:
            TeacherRefusedError: Nothing can be left out, or a setting forbids it.
        """
        feature = outcome.feature
        with self._lock:
            if feature == "structured":
                self._lower_structure(outcome, body)
            elif feature == "token_parameter":
                self._swap_token_parameter(outcome, body)
            elif feature in self._config.extra_body:
                raise TeacherRefusedError(f"{self} refused: {outcome.reason}; remove it from teacher.extra_body")
            else:
                self._remember(feature, LEFT_OUT[feature])

    def learn_system_role(self) -> None:
        """Remember that the endpoint accepted a request once the system turn was merged into the user's."""
        self._remember("system_role", "no")

    def lower_structure(self) -> None:
        """Remember that replies are well-formed only at the next lower level of structured output."""
        with self._lock:
            level = STRUCTURE_LEVELS.index(self._structured())
            self._remember("structured", STRUCTURE_LEVELS[min(level + 1, len(STRUCTURE_LEVELS) - 1)])

    def _lower_structure(self, outcome: Unsupported, body: dict[str, Any]) -> None:
        if self._config.structured != "auto":
            raise TeacherRefusedError(f'{self} refused: {outcome.reason}; set teacher.structured = "auto"')
        asked = body.get("response_format", {}).get("type", "text")
        if asked == "text":
            raise TeacherRefusedError(f"{self} refused: {outcome.reason}")
        below = STRUCTURE_LEVELS[STRUCTURE_LEVELS.index(asked) + 1]
        # several threads may learn the same lesson at once: never climb again
        if STRUCTURE_LEVELS.index(self._structured()) < STRUCTURE_LEVELS.index(below):
            self._remember("structured", below)

    def _swap_token_parameter(self, outcome: Unsupported, body: dict[str, Any]) -> None:
        for name in TOKEN_PARAMETERS:
            if name in body:
                self._remember(name, "no")
        if all(self._ability(name) == "no" for name in TOKEN_PARAMETERS):
            raise TeacherRefusedError(f"{self} refused {' and '.join(TOKEN_PARAMETERS)}: {outcome.reason}")

    def _token_parameter(self) -> str:
        chosen = self._config.token_parameter
        if self._ability(chosen) != "no":
            return chosen
        return next(name for name in TOKEN_PARAMETERS if name != chosen)

    def _structured(self) -> str:
        if self._config.structured != "auto":
            return self._config.structured
        return self._ability("structured") or STRUCTURE_LEVELS[0]

    def _ability(self, name: str) -> str | None:
        return self._ledger.ability(self.url, self.model, name)

    def _remember(self, name: str, value: str) -> None:
        self._ledger.remember_ability(self.url, self.model, name, value)


def _without_system_role(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    """The same messages with the system turn merged into the first user turn."""
    system = [message["content"] for message in messages if message["role"] == "system"]
    rest = [message for message in messages if message["role"] != "system"]
    if not system or not rest:
        return messages
    return [{"role": rest[0]["role"], "content": "\n\n".join([*system, rest[0]["content"]])}, *rest[1:]]


def check_settings(config: TeacherConfig) -> str:
    """Check the settings that requests are made of, and give the model.

    Raises:
        ConfigError: No model, or an extra_body that sets what other options set.
    """
    if not config.model:
        raise ConfigError("teacher.model is not set: name the model, for example --teacher-model NAME")
    taken = sorted(OWN_FIELDS & set(config.extra_body))
    if taken:
        raise ConfigError(f"teacher.extra_body must not set {', '.join(taken)}: edgeelad sets these itself")
    return config.model


def endpoint_url(base: str | None) -> str:
    """The URL of chat completions, from the base URL of an API.

    >>> endpoint_url("https://host/v1/")
    'https://host/v1/chat/completions'

    Raises:
        ConfigError: Not an http or https URL, or one with credentials in it.
    """
    if not base:
        raise ConfigError("teacher.url is not set: give the API's base URL, for example --teacher-url https://HOST/v1")
    try:
        parts = urllib.parse.urlsplit(base)
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(f"teacher.url: expected http://… or https://…, found {base!r}")
    for name, _ in urllib.parse.parse_qsl(parts.query):
        if SECRET_PARAMETER.search(name):
            raise ConfigError(
                f"teacher.url holds a secret ({name}=…); send it as a header with teacher.extra_headers_env"
            )
    if parts.username is not None or parts.password is not None:
        raise ConfigError("teacher.url holds credentials; put the key into the variable that teacher.api_key_env names")
    path = parts.path.rstrip("/")
    if not path.endswith("/chat/completions"):
        path += "/chat/completions"
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))


def open_transport(config: TeacherConfig, url: str, *, is_replay: bool = False) -> Transport:
    """Prepare the connections to an endpoint, with its key and secret headers; a replay needs neither.

    Raises:
        ConfigError: A variable that holds a secret is not set, or holds what no secret is; or questions would be sent
            without encryption.
        MissingExtraError: requests is not installed.
    """
    if not is_replay:
        _check_encryption(config, url)
    return Transport(
        url,
        None if is_replay else read_key(config.api_key_env),
        config.extra_headers,
        secret_headers={} if is_replay else _secret_headers(config),
        connect_timeout_s=config.connect_timeout_s,
        read_timeout_s=config.read_timeout_s,
    )


def _check_encryption(config: TeacherConfig, url: str) -> None:
    """Refuse to send questions and keys in the clear to another machine, unless the configuration allows it."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "http" and not config.allow_http and not is_loopback(parts.hostname or ""):
        raise ConfigError(
            f"teacher.url: {parts.hostname} would get questions and key without encryption; use https, or set "
            "teacher.allow_http = true if the network between is yours"
        )


def _secret_headers(config: TeacherConfig) -> dict[str, str]:
    return {name: read_secret(variable) for name, variable in config.extra_headers_env.items()}


def read_key(variable: str | None) -> str | None:
    """Read the API key from the environment variable that the configuration names; None if it names none.

    Raises:
        ConfigError: The variable is not set, or holds what no key is.
    """
    if not variable:
        return None
    return read_secret(variable, ', or set teacher.api_key_env = "" for a teacher that needs none')


def read_secret(variable: str, remedy: str = "") -> str:
    """Read a secret from an environment variable.

    Raises:
        ConfigError: The variable is not set, or holds what no secret is.
    """
    secret = os.environ.get(variable, "").strip()
    if not secret:
        raise ConfigError(f"the environment variable {variable} is not set; put the teacher's API key into it{remedy}")
    if not secret.isascii() or not secret.isprintable() or " " in secret:
        raise ConfigError(f"the environment variable {variable} holds characters that no API key has")
    return secret
