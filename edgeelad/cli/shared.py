"""What the commands share: options, the record that a command receives them in, progress, and how a command fails."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from edgeelad.cli.terminal import write_error

if TYPE_CHECKING:
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
