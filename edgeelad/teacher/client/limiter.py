"""How many requests go out at once and how fast: adaptive concurrency, windows a minute, pauses that a server asks for.

Concurrency halves when the server says "too many" and grows by one a round of successes (additive increase,
multiplicative decrease). Knows no HTTP; the clock and the sleep are given, so tests need not wait.
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
    """One request that was let through: when, and the tokens that it was expected to take (then: took)."""

    time: float
    prompt_tokens: float
    completion_tokens: float


class Window:
    """A sliding window: at most `limit` units within `length_s` seconds, `units` telling an entry's.

    An entry larger than the limit goes alone.
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
    """The windows a minute that a configuration sets."""
    windows = []
    if config.requests_per_minute is not None:
        # below one a minute, the window is as long as one request takes
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
    """Lets requests through; every `enter` is followed by one `leave`."""

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
        """How many requests may be in flight now."""
        return max(1, int(self._limit))

    def enter(self, prompt_tokens: float, completion_tokens: float) -> Entry:
        """Wait until a request of about so many tokens may go."""
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
        """A request is done; `billing` says what it took, None where that is not known."""
        with self._free:
            self._in_flight -= 1
            if billing is not None:
                entry.prompt_tokens = billing.prompt_tokens
                entry.completion_tokens = billing.completion_tokens
            self._free.notify_all()

    def succeeded(self) -> None:
        """A reply came: let concurrency recover."""
        with self._free:
            self._limit = min(float(self._max_concurrency), self._limit + 1.0 / self._limit)
            self._free.notify_all()

    def throttled(self, entry: Entry, retry_after_s: float | None) -> None:
        """The server said "too many": halve concurrency once a burst, and let nothing out before `retry_after_s`."""
        with self._free:
            now = self._clock()
            if entry.time >= self._last_throttled:
                self._limit = max(1.0, self._limit / 2)
                self._last_throttled = now
            if retry_after_s is not None:
                self._not_before = max(self._not_before, now + retry_after_s)
