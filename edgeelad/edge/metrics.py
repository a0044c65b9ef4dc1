"""Count what a server does, and write it in Prometheus's text format.

Used from the event loop alone. The format is so simple that a client library would be the larger part.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
COUNTERS = {
    "requests_total": "Requests by path and status; 499: the client left before the response.",
    "prompt_tokens_total": "Tokens of prompts.",
    "generated_tokens_total": "Tokens generated.",
    "escalated_total": "Questions handed to the teacher, by outcome.",
}
HISTOGRAMS = {
    "queue_seconds": "Seconds from a request to its first token.",
    "generation_seconds": "Seconds from a request to the end of its generation.",
}
GAUGES = {"running": "Explanations that run.", "waiting": "Explanations that wait.", "max_running": "Maximum that run."}


class Metrics:
    """The figures of one server."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[str, float]] = {name: {} for name in COUNTERS}
        self._buckets: dict[str, list[int]] = {name: [0] * (len(BUCKETS_S) + 1) for name in HISTOGRAMS}
        self._sums: dict[str, float] = defaultdict(float)

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter; label values are the program's own words."""
        shown = ",".join(f'{key}="{value}"' for key, value in labels.items())
        series = f"{{{shown}}}" if shown else ""
        self._counts[name][series] = self._counts[name].get(series, 0) + amount

    def observe(self, name: str, seconds: float) -> None:
        """Add a value to a histogram."""
        self._buckets[name][bisect_left(BUCKETS_S, seconds)] += 1
        self._sums[name] += seconds

    def text(self, gauges: Mapping[str, float]) -> str:
        """All figures, with the current values of `GAUGES`."""
        lines = []
        for name, about in COUNTERS.items():
            lines += _head(name, about, "counter")
            lines += [f"edgeelad_{name}{series} {value:g}" for series, value in (self._counts[name] or {"": 0}).items()]
        for name, about in GAUGES.items():
            lines += [*_head(name, about, "gauge"), f"edgeelad_{name} {gauges[name]:g}"]
        for name, about in HISTOGRAMS.items():
            lines += _head(name, about, "histogram")
            total = 0
            for bound, count in zip((*map(str, BUCKETS_S), "+Inf"), self._buckets[name], strict=True):
                total += count
                lines.append(f'edgeelad_{name}_bucket{{le="{bound}"}} {total}')
            lines += [f"edgeelad_{name}_sum {self._sums[name]:g}", f"edgeelad_{name}_count {total}"]
        return "\n".join(lines) + "\n"


def _head(name: str, about: str, kind: str) -> list[str]:
    return [f"# HELP edgeelad_{name} {about}", f"# TYPE edgeelad_{name} {kind}"]
