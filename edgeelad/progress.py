"""What the stages tell of their progress: a stage has a name, a total and a count. Printing is the command line's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

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
