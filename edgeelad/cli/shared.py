"""What the commands share: options, the record that a command receives them in, progress, and how a command fails."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from edgeelad.cli.terminal import write_error

if TYPE_CHECKING:
    from edgeelad.config import PoolConfig, RunConfig
    from edgeelad.progress import Progress

Options = TypeVar("Options")
Result = TypeVar("Result")

PATH = click.Path(path_type=Path)
ANSWER_KINDS = ("auto", "number", "choice", "boolean", "text")
SET = click.option(
    "--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Set a configuration key. Repeatable."
)
SEED = click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Random seed.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
QUIET = click.option("--quiet", is_flag=True, help="Show no progress.")
POOL_OPTIONS = (
    click.option("--format", help="File type, or public dataset such as gsm8k; default: recognized."),
    click.option("--kind", type=click.Choice(ANSWER_KINDS), help="Answer type; default: told by the answers."),
    click.option("--split", help="Split of a Hugging Face dataset; default: train."),
    click.option(
        "--question-field",
        "question_fields",
        metavar="NAME",
        multiple=True,
        help="Field of the question. Repeatable: fields are joined in order, such as passage, then question.",
    ),
    click.option(
        "--question-template",
        metavar="TEXT",
        callback=lambda _context, _option, value: value.replace("\\n", "\n") if value else None,
        help=r"Question as text with fields in braces, such as '{passage}\n\nQ: {question}'.",
    ),
    click.option("--answer-field", metavar="NAME", help="Field of the reference answer; default: answer."),
    click.option("--choices-field", metavar="NAME", help="Field of the choices; default: choices, options, A, B, …."),
    click.option("--explanation-field", metavar="NAME", help="Field of the explanation; default: explanation."),
)


def config_with_teacher(path: Path | None, overrides: Sequence[str], **given: str | float | None) -> RunConfig:
    """The configuration in a file, or the default one, with options under [teacher] and what `--set` sets.

    Args:
        path: The file; None: the default configuration.
        overrides: As `section.key=value`; they win.
        given: Options by their keys under [teacher]; None: not given.

    Raises:
        ConfigError: A value or the file cannot be used.
    """
    from edgeelad.config import load_config, make_config

    named = (f"teacher.{key}={json.dumps(value)}" for key, value in given.items() if value is not None)
    settings = (*named, *overrides)
    return load_config(path, settings) if path else make_config({}, settings, "command line")


def takes(record: Callable[..., Options]) -> Callable[[Callable[[Options], Result]], Callable[..., Result]]:
    """Give a command its options as one record, whose fields have the options' names.

    Args:
        record: A dataclass.
    """

    def decorate(command: Callable[[Options], Result]) -> Callable[..., Result]:
        @functools.wraps(command)
        def call(**given: Any) -> Result:
            return command(record(**given))

        return call

    return decorate


@dataclasses.dataclass(frozen=True, slots=True)
class PoolOptions:
    """How a pool is read, as given on the command line; None: not given. The names are those of `PoolConfig`."""

    format: str | None = None
    kind: str | None = None
    split: str | None = None
    question_fields: tuple[str, ...] | None = None
    question_template: str | None = None
    answer_field: str | None = None
    choices_field: str | None = None
    explanation_field: str | None = None

    @property
    def flags(self) -> list[str]:
        """The options given, as typed."""
        return [f"--{name.removesuffix('s').replace('_', '-')}" for name in given_options(self)]

    def config(self, path: str, limit: int | None = None) -> PoolConfig:
        """The pool at a path, read in this way.

        Raises:
            ConfigError: Options that exclude each other.
        """
        from edgeelad.config import make_config

        data = {"path": path, "limit": limit, **given_options(self)}
        return make_config({"pool": data}, source="command line").pool


def reads_pool(command: Callable[..., Result]) -> Callable[..., Result]:
    """Add the options that say how a pool is read; the command gets them as one record, `reading`."""

    @functools.wraps(command)
    def call(**given: Any) -> Result:
        names = [field.name for field in dataclasses.fields(PoolOptions)]
        return command(reading=PoolOptions(**{name: given.pop(name) or None for name in names}), **given)

    for option in reversed(POOL_OPTIONS):
        call = option(call)
    return call


def given_options(options: Any) -> dict[str, Any]:
    """The options of a record that are not None."""
    pairs = ((field.name, getattr(options, field.name)) for field in dataclasses.fields(options))
    return {name: value for name, value in pairs if value is not None}


def fail(message: str, code: int) -> NoReturn:
    """Write one line to stderr and exit."""
    write_error(f"edgeelad: {' '.join(message.split())}")
    sys.exit(code)


@contextlib.contextmanager
def progress_shown(quiet: bool) -> Iterator[Progress]:
    """Progress on stderr, or none."""
    if quiet:
        from edgeelad.progress import Silent

        yield Silent()
        return
    from rich.console import Console

    from edgeelad.cli.show import TerminalProgress

    shown = TerminalProgress(Console(stderr=True))
    try:
        yield shown
    finally:
        shown.close()
