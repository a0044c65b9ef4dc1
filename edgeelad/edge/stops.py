"""End a stream of text before the first of several stop texts, holding back no more than could begin one."""

from __future__ import annotations

from collections.abc import Sequence


class StopCutter:
    """Passes pieces of text on until one of several stop texts is complete; the stop text itself is not passed on.

    Of several stops the one that is complete first counts, and of those the longest.

    >>> cutter = StopCutter(["\\nThe"])
    >>> [cutter.push(piece) for piece in ("2 + 3", " = 5\\n", "The end")], cutter.is_stopped
    (['2 + 3', ' = 5', ''], True)

    Attributes:
        is_stopped: Whether a stop text is complete.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self.is_stopped = False
        self._stops = stops
        self._held = ""

    def push(self, piece: str) -> str:
        """Take the next piece; returns the text that can be passed on."""
        self._held += piece
        places = ((self._held.find(stop), len(stop)) for stop in self._stops)
        found = [(start + length, start) for start, length in places if start >= 0]
        if found:
            self.is_stopped = True
            return self._pass(min(found)[1])
        return self._pass(len(self._held) - self._num_possible())

    def flush(self) -> str:
        """What was held back, after the last piece; empty if a stop text is complete."""
        return "" if self.is_stopped else self._pass(len(self._held))

    def _pass(self, end: int) -> str:
        ready, self._held = self._held[:end], self._held[end:]
        return ready

    def _num_possible(self) -> int:
        """How many characters at the end of the held text may be the beginning of a stop."""
        longest = max((len(stop) - 1 for stop in self._stops), default=0)
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stops):
                return length
        return 0
