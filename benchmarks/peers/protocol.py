"""How a runner speaks with the benchmark: JSON lines on stdin and stdout.

    in   {"workload": PATH, "folder": PATH, "threads": 2, …}      once: the model
    out  {"versions": {…}, "settings": {…}}
    in   {"questions": [0, 1, …], "every": 4, "offset": 1}        any number of times
    out  {"tokens": 9728, "core_seconds": 10.1, "peak_bytes": 812345678}

Knows nothing of edgeelad: a peer's environment does not have it.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Prefix:
    """What `num_branches` branches continue: a prompt and the first steps of its explanation."""

    question: int
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Work:
    """A workload (see benchmarks/workload.py) with the settings of one runner."""

    settings: dict[str, Any]
    prompts: list[list[int]]
    completions: list[list[int]]
    ends: list[list[int]]
    num_branches: int
    num_new: int
    temperature: float
    top_k: int

    def prefixes(self, questions: Sequence[int]) -> list[Prefix]:
        """Every prefix of some questions, a question's from the shortest to the longest."""
        return [
            Prefix(question, (*self.prompts[question], *self.completions[question][:end]))
            for question in questions
            for end in self.ends[question]
        ]


# questions, and which share of the batches (every `every`th from `offset`) -> tokens that were generated
Run = Callable[[list[int], int, int], int]


def serve(load: Callable[[Work], tuple[Run, dict[str, Any]]]) -> None:
    """Load once, then answer requests until stdin ends."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print, too
    settings = json.loads(sys.stdin.readline())
    with open(settings["workload"], encoding="utf-8") as file:  # noqa: PTH123 - a runner stands alone
        work = Work(settings=settings, **json.load(file))
    run, about = load(work)
    _reply(replies, about)
    for line in sys.stdin:
        request = json.loads(line)
        start = time.process_time()
        tokens = run(request["questions"], request.get("every", 1), request.get("offset", 0))
        core_seconds = time.process_time() - start
        _reply(replies, {"tokens": tokens, "core_seconds": core_seconds, "peak_bytes": _peak_bytes()})


def batches(
    work: Work, questions: list[int], batch_size: int, every: int = 1, offset: int = 0
) -> list[list[tuple[int, ...]]]:
    """All branches as rows of batches: sorted by length, so that little is padded; every `every`th batch of them."""
    rows = sorted((prefix.ids for prefix in work.prefixes(questions) for _ in range(work.num_branches)), key=len)
    all_batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    return all_batches[offset % every :: every]


def _peak_bytes() -> int:
    """The largest resident size so far; not getrusage's, which a process inherits from the one that started it."""
    with open("/proc/self/status", encoding="utf-8") as file:  # noqa: PTH123
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))


def _reply(replies: Any, value: dict[str, Any]) -> None:
    replies.write(json.dumps(value) + "\n")
    replies.flush()
