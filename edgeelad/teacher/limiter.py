"""How many requests go out at once and how fast: adaptive concurrency, windows a minute, pauses that a server asks for.

Concurrency halves when the server says "too many" and grows by one a round of successes (additive increase,
multiplicative decrease). Knows no HTTP; the clock and the sleep are given, so tests need not wait.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

WINDOW_S = 60.0


@dataclass(slots=True, eq=False)
class Entry:
    """One request that was let through: when, and how many tokens it was expected to take (then: took)."""

    time: float
    tokens: float


class Window:
    """A sliding window: at most `limit` requests (or tokens) within `length_s` seconds.

    An entry larger than the limit goes alone.
    """

    def __init__(self, limit: float, length_s: float, counts_tokens: bool) -> None:
        self.limit = limit
        self.length_s = length_s
        self.counts_tokens = counts_tokens
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

    def _units(self, entry: Entry) -> float:
        return entry.tokens if self.counts_tokens else 1.0


class Limiter:
    """Lets requests through; every `enter` is followed by one `leave`."""

    def __init__(
        self,
        max_concurrency: int,
        requests_per_minute: float | None,
        tokens_per_minute: float | None,
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
        self._windows: list[Window] = []
        if requests_per_minute is not None:
            # below one a minute, the window is as long as one request takes
            length_s = max(WINDOW_S, WINDOW_S / requests_per_minute)
            self._windows.append(Window(max(1.0, requests_per_minute), length_s, counts_tokens=False))
        if tokens_per_minute is not None:
            self._windows.append(Window(tokens_per_minute, WINDOW_S, counts_tokens=True))

    @property
    def concurrency(self) -> int:
        """How many requests may be in flight now."""
        return max(1, int(self._limit))

    def enter(self, tokens: float) -> Entry:
        """Wait until a request of about `tokens` tokens may go."""
        while True:
            with self._free:
                while self._in_flight >= self.concurrency:
                    self._free.wait()
                entry = Entry(self._clock(), tokens)
                delay = max([self._not_before - entry.time, *(window.delay(entry) for window in self._windows)])
                if delay <= 0:
                    self._in_flight += 1
                    for window in self._windows:
                        window.add(entry)
                    return entry
            self._sleep(delay)

    def leave(self, entry: Entry, tokens: float | None) -> None:
        """A request is done; `tokens` are what it took, None where that is not known."""
        with self._free:
            self._in_flight -= 1
            if tokens is not None:
                entry.tokens = tokens
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
