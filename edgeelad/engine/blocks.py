"""Map a function over blocks of items on workers, which are replaced when they die; results keep the order.

A worker runs the function in a process of its own, on this machine (`processes`) or on a cluster (`ray_actors`). A
block whose worker dies goes to another one; if that one dies too, its items are tried one by one, and an item that
kills a worker again is returned as lost, with the reason. Only a few blocks are in progress at once, so a stream of any
length needs bounded memory. Blocks that finish before an earlier one can be kept for a later run.
"""

from __future__ import annotations

import logging
import traceback
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from edgeelad.errors import EdgeeladError, RunError

# blocks per worker by which a fast worker may be ahead of the slowest
MAX_BLOCKS_AHEAD = 2
# deaths in a row before being ready after which there is no room for more workers
MAX_FAILED_STARTS = 3
# deaths in a row, besides one per worker, after which it is not the items' fault
MAX_DEATHS_IN_A_ROW = 10

Item = TypeVar("Item")
Result = TypeVar("Result")
Work = Callable[[list[Item]], list[Result]]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Lost(Generic[Item]):
    """An item that kills its worker, and how."""

    item: Item
    reason: str


@dataclass(slots=True, eq=False)
class _Block(Generic[Item]):
    """A block in progress; the result of an item is None until it is known."""

    items: list[Item]
    results: list[Any]
    num_missing: int
    is_kept: bool = False


@dataclass(slots=True, eq=False)
class Task(Generic[Item]):
    """The items of a block, at `places`, that go to a worker together."""

    block: _Block[Item]
    places: range
    num_deaths: int = 0

    @property
    def items(self) -> list[Item]:
        """The items themselves."""
        return [self.block.items[place] for place in self.places]


class KeptBlocks(Protocol):
    """Where results are kept of blocks that finish before an earlier one."""

    def find(self, block: list[Any]) -> Sequence[Any] | None:
        """The results of a block, one per item, if an earlier run kept them."""
        ...

    def keep(self, block: list[Any], results: Sequence[Any]) -> None:
        """Keep the results of a block."""
        ...

    def drop(self, block: list[Any]) -> None:
        """Forget a block, whose results have been returned."""
        ...


class _NotKept:
    """Keeps nothing."""

    def find(self, block: list[Any]) -> None:
        return None

    def keep(self, block: list[Any], results: Sequence[Any]) -> None:
        pass

    def drop(self, block: list[Any]) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Ready:
    """Message of a worker that can start work."""


@dataclass(frozen=True, slots=True)
class Done:
    """Message with a task's results, and the worker's peak memory."""

    results: list[Any]
    peak_bytes: int | None


@dataclass(frozen=True, slots=True)
class Failed:
    """Message of a worker that ends with an exception, perhaps caused by its items."""

    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Message of a worker that ends with an error of edgeelad, which ends all work: its class and message."""

    error: type[EdgeeladError]
    message: str


def message_about(error: Exception) -> Failed | Refused:
    """The message of a worker that ends with an exception."""
    if isinstance(error, EdgeeladError):
        return Refused(type(error), str(error))
    where = traceback.extract_tb(error.__traceback__)[-1]
    reason = f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"
    return Failed(" ".join(reason.split())[:600])


Message = Ready | Done | Failed | Refused


@dataclass(slots=True, eq=False, kw_only=True)
class Worker(ABC, Generic[Item]):
    """A process that works on one task at a time, and its task if it has one."""

    is_ready: bool = False
    task: Task[Item] | None = field(default=None)

    @abstractmethod
    def send(self, items: list[Item]) -> None:
        """Give it items to work on.

        Raises:
            OSError: It is dead.
        """

    @abstractmethod
    def kill(self) -> None:
        """End it at once."""

    @abstractmethod
    def join(self) -> str:
        """Wait until a worker that is dead or dying has ended; returns how it did."""


class BlockWorkers(ABC, Generic[Item, Result]):
    """Workers of one kind; leaving the context kills them.

    Attributes:
        num_workers: Maximum number of workers; lowered if there is no room for all.
        peak_bytes: Peak memory of the largest worker; None if the system does not report it.
        num_replaced: Workers that died.
    """

    def __init__(self, num_workers: int, warn: Callable[[str], None] = _log.warning) -> None:
        """Start no worker until there is work for it.

        Args:
            num_workers: Maximum number of workers.
            warn: Called with a message for every death.
        """
        self.num_workers = num_workers
        self.peak_bytes: int | None = None
        self.num_replaced = 0
        self._warn = warn
        self._workers: list[Worker[Item]] = []
        self._waiting: deque[Task[Item]] = deque()
        self._in_progress: deque[_Block[Item]] = deque()
        self._finished: list[_Block[Item]] = []
        self._kept: KeptBlocks = _NotKept()
        self._num_failed_starts = self._num_deaths_in_a_row = 0

    def __enter__(self) -> BlockWorkers[Item, Result]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.kill()
        while self._workers:
            self._workers.pop().join()

    @abstractmethod
    def _start(self) -> Worker[Item]:
        """Start a worker, which will send `Ready`."""

    @abstractmethod
    def _messages(self) -> Iterator[tuple[Worker[Item], Message | None]]:
        """Wait for messages of the workers; None is the message of one that died."""

    def map(self, blocks: Iterator[list[Item]], kept: KeptBlocks | None = None) -> Iterator[Result | Lost[Item]]:
        """The result of each item, in order.

        Args:
            blocks: The items, in blocks.
            kept: Keeps blocks that finish before an earlier one, for a run that is killed and resumed.

        Raises:
            EdgeeladError: Raised by the work itself.
            RunError: No worker can be started, or one after another dies.
        """
        self._kept = kept or _NotKept()
        while True:
            # 1. hand out blocks, unless the slowest process is far behind
            while len(self._waiting) < self._num_free and len(self._in_progress) < MAX_BLOCKS_AHEAD * self.num_workers:
                items = next(blocks, None)
                if items is None:
                    break
                self._begin(items)
            self._hand_out()
            self._keep_blocks()
            # 2. return the results of the first block, once complete
            if self._in_progress and not self._in_progress[0].num_missing:
                first = self._in_progress.popleft()
                yield from first.results
                if first.is_kept:
                    self._kept.drop(first.items)
                continue
            if not self._in_progress:
                return
            # 3. wait for messages
            for worker, message in self._messages():
                self._receive(worker, message)

    def _begin(self, items: list[Item]) -> None:
        found = self._kept.find(items)
        if found is not None:
            self._in_progress.append(_Block(items, list(found), num_missing=0, is_kept=True))
            return
        self._in_progress.append(_Block(items, [None] * len(items), num_missing=len(items)))
        self._waiting.append(Task(self._in_progress[-1], range(len(items))))

    def _finish(self, task: Task[Item], results: Sequence[Any]) -> None:
        """Put a task's results into its block."""
        block = task.block
        block.results[task.places.start : task.places.stop] = results
        block.num_missing -= len(results)
        if not block.num_missing:
            self._finished.append(block)

    def _keep_blocks(self) -> None:
        """Keep the blocks that finished before an earlier one; called while their workers do others."""
        for block in self._finished:
            if block is not self._in_progress[0]:
                self._kept.keep(block.items, block.results)
                block.is_kept = True
        self._finished.clear()

    @property
    def _num_free(self) -> int:
        """Workers, started or not, without a task."""
        return self.num_workers - sum(worker.task is not None for worker in self._workers)

    def _hand_out(self) -> None:
        for worker in list(self._workers):
            if self._waiting and worker.is_ready and worker.task is None:
                task = self._waiting.popleft()
                try:
                    worker.send(task.items)
                    worker.task = task
                except OSError:  # it died before it began: not the items' fault
                    self._waiting.appendleft(task)
                    self._handle_death(worker)
        num_starting = sum(not worker.is_ready for worker in self._workers)
        for _ in range(min(len(self._waiting) - num_starting, self.num_workers - len(self._workers))):
            self._workers.append(self._start())

    def _receive(self, worker: Worker[Item], message: Message | None) -> None:
        match message:
            case None:
                self._handle_death(worker)
            case Ready():
                worker.is_ready, self._num_failed_starts = True, 0
            case Done(results, peak_bytes):
                assert worker.task is not None
                assert len(results) == len(worker.task.places), "one result per item"
                self._finish(worker.task, results)
                worker.task, self._num_deaths_in_a_row = None, 0
                self.peak_bytes = max(filter(None, (self.peak_bytes, peak_bytes)), default=None)
            case Failed(reason):
                self._handle_death(worker, reason)
            case Refused(kind, text):
                error = Exception.__new__(kind)  # without its __init__, which may want other arguments
                error.args = (text,)
                raise error

    def _handle_death(self, worker: Worker[Item], reason: str | None = None) -> None:
        """Replace a dead worker, and try its task again."""
        self._workers.remove(worker)
        ended = worker.join()
        how = reason or ended
        if not worker.is_ready:
            self._handle_failed_start(how)
            return
        self.num_replaced += 1
        self._num_deaths_in_a_row += 1
        if self._num_deaths_in_a_row > MAX_DEATHS_IN_A_ROW + self.num_workers:
            raise RunError(
                f"the last {self._num_deaths_in_a_row} worker processes died without finishing anything ({how}); "
                "use fewer workers or less memory per worker, then run the command again to resume"
            )
        self._warn(f"a worker process died ({how}); another takes its place")
        if worker.task is not None:
            self._try_again(worker.task, how)

    def _handle_failed_start(self, how: str) -> None:
        """After a few workers that died before they were ready, continue with the others."""
        self._num_failed_starts += 1
        if self._num_failed_starts < MAX_FAILED_STARTS:
            return
        if not self._workers:
            raise RunError(
                f"{MAX_FAILED_STARTS} worker processes died one after another before they had opened the student "
                f"({how}); use fewer workers or a smaller student, then run the command again"
            )
        self.num_workers, self._num_failed_starts = len(self._workers), 0
        self._warn(f"worker processes die before they are ready ({how}): continuing with {self.num_workers}")

    def _try_again(self, task: Task[Item], how: str) -> None:
        task.num_deaths += 1
        if task.num_deaths == 1:
            self._waiting.appendleft(task)
        elif len(task.places) > 1:
            singles = [Task(task.block, range(place, place + 1), task.num_deaths) for place in task.places]
            self._waiting.extendleft(reversed(singles))
        else:
            (item,) = task.items
            self._finish(task, [Lost(item, f"{task.num_deaths} worker processes died of it ({how})")])
