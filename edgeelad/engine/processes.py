"""Map a function over blocks of items in worker processes, which are replaced when they die; results keep the order.

The work is a function that every process calls once to start. A block whose process dies goes to another one; if that
one dies too, its items are tried one by one, and an item that kills a process again is returned as lost, with the
reason. Only a few blocks are in progress at once, so a stream of any length needs bounded memory.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import Any, Generic, TypeVar

from edgeelad.engine.memory import peak_memory_bytes
from edgeelad.errors import EdgeeladError, RunError

# blocks per process by which a fast process may be ahead of the slowest
MAX_BLOCKS_AHEAD = 2
# deaths in a row before being ready after which there is no room for more processes
MAX_FAILED_STARTS = 3
# deaths in a row, besides one per process, after which it is not the items' fault
MAX_DEATHS_IN_A_ROW = 10
# time for a process that has closed its pipe to end
END_S = 10.0
PROCESS_NAME = "edgeelad-worker"
UNGUARDED_EXIT = 83  # exit code of a process that would start others: see `check_main_guard`
SIGKILL = getattr(signal, "SIGKILL", 9)  # Windows has none

Item = TypeVar("Item")
Result = TypeVar("Result")
Work = Callable[[list[Item]], list[Result]]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Lost(Generic[Item]):
    """An item that kills its process, and how."""

    item: Item
    reason: str


@dataclass(slots=True, eq=False)
class _Block(Generic[Item]):
    """A block in progress; the result of an item is None until it is known."""

    items: list[Item]
    results: list[Any]


@dataclass(slots=True, eq=False)
class _Task(Generic[Item]):
    """The items of a block, at `places`, that go to a process together."""

    block: _Block[Item]
    places: range
    num_deaths: int = 0

    @property
    def items(self) -> list[Item]:
        return [self.block.items[place] for place in self.places]


@dataclass(slots=True, eq=False)
class _Worker(Generic[Item]):
    """A process, the pipe to it, and its task if it has one."""

    process: SpawnProcess
    pipe: Connection
    is_ready: bool = False
    task: _Task[Item] | None = None


@dataclass(frozen=True, slots=True)
class _Ready:
    """Message of a process that can start work."""


@dataclass(frozen=True, slots=True)
class _Done:
    """Message with a task's results, and the process's peak memory."""

    results: list[Any]
    peak_bytes: int | None


@dataclass(frozen=True, slots=True)
class _Failed:
    """Message of a process that ends with an exception, perhaps caused by its items."""

    reason: str


@dataclass(frozen=True, slots=True)
class _Refused:
    """Message of a process that ends with an error of edgeelad, which ends all work: its class and message."""

    error: type[EdgeeladError]
    message: str


class WorkerProcesses(Generic[Item, Result]):
    """Worker processes; leaving the context kills them.

    Attributes:
        num_processes: Maximum number of processes; lowered if there is no room for all.
        peak_bytes: Peak memory of the largest process; None if the system does not report it.
        num_replaced: Processes that died.
    """

    def __init__(
        self,
        start: Callable[[], AbstractContextManager[Work[Item, Result]]],
        num_processes: int,
        warn: Callable[[str], None] = _log.warning,
    ) -> None:
        """Start no process until there is work for it.

        Args:
            start: Called once in every process; returns the function from a block to its results. Must pickle.
            num_processes: Maximum number of processes.
            warn: Called with a message for every death.
        """
        self.num_processes = num_processes
        self.peak_bytes: int | None = None
        self.num_replaced = 0
        self._start_work, self._warn = start, warn
        self._workers: list[_Worker[Item]] = []
        self._waiting: deque[_Task[Item]] = deque()
        self._num_failed_starts = self._num_deaths_in_a_row = 0

    def __enter__(self) -> WorkerProcesses[Item, Result]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.process.kill()
        while self._workers:
            _join(self._workers.pop())

    def map(self, blocks: Iterator[list[Item]]) -> Iterator[Result | Lost[Item]]:
        """The result of each item, in order.

        Raises:
            EdgeeladError: Raised by the work itself.
            RunError: No process can be started, or one after another dies.
        """
        in_progress: deque[_Block[Item]] = deque()
        while True:
            # 1. hand out blocks, unless the slowest process is far behind
            while len(self._waiting) < self._num_free and len(in_progress) < MAX_BLOCKS_AHEAD * self.num_processes:
                items = next(blocks, None)
                if items is None:
                    break
                in_progress.append(_Block(items, [None] * len(items)))
                self._waiting.append(_Task(in_progress[-1], range(len(items))))
            self._hand_out()
            # 2. return the results of the first block, once complete
            if in_progress and all(result is not None for result in in_progress[0].results):
                yield from in_progress.popleft().results
                continue
            if not in_progress:
                return
            # 3. wait for messages
            pipes = {worker.pipe: worker for worker in self._workers}
            for pipe in wait(list(pipes)):
                assert isinstance(pipe, Connection)
                self._receive(pipes[pipe])

    @property
    def _num_free(self) -> int:
        """Processes, started or not, without a task."""
        return self.num_processes - sum(worker.task is not None for worker in self._workers)

    def _hand_out(self) -> None:
        for worker in list(self._workers):
            if self._waiting and worker.is_ready and worker.task is None:
                task = self._waiting.popleft()
                try:
                    worker.pipe.send(task.items)
                    worker.task = task
                except OSError:  # it died before it began: not the items' fault
                    self._waiting.appendleft(task)
                    self._handle_death(worker)
        num_starting = sum(not worker.is_ready for worker in self._workers)
        for _ in range(min(len(self._waiting) - num_starting, self.num_processes - len(self._workers))):
            self._workers.append(self._start())

    def _start(self) -> _Worker[Item]:
        check_main_guard()
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_run, args=(theirs, self._start_work), name=PROCESS_NAME, daemon=True)
        process.start()
        theirs.close()  # so that the pipe ends when the process does
        return _Worker(process, ours)

    def _receive(self, worker: _Worker[Item]) -> None:
        message = None
        with suppress(EOFError, OSError):
            message = worker.pipe.recv()
        match message:
            case None:
                self._handle_death(worker)
            case _Ready():
                worker.is_ready, self._num_failed_starts = True, 0
            case _Done(results, peak_bytes):
                assert worker.task is not None
                assert len(results) == len(worker.task.places), "one result per item"
                for place, result in zip(worker.task.places, results, strict=True):
                    worker.task.block.results[place] = result
                worker.task, self._num_deaths_in_a_row = None, 0
                self.peak_bytes = max(filter(None, (self.peak_bytes, peak_bytes)), default=None)
            case _Failed(reason):
                self._handle_death(worker, reason)
            case _Refused(kind, text):
                error = Exception.__new__(kind)  # without its __init__, which may want other arguments
                error.args = (text,)
                raise error

    def _handle_death(self, worker: _Worker[Item], reason: str | None = None) -> None:
        """Replace a dead process, and try its task again."""
        self._workers.remove(worker)
        code = _join(worker)
        if code == UNGUARDED_EXIT:
            raise RunError(
                "this script starts worker processes without the guard that multiprocessing needs; put the code that "
                'calls edgeelad under: if __name__ == "__main__":'
            )
        how = reason or (f"killed by signal {-code}" if code < 0 else f"exit code {code}")
        if code == -SIGKILL:
            how += ": out of memory, or killed by hand"
        if not worker.is_ready:
            self._handle_failed_start(how)
            return
        self.num_replaced += 1
        self._num_deaths_in_a_row += 1
        if self._num_deaths_in_a_row > MAX_DEATHS_IN_A_ROW + self.num_processes:
            raise RunError(
                f"the last {self._num_deaths_in_a_row} worker processes died without finishing anything ({how}); "
                "use fewer workers or less memory per worker, then run the command again to resume"
            )
        self._warn(f"a worker process died ({how}); another takes its place")
        if worker.task is not None:
            self._try_again(worker.task, how)

    def _handle_failed_start(self, how: str) -> None:
        """After a few processes that died before they were ready, continue with the others."""
        self._num_failed_starts += 1
        if self._num_failed_starts < MAX_FAILED_STARTS:
            return
        if not self._workers:
            raise RunError(
                f"{MAX_FAILED_STARTS} worker processes died one after another before they had opened the student "
                f"({how}); use fewer workers or a smaller student, then run the command again"
            )
        self.num_processes, self._num_failed_starts = len(self._workers), 0
        self._warn(f"worker processes die before they are ready ({how}): continuing with {self.num_processes}")

    def _try_again(self, task: _Task[Item], how: str) -> None:
        task.num_deaths += 1
        if task.num_deaths == 1:
            self._waiting.appendleft(task)
        elif len(task.places) > 1:
            singles = [_Task(task.block, range(place, place + 1), task.num_deaths) for place in task.places]
            self._waiting.extendleft(reversed(singles))
        else:
            (item,) = task.items
            task.block.results[task.places.start] = Lost(item, f"{task.num_deaths} worker processes died of it ({how})")


def check_main_guard() -> None:
    """Exit if this process is a worker that is still importing the user's script, which is then about to start workers.

    multiprocessing imports the main script anew in every process that it spawns. A script without the guard
    `if __name__ == "__main__":` would do there all that it does here. Call this before anything that takes a lock.
    """
    if multiprocessing.current_process().name == PROCESS_NAME:
        raise SystemExit(UNGUARDED_EXIT)


def _join(worker: _Worker[Any]) -> int:
    """Wait for a process that is about to end; returns its exit code."""
    worker.process.join(END_S)
    worker.process.kill()
    worker.process.join()
    code = worker.process.exitcode or 0
    worker.process.close()
    worker.pipe.close()
    return code


def _run(pipe: Connection, start: Callable[[], AbstractContextManager[Work[Any, Any]]]) -> None:
    """Work on blocks from the pipe until it ends, in a worker process. Ctrl-C is left to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    try:
        with start() as work:
            pipe.send(_Ready())
            while True:
                pipe.send(_Done(work(pipe.recv()), peak_memory_bytes()))
    except EdgeeladError as error:
        pipe.send(_Refused(type(error), str(error)))
    except (EOFError, ConnectionError):
        return
    except Exception as error:  # whatever an item caused: it is tried again in a process of its own
        where = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"
        pipe.send(_Failed(" ".join(reason.split())[:600]))


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
