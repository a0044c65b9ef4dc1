"""`edgeelad serve`: a package over HTTP."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeelad.cli.confirm import YES, confirm_sending
from edgeelad.cli.shared import PATH, SET, config_with_teacher, takes
from edgeelad.cli.terminal import write, write_error
from edgeelad.edge.limits import MAX_BODY_MIB, MAX_RUNNING, MAX_WAITING
from edgeelad.errors import UsageError

if TYPE_CHECKING:
    from edgeelad.config import TeacherConfig
    from edgeelad.edge.escalation import Escalation

# seconds that a client waits for a teacher that is down or slow, while the student's answer is there
MAX_WAITS_S = {"max_retry_s": 15.0, "read_timeout_s": 60.0}
CAPS = ("max_usd", "max_requests", "max_prompt_tokens", "max_completion_tokens_total", "max_questions")


@dataclass(frozen=True, slots=True)
class ServeCommand:
    """What `edgeelad serve` was given; None: not given."""

    package: Path
    host: str
    port: int
    threads: int | None
    allowed_hosts: tuple[str, ...]
    cors_origins: tuple[str, ...]
    api_key_env: str | None
    max_concurrent: int
    max_queue: int
    max_tokens: int | None
    max_body: str
    kv_memory: str | None
    escalate_below: float | None
    teacher_url: str | None
    teacher_model: str | None
    budget_usd: float | None
    config_path: Path | None
    overrides: tuple[str, ...]
    ledger: Path
    escalated_log: Path | None
    yes: bool


@click.command()
@click.argument("package", type=PATH)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="Port; 0: any free one.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads of the ONNX session; default: one per core.")
@click.option("--allow-host", "allowed_hosts", multiple=True, metavar="NAME", help="Host or Origin name to accept.")
@click.option(
    "--cors-origin",
    "cors_origins",
    multiple=True,
    metavar="ORIGIN",
    help="Origin whose pages may use the server, such as https://app.example; default: none. Repeatable.",
)
@click.option("--api-key-env", metavar="NAME", help="Environment variable with the key that clients must send.")
@click.option(
    "--max-concurrent",
    default=MAX_RUNNING,
    show_default=True,
    type=click.IntRange(1, 256),
    help="Maximum explanations that run together.",
)
@click.option(
    "--max-queue",
    default=MAX_WAITING,
    show_default=True,
    type=click.IntRange(min=0),
    help="Maximum explanations that wait; more requests get 503.",
)
@click.option("--max-tokens", type=click.IntRange(min=1), help="Maximum tokens per explanation; default: the context.")
@click.option(
    "--max-body", default=f"{MAX_BODY_MIB}MiB", show_default=True, metavar="SIZE", help="Maximum size of a request."
)
@click.option("--kv-memory", metavar="SIZE", help="Maximum KV cache; default: half of the free memory, up to 1.5GiB.")
@click.option(
    "--escalate-below",
    type=click.FloatRange(0.0, 1.0, min_open=True),
    metavar="PROBABILITY",
    help="Ask the teacher if the student is right with less than this probability; default: never.",
)
@click.option("--teacher-url", help="Base URL of an OpenAI-compatible API.")
@click.option("--teacher-model", help="Name of the teacher model.")
@click.option("--budget-usd", type=float, help="Maximum cost in dollars; needs the prices under [teacher].")
@click.option("--config", "config_path", type=PATH, help="Configuration file of a run; its [teacher] section is used.")
@SET
@click.option(
    "--ledger", type=PATH, default=Path("serve.sqlite"), show_default=True, help="Ledger that keeps the replies."
)
@click.option("--escalated-log", type=PATH, help="File for the teacher's questions and answers: a pool (JSON lines).")
@YES
@takes(ServeCommand)
def serve(options: ServeCommand) -> None:
    """Serve a package over HTTP with OpenAI's API, by default on loopback."""
    from edgeelad.cli.sizes import parse_size
    from edgeelad.edge.serve import ServeOptions, serve_package

    served = ServeOptions(
        options.host,
        options.port,
        options.threads,
        options.allowed_hosts,
        options.cors_origins,
        _api_key(options.api_key_env),
        options.max_concurrent,
        options.max_queue,
        options.max_tokens,
        parse_size(options.max_body, "--max-body"),
        None if options.kv_memory is None else parse_size(options.kv_memory, "--kv-memory"),
    )
    with _escalation(options) as escalation:
        serve_package(options.package, served, write, escalation)


def _api_key(name: str | None) -> str | None:
    key = None if name is None else os.environ.get(name, "").strip()
    if key == "":
        raise UsageError(f"--api-key-env {name}: the environment variable is not set; set it to the key")
    return key


@contextmanager
def _escalation(options: ServeCommand) -> Iterator[Escalation | None]:
    """Open the teacher that unsure questions go to, or nothing."""
    if options.escalate_below is None:
        if options.escalated_log is not None:
            raise UsageError("--escalated-log needs --escalate-below: without it, no question goes to the teacher")
        yield None
        return
    from edgeelad.edge.escalation import EscalatedLog, Escalation
    from edgeelad.launch import require
    from edgeelad.teacher import open_teacher

    config = _teacher_config(options)
    require("teacher", "edgeelad serve --escalate-below")
    if options.config_path is not None:
        confirm_sending(config, "Questions of clients", is_confirmed=options.yes)
    log = None if options.escalated_log is None else EscalatedLog(options.escalated_log)
    try:
        with open_teacher(config, options.ledger, {}, run="serve", say=write_error) as teacher:
            yield Escalation(teacher, options.escalate_below, log)
    finally:
        if log is not None:
            log.close()


def _teacher_config(options: ServeCommand) -> TeacherConfig:
    """The teacher's configuration, without batches: a client waits, and less long than a run.

    Only `--set` exceeds `MAX_WAITS_S`, since a run's file states all its values.

    Raises:
        UsageError: It has no cap: what clients may spend must be limited.
    """
    from edgeelad.config import parse_override

    config = config_with_teacher(
        options.config_path,
        options.overrides,
        url=options.teacher_url,
        model=options.teacher_model,
        max_usd=options.budget_usd,
    ).teacher
    if all(getattr(config, name) is None for name in CAPS):
        raise UsageError(
            "--escalate-below lets clients spend money; limit it with --budget-usd, or for example "
            "--set teacher.max_requests=1000"
        )
    set_keys = {parse_override(override)[:2] for override in options.overrides}
    waits = {name: s for name, s in MAX_WAITS_S.items() if ("teacher", name) not in set_keys}
    changes = {name: min(getattr(config, name), s) for name, s in waits.items()}
    return config.model_copy(update={"batch": False, **changes})  # the batch discount is not applied then
