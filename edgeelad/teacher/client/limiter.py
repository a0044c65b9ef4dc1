"""Limit how many requests are in flight and how fast they go out: adaptive concurrency, rates per minute, pauses.

Concurrency halves when the server throttles and grows by one per round of successes (additive increase,
multiplicative decrease). Knows no HTTP; clock and sleep are arguments, so tests need not wait.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgeelad.config import TeacherConfig
from edgeelad.teacher.ledger.exchange import Billing

WINDOW_S = 60.0


@dataclass(slots=True, eq=False)
class Entry:
    """One request that was admitted: when, and its expected tokens, replaced by the actual ones when it is done."""

    time: float
    prompt_tokens: float
    completion_tokens: float


class Window:
    """A sliding window that admits `limit` units per `length_s` seconds; `units` gives the units of an entry.

    An entry above the limit is admitted alone.
    """

    def __init__(self, limit: float, length_s: float, units: Callable[[Entry], float]) -> None:
        self.limit = limit
        self.length_s = length_s
        self._units = units
        self._entries: deque[Entry] = deque()

    def add(self, entry: Entry) -> None:
        """Count an entry."""
        self._entries.append(entry)

    def delay(self, entry: Entry) -> float:
        """Seconds from `entry.time` until it fits."""
        while self._entries and self._entries[0].time <= entry.time - self.length_s:
            self._entries.popleft()
        excess = sum(map(self._units, self._entries)) + self._units(entry) - self.limit
        delay = 0.0
        for earlier in self._entries:
            if excess <= 0:
                break
            excess -= self._units(earlier)
            delay = earlier.time + self.length_s - entry.time
        return delay


def windows_from_config(config: TeacherConfig) -> list[Window]:
    """The rate limits of a configuration."""
    windows = []
    if config.requests_per_minute is not None:
        # below one request per minute, the window is longer than a minute
        length_s = max(WINDOW_S, WINDOW_S / config.requests_per_minute)
        windows.append(Window(max(1.0, config.requests_per_minute), length_s, lambda entry: 1.0))
    if config.tokens_per_minute is not None:
        windows.append(
            Window(config.tokens_per_minute, WINDOW_S, lambda entry: entry.prompt_tokens + entry.completion_tokens)
        )
    if config.prompt_tokens_per_minute is not None:
        windows.append(Window(config.prompt_tokens_per_minute, WINDOW_S, lambda entry: entry.prompt_tokens))
    if config.completion_tokens_per_minute is not None:
        windows.append(Window(config.completion_tokens_per_minute, WINDOW_S, lambda entry: entry.completion_tokens))
    return windows


class Limiter:
    """Admits requests; every `enter` is followed by one `leave`. Thread-safe."""

    def __init__(
        self,
        max_concurrency: int,
        windows: Sequence[Window],
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._max_concurrency = max_concurrency
        self._clock = clock
        self._sleep = sleep
        self._free = threading.Condition()
        self._limit = float(max_concurrency)
        self._in_flight = 0
        self._not_before = float("-inf")
        self._last_throttled = float("-inf")
        self._windows = tuple(windows)

    @property
    def concurrency(self) -> int:
        """Maximum number of requests in flight now."""
        return max(1, int(self._limit))

    def enter(self, prompt_tokens: float, completion_tokens: float) -> Entry:
        """Wait until a request with these expected tokens is admitted."""
        while True:
            with self._free:
                while self._in_flight >= self.concurrency:
                    self._free.wait()
                entry = Entry(self._clock(), prompt_tokens, completion_tokens)
                delay = max([self._not_before - entry.time, *(window.delay(entry) for window in self._windows)])
                if delay <= 0:
                    self._in_flight += 1
                    for window in self._windows:
                        window.add(entry)
                    return entry
            self._sleep(delay)

    def leave(self, entry: Entry, billing: Billing | None) -> None:
        """Release a request's place; `billing` holds its actual tokens, None if they are not known."""
        with self._free:
            self._in_flight -= 1
            if billing is not None:
                entry.prompt_tokens = billing.prompt_tokens
                entry.completion_tokens = billing.completion_tokens
            self._free.notify_all()

    def succeeded(self) -> None:
        """Let concurrency recover after a reply."""
        with self._free:
            self._limit = min(float(self._max_concurrency), self._limit + 1.0 / self._limit)
            self._free.notify_all()

    def throttled(self, entry: Entry, retry_after_s: float | None) -> None:
        """Halve concurrency, once per burst of throttled requests, and admit nothing for `retry_after_s` seconds."""
        with self._free:
            now = self._clock()
            if entry.time >= self._last_throttled:
                self._limit = max(1.0, self._limit / 2)
                self._last_throttled = now
            if retry_after_s is not None:
                self._not_before = max(self._not_before, now + retry_after_s)
