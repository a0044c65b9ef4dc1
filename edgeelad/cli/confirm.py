"""Ask before anything is sent that a file decided, and not the person at the keyboard.

A configuration or a run folder from somebody else can name any file as the pool, any environment variable as the key
and any host as the teacher. What is typed as an option needs no confirmation, nor does a teacher on this machine.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from edgeelad.cli.terminal import clean
from edgeelad.errors import UsageError

if TYPE_CHECKING:
    from edgeelad.config import TeacherConfig

YES = click.option("--yes", is_flag=True, help="Send what a file names to the host that it names, without asking.")


def confirm_sending(teacher: TeacherConfig, what: str, *, is_confirmed: bool) -> None:
    """Name what would be sent where, and with which secrets, and have it confirmed.

    Args:
        teacher: Who would get it.
        what: What would be sent.
        is_confirmed: By an option.

    Raises:
        UsageError: It is not confirmed, or nobody can be asked.
    """
    recipients = list(_recipients(teacher))
    if not recipients or is_confirmed:
        return
    message = clean(f"{what} would be sent to {' and '.join(recipients)}")
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(f"{message}; add --yes if that is what you want")
    if not click.confirm(f"{message}. Send it?", default=False, err=True):
        raise UsageError("not confirmed; nothing was sent")


def _recipients(teacher: TeacherConfig) -> Iterator[str]:
    """The hosts other than this machine, each with what it gets besides."""
    from urllib.parse import urlsplit

    from edgeelad.hosts import is_loopback
    from edgeelad.teacher.client.endpoint import endpoint_url

    if teacher.kind != "openai":
        return
    for config in (teacher, teacher.fallback):
        if config is None:
            continue
        parts = urlsplit(endpoint_url(config.url))
        if is_loopback(parts.hostname or ""):
            continue
        variables = [name for name in (config.api_key_env, *config.extra_headers_env.values()) if name]
        secrets = f" with the secret in {' and '.join(variables)}" if variables else " without a key"
        yield f"{parts.hostname}{', unencrypted,' if parts.scheme == 'http' else ''}{secrets}"
