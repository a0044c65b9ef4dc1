"""What the stages tell of their progress: a stage has a name, a total and a count. Printing is the command line's."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any, Protocol, TypeVar

from edgeelad.records import TokenCounts

Item = TypeVar("Item")


class Progress(Protocol):
    """Receives progress; one stage is under way at a time."""

    def start(self, stage: str, total: int | None = None) -> None:
        """A stage begins, with `total` units of work (None: unknown)."""
        ...

    def update(self, done: int, note: str = "", total: int | None = None) -> None:
        """`done` units of the current stage are finished; `note` is a short figure to show.

        `total` gives the units of work where they were not known at the start.
        """
        ...

    def finish(self, note: str = "") -> None:
        """The current stage is over."""
        ...

    def say(self, message: str) -> None:
        """A line worth keeping on the screen."""
        ...

    def warn(self, message: str) -> None:
        """A warning: what is lost, and what to do."""
        ...


class Silent:
    """Shows nothing; keeps the warnings."""

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
    """Pass items through, counting them as units of the current stage."""
    for done, item in enumerate(items, start=1):
        yield item
        progress.update(done)


class Rate:
    """How fast a student works through questions, from now on."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._num_questions = 0
        self._tokens = TokenCounts()

    def add(self, tokens: TokenCounts) -> None:
        """A question is done, and took these tokens of the student's."""
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
        """The rates in a few words, to show beside a bar."""
        figures = self.figures()
        return f"{figures['questions_per_min']:,.0f} questions/min, {figures['tokens_per_s']:,.0f} tokens/s"

    def figures(self) -> dict[str, Any]:
        """Questions, tokens by kind, seconds; and the rates: questions a minute, generated tokens a second."""
        seconds = max(time.monotonic() - self._start, 1e-9)
        return {
            "new_questions": self._num_questions,
            "tokens": asdict(self._tokens),
            "seconds": round(seconds, 3),
            "questions_per_min": round(self._num_questions / seconds * 60, 1),
            "tokens_per_s": round(self._tokens.generated / seconds, 1),
        }
