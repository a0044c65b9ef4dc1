"""Report the progress of long work, stage by stage. Who receives it decides how it is shown."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any, Protocol, TypeVar

from edgeelad.records import TokenCounts

Item = TypeVar("Item")


class Progress(Protocol):
    """Receives progress, one stage at a time."""

    def start(self, stage: str, total: int | None = None) -> None:
        """A stage starts, with `total` units of work (None: unknown)."""
        ...

    def update(self, done: int, note: str = "", total: int | None = None) -> None:
        """`done` units of the stage are finished; `note` is a short figure to show.

        `total` is the number of units, if it was unknown at the start.
        """
        ...

    def finish(self, note: str = "") -> None:
        """The stage has ended; `note` is its result in a few words."""
        ...

    def say(self, message: str) -> None:
        """A line for the user."""
        ...

    def warn(self, message: str) -> None:
        """A warning: what is lost, and what to do."""
        ...


class Silent:
    """Discard progress and keep the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def start(self, stage: str, total: int | None = None) -> None:
        """See Progress."""

    def update(self, done: int, note: str = "", total: int | None = None) -> None:
        """See Progress."""

    def finish(self, note: str = "") -> None:
        """See Progress."""

    def say(self, message: str) -> None:
        """See Progress."""

    def warn(self, message: str) -> None:
        """See Progress."""
        self.warnings.append(message)


def track(items: Iterable[Item], progress: Progress) -> Iterator[Item]:
    """Pass items through and count them as finished units of the stage."""
    for done, item in enumerate(items, start=1):
        yield item
        progress.update(done)


class Rate:
    """Measure how fast a student processes questions, from now on."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._num_questions = 0
        self._tokens = TokenCounts()

    def add(self, tokens: TokenCounts) -> None:
        """Count a finished question and the student tokens that it took."""
        before = self._tokens
        self._num_questions += 1
        self._tokens = TokenCounts(
            before.prompt + tokens.prompt,
            before.explanation + tokens.explanation,
            before.branch + tokens.branch,
            before.probe + tokens.probe,
        )

    @property
    def note(self) -> str:
        """The rates in a few words, for a progress bar."""
        figures = self.figures()
        return f"{figures['questions_per_min']:,.0f} questions/min, {figures['tokens_per_s']:,.0f} tokens/s"

    def figures(self) -> dict[str, Any]:
        """Questions, tokens by kind, seconds; and the rates: questions per minute, generated tokens per second."""
        seconds = max(time.monotonic() - self._start, 1e-9)
        return {
            "new_questions": self._num_questions,
            "tokens": asdict(self._tokens),
            "seconds": round(seconds, 3),
            "questions_per_min": round(self._num_questions / seconds * 60, 1),
            "tokens_per_s": round(self._tokens.generated / seconds, 1),
        }
