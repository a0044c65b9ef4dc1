"""What a long call reports while it runs, as records: a stage starts, advances and ends; messages and warnings."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

_log = logging.getLogger("edgeelad")


@dataclass(frozen=True, slots=True)
class StageStarted:
    """A stage starts, with `total` units of work (None: unknown)."""

    stage: str
    total: int | None = None


@dataclass(frozen=True, slots=True)
class StageAdvanced:
    """`done` of `total` units of a stage are finished; `note` is a figure to show, such as a rate or a loss."""

    stage: str
    done: int
    total: int | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class StageEnded:
    """A stage has ended, after `seconds`; `note` is its result in a few words."""

    stage: str
    seconds: float
    note: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """A line for the user."""

    text: str


@dataclass(frozen=True, slots=True)
class Warned:
    """A warning: what is lost, and what to do."""

    text: str


Event = StageStarted | StageAdvanced | StageEnded | Message | Warned
OnEvent = Callable[[Event], None]


class EventProgress:
    """A `progress.Progress` that reports events.

    Args:
        on_event: Receives the events; without it warnings are logged (logger "edgeelad"), the rest is dropped.
    """

    def __init__(self, on_event: OnEvent | None = None) -> None:
        self._on_event = on_event or _log_warnings
        self._stage = ""
        self._total: int | None = None
        self._started = 0.0

    def start(self, stage: str, total: int | None = None) -> None:
        """See `progress.Progress`."""
        self._stage, self._total, self._started = stage, total, time.monotonic()
        self._on_event(StageStarted(stage, total))

    def update(self, done: int, note: str = "", total: int | None = None) -> None:
        """See `progress.Progress`."""
        self._total = total if total is not None else self._total
        self._on_event(StageAdvanced(self._stage, done, self._total, note))

    def finish(self, note: str = "") -> None:
        """See `progress.Progress`."""
        self._on_event(StageEnded(self._stage, time.monotonic() - self._started, note))

    def say(self, message: str) -> None:
        """See `progress.Progress`."""
        self._on_event(Message(message))

    def warn(self, message: str) -> None:
        """See `progress.Progress`."""
        self._on_event(Warned(message))


def _log_warnings(event: Event) -> None:
    if isinstance(event, Warned):
        _log.warning("%s", event.text)
