"""What a long stage tells where stderr is no terminal."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from edgeelad.cli import show
from edgeelad.cli.show import TerminalProgress


def test_a_long_stage_tells_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(show, "time", clock)
    out = io.StringIO()
    progress = TerminalProgress(Console(file=out, width=200))
    progress.start("Scoring", 1000)
    for done, clock.now in ((10, 30.0), (25, 61.0), (30, 90.0), (100, 122.0)):
        progress.update(done, "50 questions/min")
    progress.finish()
    progress.start("Reading", None)
    clock.now = 300.0
    progress.update(70)
    assert [line.strip() for line in out.getvalue().splitlines()] == [
        "Scoring: 25 of 1,000, 0:39:39 left, 50 questions/min",
        "Scoring: 100 of 1,000, 0:18:18 left, 50 questions/min",
        "✓ Scoring (122.0 s)",
        "Reading: 70",
    ]
