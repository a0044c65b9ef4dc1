"""The program `edgeelad`: its commands, and how it ends.

Commands are thin: read options, call one function, write what it returns. Results and produced paths go to stdout;
progress, tables and warnings to stderr. Exit codes: 0 done; 1 an error of ours, one line; 2 wrong usage or
configuration; 3 stopped by a budget; 130 interrupted (everything is kept in both).
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import sys

import click

import edgeelad
from edgeelad.cli.shared import fail
from edgeelad.cli.terminal import LogHandler, write_error
from edgeelad.errors import EdgeeladError

# module and name of each command
COMMANDS = {
    "annotations": ("ledger", "annotations_group"),
    "config": ("config", "config"),
    "distill": ("distill", "distill"),
    "eval": ("score", "evaluate"),
    "export": ("distill", "export"),
    "ledger": ("ledger", "ledger_group"),
    "push": ("student", "push"),
    "report": ("distill", "report"),
    "run": ("student", "run"),
    "score": ("score", "score"),
    "serve": ("serve", "serve"),
    "teacher": ("teacher", "teacher_group"),
    "verify": ("student", "verify"),
}


class Commands(click.Group):
    """A group whose commands are imported when they are used: a device's first token need not wait for the others."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command; None if there is none of this name."""
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(f"edgeelad.cli.{module}"), name)
        return command


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(edgeelad.__version__, prog_name="edgeelad")
def cli() -> None:
    """Distill an LLM's reasoning into a small ONNX student, asking the teacher only what the student is unsure of."""


def main() -> None:
    """Run the command line; an error of ours is one line on stderr and an exit code."""
    with contextlib.suppress(AttributeError, ValueError):  # a pipe or a test's stream may refuse
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # read when huggingface_hub is imported
    logging.getLogger("edgeelad").addHandler(LogHandler())
    try:
        code = cli.main(standalone_mode=False)
    except EdgeeladError as error:
        fail(str(error), error.exit_code)
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(shown)
        write_error(shown.getvalue().rstrip("\n"))
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        fail("interrupted; everything finished so far is kept", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at exit
        sys.exit(0)
    sys.exit(code if isinstance(code, int) else 0)
