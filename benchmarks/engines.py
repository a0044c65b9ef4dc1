"""The engines that are compared: each one or more runner processes (peers/), loaded once and asked in turn."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from machine import busy_core_seconds
from workload import Workload, divide

PEERS = Path(__file__).parent / "peers"


@dataclass(frozen=True, slots=True)
class Engine:
    """How an engine is run.

    Attributes:
        name: In tables and in the JSON line.
        python: The interpreter of its environment.
        script: Its runner in peers/.
        settings: Settings of the runner: folder, threads, precision and so on.
        num_processes: Processes that the questions are divided among.
        is_slow: Whether a round is a sample of its batches.
    """

    name: str
    python: Path
    script: str
    settings: dict[str, Any]
    num_processes: int = 1
    is_slow: bool = False


@dataclass(frozen=True, slots=True)
class Measurement:
    """One engine's round.

    Attributes:
        seconds: On the wall.
        core_seconds: Of processor time that its processes used, all threads together.
        others: Share of the machine's cores that other programs used meanwhile.
        tokens: Generated.
        peak_bytes: Sum of its processes' peak resident sizes; what they share counts in each.
    """

    seconds: float
    core_seconds: float
    others: float
    tokens: int
    peak_bytes: int

    @property
    def tokens_per_s(self) -> float:
        """New tokens per second."""
        return self.tokens / self.seconds

    @property
    def tokens_per_core_s(self) -> float:
        """New tokens per second of processor time."""
        return self.tokens / self.core_seconds


class RunnerError(RuntimeError):
    """A runner ended; the message is the end of what it printed."""


class RunningEngine:
    """An engine's processes, loaded; use it as a context manager.

    Attributes:
        engine: The engine.
        about: Versions and settings, as its first runner reports them.
    """

    def __init__(self, engine: Engine, workload: Path, log: Path) -> None:
        self.engine, self._log = engine, log
        command = [str(engine.python), str(PEERS / engine.script)]
        with log.open("w") as errors:
            self._processes = [
                subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    env=os.environ | {"ORT_DISABLE_TELEMETRY": "1"},
                )
                for _ in range(engine.num_processes)
            ]
        try:
            for process in self._processes:
                self._send(process, {"workload": str(workload), **engine.settings})
            self.about, *_ = [self._receive(process) for process in self._processes]
        except BaseException:
            self.close()
            raise

    def run(self, workload: Workload, questions: Sequence[int], every: int = 1, offset: int = 0) -> Measurement:
        """Generate the branches of some questions, or every `every`th batch of them."""
        parts = divide([workload.num_tokens(question) for question in questions], len(self._processes))
        start, busy = time.perf_counter(), busy_core_seconds()
        for process, part in zip(self._processes, parts, strict=True):
            request = {"questions": [questions[place] for place in part], "every": every, "offset": offset}
            self._send(process, request)
        replies = [self._receive(process) for process in self._processes]
        seconds, busy = time.perf_counter() - start, busy_core_seconds() - busy
        totals = {key: sum(reply[key] for reply in replies) for key in ("tokens", "core_seconds", "peak_bytes")}
        if every == 1:
            assert totals["tokens"] == sum(map(workload.num_tokens, questions)), "forced lengths"
        others = max(busy - totals["core_seconds"], 0.0) / (seconds * len(os.sched_getaffinity(0)))
        return Measurement(seconds, others=others, **totals)

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                assert stream is not None
                stream.close()

    def __enter__(self) -> RunningEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, process: subprocess.Popen[str], message: dict[str, Any]) -> None:
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(message) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            raise self._death() from None

    def _receive(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise self._death()
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _death(self) -> RunnerError:
        said = self._log.read_text(errors="replace").strip().splitlines()
        return RunnerError(f"{self.engine.name} ended: {' | '.join(said[-3:])} (all of it: {self._log})")
