"""Show progress bars and the table of rounds on stderr.

If stderr is not a terminal, each finished stage is a line instead, and a long stage writes one per minute.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import timedelta

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape as escape_markup
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.table import Table

from edgeelad.certificate import upper_bound
from edgeelad.cli.terminal import clean
from edgeelad.records import TeacherUsage
from edgeelad.run.records import RoundMetrics, Summary

TELL_S = 60.0


def escape(text: str) -> str:
    """Data as it can be put into rich markup: no control characters, no markup of its own."""
    return escape_markup(clean(text))


class TerminalProgress:
    """Progress on a rich console: one bar at a time, finished stages leave a line."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars: Bars | None = None
        self._task: TaskID | None = None
        self._stage = ""
        self._started = self._told = 0.0
        self._total: int | None = None

    def start(self, stage: str, total: int | None = None) -> None:
        """See `progress.Progress`."""
        self._stop_bars()
        self._stage, self._total, self._started = stage, total, time.monotonic()
        self._told = self._started
        if not self.console.is_terminal:
            return
        self._bars = Bars(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[note]}"),
            console=self.console,
            transient=True,
        )
        self._task = self._bars.add_task(escape(stage), total=total, note="")
        self._bars.start()

    def update(self, done: int, note: str = "", total: int | None = None) -> None:
        """See `progress.Progress`."""
        self._total = total if total is not None else self._total
        if self._bars is None:
            self._tell(done, note)
        elif self._task is not None:
            if total is not None:
                self._bars.update(self._task, total=total)
            self._bars.update(self._task, completed=done, note=escape(note))

    def _tell(self, done: int, note: str) -> None:
        """Without bars, write a line now and then: how far, how fast, how long it will take."""
        now = time.monotonic()
        if now - self._told < TELL_S:
            return
        self._told = now
        parts = [f"{done:,}" if self._total is None else f"{done:,} of {self._total:,}"]
        if self._total is not None and done:
            seconds = round((self._total - done) * (now - self._started) / done)
            parts.append(f"{timedelta(seconds=seconds)} left")
        self.console.print(escape(f"  {self._stage}: {', '.join([*parts, *filter(None, [note])])}"), highlight=False)

    def finish(self, note: str = "") -> None:
        """See `progress.Progress`."""
        self._stop_bars()
        seconds = time.monotonic() - self._started
        ending = f"  [dim]{escape(note)}" if note else ""
        self.console.print(f"[green]✓[/] {escape(self._stage)} [dim]({seconds:.1f} s)[/]{ending}", highlight=False)

    def say(self, message: str) -> None:
        """See `progress.Progress`."""
        self.console.print(escape(message), highlight=False)

    def warn(self, message: str) -> None:
        """See `progress.Progress`."""
        self.console.print(f"[yellow]warning:[/] {escape(message)}", highlight=False)

    def _stop_bars(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._stop_bars()


def rounds_table(rows: Iterable[RoundMetrics], summary: Summary) -> Table:
    """The table of rounds; fits a terminal of 80 columns.

    The last line is the run's total, if a round that taught nothing came after the last student.
    """
    rows = list(rows)
    is_priced = any(row.teacher.cost_usd is not None for row in rows)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=0)
    quantized = next((row.shipping for row in reversed(rows) if row.shipping != "fp32"), "int8")
    names = ["round", "annotated", "accuracy", quantized, "agree", "differ ≤", "requests", "tokens"]
    for name in [*names, *(["cost"] if is_priced else []), "s"]:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        counts, look, teacher = row.agreement, row.certificate, row.teacher
        cells = [
            str(row.round or "base"),
            str(row.annotated),
            _share(row.accuracy),
            _share(row.package_accuracy),
            f"{counts.num_audited - counts.num_disagreements}/{counts.num_audited}" if counts else "–",
            upper_bound(look) if look else "–",
            *_bought(teacher, is_priced),
        ]
        table.add_row(*cells, f"{sum(row.seconds.values()):.0f}")
    if rows and rows[-1].teacher != summary.teacher:
        seconds = f"{sum(summary.seconds.values()):.0f}"
        table.add_row("total", str(summary.annotated), "", "", "", "", *_bought(summary.teacher, is_priced), seconds)
    return table


def _bought(teacher: TeacherUsage, is_priced: bool) -> list[str]:
    """Requests, tokens and, if prices are known, cost."""
    tokens = f"{teacher.about}{teacher.prompt_tokens + teacher.completion_tokens:,}"
    return [f"{teacher.requests:,}", tokens, *([f"{teacher.about}${teacher.cost_usd or 0:.4f}"] if is_priced else [])]


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
