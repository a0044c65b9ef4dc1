"""The command line; `main` is the program."""

from edgeelad.cli.commands import main

__all__ = ["main"]
