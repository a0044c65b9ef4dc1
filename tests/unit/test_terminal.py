"""Nothing that is shown can drive the terminal: control characters are removed from all output, JSON is unchanged."""

import io
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from edgeelad.cli import terminal
from edgeelad.cli.show import TerminalProgress

HOSTILE = "a\x1b]0;title\x07b\x1b[2Jc\x9b31md\re\u202ef\x00g"
SAFE = "a]0;titleb[2Jc31mdefg"


def is_safe(text: str) -> bool:
    return all(char in "\t\n" or char.isprintable() or ord(char) > 0x9F for char in text) and "\u202e" not in text


@given(text=st.text(max_size=80))
def test_cleaning_removes_controls_and_nothing_else(text: str) -> None:
    cleaned = terminal.clean(text)
    assert is_safe(cleaned)
    assert terminal.clean(cleaned) == cleaned
    rest = iter(text)
    assert all(char in rest for char in cleaned)  # a subsequence
    assert all(not is_safe(char) or terminal.CONTROLS.match(char) for char in set(text) - set(cleaned))


@given(pieces=st.lists(st.text(st.sampled_from("a\x1b[31m\n\t\x9b"), max_size=5)))
def test_a_stream_is_cleaned_as_its_whole_text_is(pieces: list[str]) -> None:
    assert "".join(map(terminal.clean, pieces)) == terminal.clean("".join(pieces))


def test_results_errors_and_log_records_are_cleaned(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.write(HOSTILE)
    terminal.write_error(HOSTILE)
    terminal.LogHandler().emit(logging.LogRecord("edgeelad", logging.WARNING, "", 0, "%s: odd", (HOSTILE,), None))
    shown = capsys.readouterr()
    assert shown.out == SAFE + "\n"
    assert shown.err == f"{SAFE}\nwarning: {SAFE.replace('de', 'd e')}: odd\n"  # a carriage return is white space


@given(value=st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5))
def test_json_has_no_controls_and_the_same_value(value: object) -> None:
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        terminal.write_json(value, indent=2)
    assert is_safe(out.getvalue())
    assert json.loads(out.getvalue()) == value


@pytest.mark.parametrize(
    "tell",
    [
        lambda progress: progress.say(HOSTILE),
        lambda progress: progress.warn(HOSTILE),
        lambda progress: (progress.start(HOSTILE), progress.finish(HOSTILE)),
        lambda progress: (progress.start("x", 2), progress.update(1, HOSTILE), progress.finish()),
    ],
)
@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress_is_cleaned(tell: Callable[[TerminalProgress], object], is_terminal: bool) -> None:
    out = io.StringIO()
    progress = TerminalProgress(Console(file=out, width=200, force_terminal=is_terminal, color_system=None))
    tell(progress)
    progress.close()
    shown = out.getvalue()
    for sequence in ("\x1b]0;", "\x07", "\x1b[2Jc", "\x9b", "\u202e", "\x00"):
        assert sequence not in shown


def test_a_hostile_path_in_an_error_is_harmless(tmp_path: Path) -> None:
    path = tmp_path / "a\x1b]0;owned\x07.toml"
    done = subprocess.run([sys.executable, "-m", "edgeelad", "distill", str(path)], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == f"edgeelad: {tmp_path}/a]0;owned.toml: no such configuration file\n"
