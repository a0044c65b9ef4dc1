"""Write to the terminal: the only place where the program's output leaves it.

Data (a student's text, a package's name, a path, a server's message) may hold escape sequences that move the cursor,
set the window's title or hide text. Everything written here has its control characters removed first.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import Any, TextIO

# C0 without tab and newline, DEL, C1, and the marks that reorder text (Unicode bidirectional controls)
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def clean(text: str) -> str:
    r"""Remove control characters, keeping tabs and newlines.

    >>> clean("a\x1b[31mb")
    'a[31mb'
    """
    return CONTROLS.sub("", text)


def write(text: str, *, newline: bool = True) -> None:
    """Write a result to stdout."""
    _write(sys.stdout, clean(text), newline)


def write_error(text: str) -> None:
    """Write a line for people to stderr."""
    _write(sys.stderr, clean(text), newline=True)


def write_json(value: Any, *, indent: int | None = None) -> None:
    """Write a JSON value to stdout, with control characters as escapes: the value is unchanged."""
    from edgeelad.files import dump_json

    text = CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", dump_json(value, indent=indent))
    _write(sys.stdout, text, newline=True)


class LogHandler(logging.Handler):
    """Show edgeelad's log records on stderr, one line each."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        write_error(f"{record.levelname.lower()}: {' '.join(record.getMessage().split())}")


def _write(stream: TextIO, text: str, newline: bool) -> None:
    stream.write(text + ("\n" if newline else ""))
    stream.flush()
