"""Processes that work through blocks of items side by side, replaced when they die; results in the order of the items.

What the work is comes from outside, as a function that every process calls once. A block whose process dies is worked
on once more by another; if that one dies too, its items are tried one by one, and an item that kills a process again is
given back as lost, with the reason. At most a few blocks are under way at once, so that a stream of any length passes
through in bounded memory.
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
from contextlib import AbstractContextManager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import Any, Generic, TypeVar

from edgeelad.engine.memory import peak_memory_bytes
from edgeelad.errors import EdgeeladError, RunError

# a process that is fast may be this many blocks, per process, ahead of the slowest
MAX_BLOCKS_AHEAD = 2
# processes that die one after another before they are ready to work: there is no room for them
MAX_FAILED_STARTS = 3
# deaths, besides one for each process, without any work done between them: it is not the items' fault
MAX_DEATHS_IN_A_ROW = 10
# a process that has closed its pipe may take this long to end
END_S = 10.0

Item = TypeVar("Item")
Result = TypeVar("Result")
Work = Callable[[list[Item]], list[Result]]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Lost(Generic[Item]):
    """An item that no process survived, and how they ended."""

    item: Item
    reason: str


@dataclass(slots=True, eq=False)
class _Block(Generic[Item]):
    """A block under way: what has come of its items; None: nothing yet."""

    items: list[Item]
    results: list[Any]


@dataclass(slots=True, eq=False)
class _Task(Generic[Item]):
    """Items of one block that go to a process together: `places` says which."""

    block: _Block[Item]
    places: range
    num_deaths: int = 0

    @property
    def items(self) -> list[Item]:
        return [self.block.items[place] for place in self.places]


@dataclass(slots=True, eq=False)
class _Worker(Generic[Item]):
    """A process and the pipe to it; it is ready when it has said so, and free while it has no task."""

    process: SpawnProcess
    pipe: Connection
    is_ready: bool = False
    task: _Task[Item] | None = None


@dataclass(frozen=True, slots=True)
class _Ready:
    """A process says that it can work."""


@dataclass(frozen=True, slots=True)
class _Done:
    """A process has worked; and the most memory that it has held so far."""

    results: list[Any]
    peak_bytes: int | None


@dataclass(frozen=True, slots=True)
class _Failed:
    """A process ends for an exception that its items may have caused."""

    reason: str


@dataclass(frozen=True, slots=True)
class _Refused:
    """A process ends for an error of ours, which ends all work: its class and its message."""

    error: type[EdgeeladError]
    message: str


class WorkerProcesses(Generic[Item, Result]):
    """Processes at work; use it as a context manager, which ends them, whatever they are doing.

    Attributes:
        num_processes: At most so many; fewer when there is no room for all.
        peak_bytes: The most memory that one of them has told of; None where the system does not say.
        num_replaced: Those that died.
    """

    def __init__(
        self,
        start: Callable[[], AbstractContextManager[Work[Item, Result]]],
        num_processes: int,
        warn: Callable[[str], None] = _log.warning,
    ) -> None:
        """Take the work; processes are started as there is something to do.

        Args:
            start: Called once in every process; gives the function that does a block. Must pickle.
            num_processes: At most so many.
            warn: Told of every death.
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
        """What comes of each item, in order.

        Raises:
            EdgeeladError: As the work itself raised it.
            RunError: No process can be started, or one after another dies.
        """
        under_way: deque[_Block[Item]] = deque()
        while True:
            # 1. work for everyone, unless the slowest is far behind
            while len(self._waiting) < self._num_free and len(under_way) < MAX_BLOCKS_AHEAD * self.num_processes:
                items = next(blocks, None)
                if items is None:
                    break
                under_way.append(_Block(items, [None] * len(items)))
                self._waiting.append(_Task(under_way[-1], range(len(items))))
            self._hand_out()
            # 2. what is next
            if under_way and all(result is not None for result in under_way[0].results):
                yield from under_way.popleft().results
                continue
            if not under_way:
                return
            # 3. what there is to hear
            pipes = {worker.pipe: worker for worker in self._workers}
            for pipe in wait(list(pipes)):
                assert isinstance(pipe, Connection)
                self._hear(pipes[pipe])

    @property
    def _num_free(self) -> int:
        """Processes, started or not, that have nothing to do."""
        return self.num_processes - sum(worker.task is not None for worker in self._workers)

    def _hand_out(self) -> None:
        for worker in list(self._workers):
            if self._waiting and worker.is_ready and worker.task is None:
                task = self._waiting.popleft()
                try:
                    worker.pipe.send(task.items)
                    worker.task = task
                except OSError:  # it died before it began: that is not the items' fault
                    self._waiting.appendleft(task)
                    self._bury(worker)
        num_coming = sum(not worker.is_ready for worker in self._workers)
        for _ in range(min(len(self._waiting) - num_coming, self.num_processes - len(self._workers))):
            self._workers.append(self._start())

    def _start(self) -> _Worker[Item]:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_live, args=(theirs, self._start_work), daemon=True)
        process.start()
        theirs.close()  # so that the pipe ends when the process does
        return _Worker(process, ours)

    def _hear(self, worker: _Worker[Item]) -> None:
        try:
            message = worker.pipe.recv()
        except (EOFError, OSError):
            self._bury(worker)
            return
        match message:
            case _Ready():
                worker.is_ready, self._num_failed_starts = True, 0
            case _Done(results, peak_bytes):
                assert worker.task is not None
                assert len(results) == len(worker.task.places), "a result an item"
                for place, result in zip(worker.task.places, results, strict=True):
                    worker.task.block.results[place] = result
                worker.task, self._num_deaths_in_a_row = None, 0
                self.peak_bytes = max(filter(None, (self.peak_bytes, peak_bytes)), default=None)
            case _Failed(reason):
                self._bury(worker, reason)
            case _Refused(kind, text):
                error = Exception.__new__(kind)  # without its __init__, which may want other arguments
                error.args = (text,)
                raise error

    def _bury(self, worker: _Worker[Item], reason: str | None = None) -> None:
        """What a death means: another process, and another try for what it was working on."""
        self._workers.remove(worker)
        code = _join(worker)
        how = reason or (f"killed by signal {-code}" if code < 0 else f"exit code {code}")
        if code == -signal.SIGKILL:
            how += ": out of memory, or killed by hand"
        if not worker.is_ready:
            self._give_up_one(how)
            return
        self.num_replaced += 1
        self._num_deaths_in_a_row += 1
        if self._num_deaths_in_a_row > MAX_DEATHS_IN_A_ROW + self.num_processes:
            raise RunError(
                f"the last {self._num_deaths_in_a_row} worker processes died without finishing anything ({how}); "
                "use fewer workers or less memory for each, then run the command again: it goes on where it was"
            )
        self._warn(f"a worker process died ({how}); another takes its place")
        if worker.task is not None:
            self._try_again(worker.task, how)

    def _give_up_one(self, how: str) -> None:
        """A process died before it was ready: after a few of these, do with those that there are."""
        self._num_failed_starts += 1
        if self._num_failed_starts < MAX_FAILED_STARTS:
            return
        if not self._workers:
            raise RunError(
                f"{MAX_FAILED_STARTS} worker processes died one after another before they had opened the student "
                f"({how}); use fewer workers or a smaller student, then run the command again"
            )
        self.num_processes, self._num_failed_starts = len(self._workers), 0
        self._warn(f"worker processes die before they are ready ({how}): going on with {self.num_processes}")

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


def _join(worker: _Worker[Any]) -> int:
    """Wait for the end of a process, which is near; gives its exit code."""
    worker.process.join(END_S)
    worker.process.kill()
    worker.process.join()
    code = worker.process.exitcode or 0
    worker.process.close()
    worker.pipe.close()
    return code


def _live(pipe: Connection, start: Callable[[], AbstractContextManager[Work[Any, Any]]]) -> None:
    """A process's life: blocks come in, results go out, until the pipe ends. Ctrl-C is for the parent to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        with start() as work:
            pipe.send(_Ready())
            while True:
                pipe.send(_Done(work(pipe.recv()), peak_memory_bytes()))
    except EdgeeladError as error:
        pipe.send(_Refused(type(error), str(error)))
    except (EOFError, ConnectionError):
        return
    except Exception as error:  # whatever the item did to the work: it is tried again in a process of its own
        where = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"
        pipe.send(_Failed(" ".join(reason.split())[:600]))


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
