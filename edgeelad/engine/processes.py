"""Workers of `blocks` in processes on this machine, over pipes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from edgeelad.engine.blocks import (
    BlockWorkers,
    Done,
    Item,
    Message,
    Ready,
    Refused,
    Result,
    Work,
    Worker,
    _log,
    message_about,
)
from edgeelad.engine.memory import peak_memory_bytes
from edgeelad.errors import RunError

# time for a process that has closed its pipe to end
END_S = 10.0
PROCESS_NAME = "edgeelad-worker"
UNGUARDED_EXIT = 83  # exit code of a process that would start others: see `check_main_guard`
UNGUARDED = Refused(
    RunError,
    "this script starts worker processes without the guard that multiprocessing needs; put the code that "
    'calls edgeelad under: if __name__ == "__main__":',
)
SIGKILL = getattr(signal, "SIGKILL", 9)  # Windows has none


@dataclass(slots=True, eq=False)
class _Process(Worker[Item]):
    """A process, and the pipe to it."""

    process: SpawnProcess
    pipe: Connection

    def send(self, items: list[Item]) -> None:
        self.pipe.send(items)

    def kill(self) -> None:
        self.process.kill()

    def join(self) -> str:
        self.process.join(END_S)
        self.process.kill()
        self.process.join()
        code = self.process.exitcode or 0
        self.process.close()
        self.pipe.close()
        how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        return how + (": out of memory, or killed by hand" if code == -SIGKILL else "")


class WorkerProcesses(BlockWorkers[Item, Result]):
    """Worker processes on this machine."""

    def __init__(
        self,
        start: Callable[[], AbstractContextManager[Work[Item, Result]]],
        num_workers: int,
        warn: Callable[[str], None] = _log.warning,
    ) -> None:
        """Start no process until there is work for it.

        Args:
            start: Called once in every process; returns the function from a block to its results. Must pickle.
            num_workers: Maximum number of processes.
            warn: Called with a message for every death.
        """
        super().__init__(num_workers, warn)
        self._start_work = start

    def _start(self) -> _Process[Item]:
        check_main_guard()
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_run, args=(theirs, self._start_work), name=PROCESS_NAME, daemon=True)
        with _interrupts_blocked():
            process.start()
        theirs.close()  # so that the pipe ends when the process does
        return _Process(process, ours)

    def _messages(self) -> Iterator[tuple[Worker[Item], Message | None]]:
        pipes = {worker.pipe: worker for worker in self._workers if isinstance(worker, _Process)}
        for pipe in wait(list(pipes)):
            assert isinstance(pipe, Connection)
            yield pipes[pipe], _message(pipes[pipe])


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Block Ctrl-C here, and for good in processes that start meanwhile: until they ignore it, it is a traceback."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # which unblocks Ctrl-C when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _message(worker: _Process[Any]) -> Message | None:
    with suppress(EOFError, OSError):
        message: Message = worker.pipe.recv()
        return message
    worker.process.join(END_S)
    return UNGUARDED if worker.process.exitcode == UNGUARDED_EXIT else None


def check_main_guard() -> None:
    """Exit if this process is a worker that is still importing the user's script, which is then about to start workers.

    multiprocessing imports the main script anew in every process that it spawns. A script without the guard
    `if __name__ == "__main__":` would do there all that it does here. Call this before anything that takes a lock.
    """
    if multiprocessing.current_process().name == PROCESS_NAME:
        raise SystemExit(UNGUARDED_EXIT)


def _run(pipe: Connection, start: Callable[[], AbstractContextManager[Work[Any, Any]]]) -> None:
    """Work on blocks from the pipe until it ends, in a worker process. Ctrl-C is left to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    try:
        with start() as work:
            pipe.send(Ready())
            while True:
                pipe.send(Done(work(pipe.recv()), peak_memory_bytes()))
    except (EOFError, ConnectionError):
        return
    except Exception as error:  # an error of ours, or whatever an item caused, which is tried again elsewhere
        pipe.send(message_about(error))


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
