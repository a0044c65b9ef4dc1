"""End a stream of text before the first of several stop texts, holding back no more than could begin one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def cut_at_stops(pieces: Iterator[str], stops: Sequence[str]) -> Iterator[str]:
    """Pass pieces of text on until one of `stops` is complete; the stop text itself is not passed on.

    Of several stops the one that is complete first counts, and of those the longest. Pieces are taken one at a time
    and only as far as needed.

    >>> list(cut_at_stops(iter(["2 + 3", " = 5\\n", "The end"]), ["\\nThe"]))
    ['2 + 3', ' = 5']
    """
    held = ""
    for piece in pieces:
        held += piece
        places = ((held.find(stop), len(stop)) for stop in stops)
        found = [(start + length, start) for start, length in places if start >= 0]
        if found:
            _, start = min(found)
            if start:
                yield held[:start]
            return
        keep = _possible_start(held, stops)
        ready, held = held[: len(held) - keep], held[len(held) - keep :]
        if ready:
            yield ready
    if held:
        yield held


def _possible_start(text: str, stops: Sequence[str]) -> int:
    """How many characters at the end of `text` may be the beginning of a stop."""
    longest = max((len(stop) - 1 for stop in stops), default=0)
    for length in range(min(longest, len(text)), 0, -1):
        if any(stop.startswith(text[-length:]) for stop in stops):
            return length
    return 0
