"""Try an endpoint for nothing: is it there, does it take the key, does it know the model?

Asks for the list of models (`GET /models`), which no provider bills, and raises only what is certain: an endpoint
without such a list, or one that serves more than it lists, is taken as it is. Writes nothing.
"""

from __future__ import annotations

import difflib
import json
import time
import urllib.parse
from collections.abc import Callable
from typing import Any

from edgeelad.config import TeacherConfig
from edgeelad.errors import TeacherRefusedError, TeacherUnavailableError
from edgeelad.teacher.client import vocabulary as words
from edgeelad.teacher.client.api_error import read_error
from edgeelad.teacher.client.endpoint import check_settings, endpoint_url, open_transport
from edgeelad.teacher.client.refusals import Refused, judge
from edgeelad.teacher.client.transport import HttpReply, Lost, Transport

WAITS_S = (0.5, 1.5)
MAX_TIMEOUT_S = 20.0
CERTAIN = words.KEY_CODES | words.MODEL_CODES | words.MONEY_CODES


def probe(config: TeacherConfig, warn: Callable[[str], None], sleep: Callable[[float], None] = time.sleep) -> None:
    """Try the endpoint that a configuration names.

    Args:
        config: URL, key and model.
        warn: Called with what may be wrong.
        sleep: Waits between attempts to connect.

    Raises:
        ConfigError: URL, model or key are missing or malformed.
        TeacherUnavailableError: Nobody answers there.
        TeacherRefusedError: The key is refused, or the model or the URL is unknown.
    """
    check_settings(config)
    url = endpoint_url(config.url)
    timeout_s = min(config.read_timeout_s, MAX_TIMEOUT_S)
    transport = open_transport(config.model_copy(update={"read_timeout_s": timeout_s}), url)
    try:
        reply = _get(transport, _beside(url, "models"), sleep)
        if isinstance(reply, Lost):
            if reply.is_final:
                raise TeacherRefusedError(f"{url}: {reply.reason}")
            if not reply.was_sent:
                raise TeacherUnavailableError(f"{url} does not answer: {reply.reason}; check teacher.url")
            return
        _raise_what_is_certain(url, reply)
        known = _model_ids(reply)
        if known and not any(_is_model(config.model or "", name) for name in known):
            one = transport.get(_beside(url, f"models/{urllib.parse.quote(config.model or '')}"))
            _check_model(config, url, known, one, warn)
    finally:
        transport.close()


def _get(transport: Transport, url: str, sleep: Callable[[float], None]) -> HttpReply | Lost:
    for wait_s in WAITS_S:
        reply = transport.get(url)
        if isinstance(reply, HttpReply) or reply.is_final or reply.was_sent:
            return reply
        sleep(wait_s)
    return transport.get(url)


def _beside(url: str, name: str) -> str:
    """The URL of another route of the API."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit(parts._replace(path=f"{parts.path.removesuffix('/chat/completions')}/{name}"))


def _raise_what_is_certain(url: str, reply: HttpReply) -> None:
    error = read_error(reply.body)
    if reply.status == 200:
        is_certain = words.NO_SUCH_PLACE.search(error.text) is not None
    else:
        # a key that may chat, but not list models, is refused here for its scope
        is_certain = (reply.status == 401 and "scope" not in error.text) or bool(error.codes & CERTAIN)
    outcome = judge(reply.status, reply.headers, reply.body, time.time()) if is_certain else None
    if isinstance(outcome, Refused):
        raise TeacherRefusedError(f"{url} refused: {outcome.reason}")


def _model_ids(reply: HttpReply) -> list[str]:
    """The names in a list of models, in OpenAI's form; none if it is in another."""
    try:
        data: Any = json.loads(reply.body) if reply.status == 200 else None
    except (ValueError, RecursionError):
        return []
    items = data.get("data") if isinstance(data, dict) else data
    names = [item.get("id") for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    return [name for name in names if isinstance(name, str)]


def _is_model(wanted: str, listed: str) -> bool:
    """Whether a listed name is the wanted one, as far as aliases go: a prefix, a date, a variant after a colon."""
    wanted, listed = (name.lower().removeprefix("models/") for name in (wanted, listed))
    return listed.startswith(wanted) or wanted.partition(":")[0] == listed.partition(":")[0]


def _check_model(
    config: TeacherConfig, url: str, known: list[str], one: HttpReply | Lost, warn: Callable[[str], None]
) -> None:
    model = config.model or ""
    near = difflib.get_close_matches(model, known, n=1) or known[:3]
    message = f"{url} does not list the model {model}; it lists {', '.join(near)}{', …' if len(known) > 3 else ''}"
    if isinstance(one, HttpReply) and one.status == 404:
        error = read_error(one.body)
        if error.codes & words.MODEL_CODES or words.MODEL.search(error.text) or model.lower() in error.text:
            raise TeacherRefusedError(f"{message}; set teacher.model")
    if not (isinstance(one, HttpReply) and one.status == 200):
        warn(f"{message}; the run continues, for an endpoint may serve more than it lists")
