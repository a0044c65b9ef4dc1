"""An OpenAI-compatible endpoint: its URL, its key, the body of a request, and what was learned about what it can do.

What it can do (structured output, a temperature) is kept in the ledger, so that a lesson is paid for once.
"""

from __future__ import annotations

import json
import os
import urllib.parse
from typing import Any

from edgeelad.config import TeacherConfig
from edgeelad.errors import ConfigError, TeacherRefusedError
from edgeelad.teacher.client.outcomes import Unsupported
from edgeelad.teacher.ledger.exchange import TeacherRequest
from edgeelad.teacher.ledger.ledger import Ledger
from edgeelad.teacher.prompts.schemas import response_format

STRUCTURE_LEVELS = ("json_schema", "json_object", "text")
# fields that decide cost or form: they have options of their own, or would change how replies are read
OWN_FIELDS = frozenset(
    {"model", "messages", "temperature", "max_tokens", "max_completion_tokens", "response_format", "stream", "n"}
)


class Endpoint:
    """One model at one endpoint.

    Raises:
        ConfigError: No usable URL, no model, or an extra_body that sets what other options set.
    """

    def __init__(self, config: TeacherConfig, ledger: Ledger) -> None:
        self.url = endpoint_url(config.url)
        if not config.model:
            raise ConfigError("teacher.model is not set: name the model, for example --teacher-model NAME")
        self.model = config.model
        self._config = config
        self._ledger = ledger
        taken = sorted(OWN_FIELDS & set(config.extra_body))
        if taken:
            raise ConfigError(f"teacher.extra_body must not set {', '.join(taken)}: edgeelad sets these itself")

    def __str__(self) -> str:
        return f"the teacher {self.model} at {self.url}"

    def body(self, request: TeacherRequest, completion_cap: int) -> dict[str, Any]:
        """The JSON body that is posted."""
        body: dict[str, Any] = {
            "model": request.model,
            "messages": [{"role": message.role, "content": message.content} for message in request.messages],
            self._config.token_parameter: completion_cap,
        }
        if self._ability("temperature") != "no":
            body["temperature"] = request.temperature
        structure = response_format(request.prompt_id, self._structured())
        if structure is not None:
            body["response_format"] = structure
        return {**body, **json.loads(request.extra_body)}

    def learn(self, outcome: Unsupported, body: dict[str, Any]) -> None:
        """Remember that a request's `body` asked for something that the endpoint does not know.

        Raises:
            TeacherRefusedError: There is nothing to leave out.
        """
        if outcome.feature == "temperature":
            if "temperature" not in body:
                raise TeacherRefusedError(f"{self} refused: {outcome.reason}")
            self._remember("temperature", "no")
            return
        asked = body.get("response_format", {}).get("type", "text")
        if self._config.structured != "auto":
            raise TeacherRefusedError(f'{self} refused: {outcome.reason}; set teacher.structured = "auto"')
        if asked == "text":
            raise TeacherRefusedError(f"{self} refused: {outcome.reason}")
        below = STRUCTURE_LEVELS[STRUCTURE_LEVELS.index(asked) + 1]
        # several threads may learn the same lesson at once: never climb again
        if STRUCTURE_LEVELS.index(self._structured()) < STRUCTURE_LEVELS.index(below):
            self._remember("structured", below)

    def _structured(self) -> str:
        if self._config.structured != "auto":
            return self._config.structured
        return self._ability("structured") or STRUCTURE_LEVELS[0]

    def _ability(self, name: str) -> str | None:
        return self._ledger.ability(self.url, self.model, name)

    def _remember(self, name: str, value: str) -> None:
        self._ledger.remember_ability(self.url, self.model, name, value)


def endpoint_url(base: str | None) -> str:
    """The URL that is posted to, from the base URL of an API.

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
    if parts.username is not None or parts.password is not None:
        raise ConfigError("teacher.url holds credentials; put the key into the variable that teacher.api_key_env names")
    path = parts.path.rstrip("/")
    if not path.endswith("/chat/completions"):
        path += "/chat/completions"
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))


def read_key(variable: str | None) -> str | None:
    """Read the API key from the environment variable that the configuration names; None where it names none.

    Raises:
        ConfigError: The variable is not set, or holds what no key is.
    """
    if not variable:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ConfigError(
            f"the environment variable {variable} is not set; put the teacher's API key into it, or set "
            'teacher.api_key_env = "" for a teacher that needs none'
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(f"the environment variable {variable} holds characters that no API key has")
    return key
