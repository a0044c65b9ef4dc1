"""What a long stage tells where stderr is no terminal."""

import io
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from fixtures.report_run import make_run
from rich.console import Console

from edgeelad.cli import show
from edgeelad.cli.show import TerminalProgress
from edgeelad.run.folder import RunFolder


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


def test_the_table_of_rounds_ends_with_what_the_ledger_holds(tmp_path: Path) -> None:
    folder = RunFolder(make_run(tmp_path / "run", num_rounds=1, batch=20, pool=50))
    out, summary = io.StringIO(), folder.summary.read()
    screen = Console(file=out, width=80)
    screen.print(show.rounds_table(folder.metrics.read(), summary))
    assert "total" not in out.getvalue()
    more = replace(summary, teacher=replace(summary.teacher, requests=99, cost_usd=0.1933), annotated=17)
    screen.print(show.rounds_table(folder.metrics.read(), more))
    (total,) = (line.split() for line in out.getvalue().splitlines() if "total" in line)
    assert total[:3] == ["total", "17", "99"]
    assert total[-2] == "$0.1933"
