"""Workers of `blocks` in processes on this machine, over pipes.

Workers can be forked from a template, a process that has started the work: they share its memory, above all the
weights, which ONNX Runtime copies into an order of its own.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from multiprocessing import reduction, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
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
        self.pipe.close()
        code = _end(self.process)
        self.process.close()
        return _how(code)


@dataclass(slots=True, eq=False)
class _Fork(Worker[Item]):
    """A process that a template forks, and the pipe to it."""

    template: _Template
    pipe: Connection
    pid: int | None = None  # unknown until the template has told

    @property
    def process(self) -> SpawnProcess:
        """The process of the template."""
        return self.template.process

    def send(self, items: list[Item]) -> None:
        self.pipe.send(items)

    def kill(self) -> None:
        self.template.kill(self)

    def join(self) -> str:
        self.pipe.close()
        return _how(self.template.join(self))


class _Template:
    """A process that starts the work, and then forks workers in the order in which they were requested."""

    def __init__(self, start: Callable[[], AbstractContextManager[Work[Any, Any]]]) -> None:
        self.process, self._control = _spawn(_run_template, start)
        self._untold: deque[_Fork[Any]] = deque()  # workers whose process ids have not been read yet

    def fork(self) -> _Fork[Any]:
        """Request a worker; its pipe ends at once if the template is dead."""
        ours, theirs = multiprocessing.Pipe()
        worker: _Fork[Any] = _Fork(self, ours)
        with theirs, suppress(OSError):
            self._control.send(None)
            reduction.send_handle(self._control, theirs.fileno(), self.process.pid)
            self._untold.append(worker)
        return worker

    def kill(self, worker: _Fork[Any]) -> None:
        """Kill a worker; the template, if it has not forked it yet."""
        with suppress(OSError):
            if self._control.poll():
                self._read_pids()
        if worker.pid is None:
            self.process.kill()
        else:
            with suppress(ProcessLookupError):
                os.kill(worker.pid, SIGKILL)

    def join(self, worker: _Fork[Any]) -> int:
        """Wait until a worker has ended; returns its exit code, or the template's if that died."""
        self._read_pids()
        if worker.pid is not None:
            with suppress(EOFError, OSError):
                self._control.send(worker.pid)
                code: int = self._control.recv()
                return code
        return _end(self.process)

    def end(self) -> None:
        """End it at once; its workers see that by themselves."""
        self._control.close()
        self.process.kill()
        _end(self.process)

    def _read_pids(self) -> None:
        """Read the process ids of all workers that were requested; waits until the template has forked them."""
        with suppress(EOFError, OSError):
            while self._untold:
                self._untold[0].pid = self._control.recv()
                self._untold.popleft()


class WorkerProcesses(BlockWorkers[Item, Result]):
    """Worker processes on this machine."""

    def __init__(
        self,
        start: Callable[[], AbstractContextManager[Work[Item, Result]]],
        num_workers: int,
        warn: Callable[[str], None] = _log.warning,
        *,
        is_forking: bool = False,
    ) -> None:
        """Start no process until there is work for it.

        Args:
            start: Called once in every process, or once in the template; returns the function from a block to its
                results. Must pickle.
            num_workers: Maximum number of processes.
            warn: Called with a message for every death.
            is_forking: Fork the workers from a template. What is started must survive a fork: no thread does.
        """
        super().__init__(num_workers, warn)
        self._start_work = start
        self._is_forking = is_forking
        self._template: _Template | None = None

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._drop_template()

    def _start(self) -> _Process[Item] | _Fork[Item]:
        check_main_guard()
        if not self._is_forking:
            return _Process(*_spawn(_run, self._start_work))
        if self._template is not None and self._template.process.exitcode is not None:
            self._drop_template()
        if self._template is None:
            self._template = _Template(self._start_work)
        return self._template.fork()

    def _drop_template(self) -> None:
        if self._template is not None:
            self._template.end()
            self._template = None

    def _messages(self) -> Iterator[tuple[Worker[Item], Message | None]]:
        pipes = {worker.pipe: worker for worker in self._workers if isinstance(worker, (_Process, _Fork))}
        for pipe in wait(list(pipes)):
            assert isinstance(pipe, Connection)
            yield pipes[pipe], _message(pipes[pipe])


def _spawn(target: Callable[..., None], start: Callable[[], Any]) -> tuple[SpawnProcess, Connection]:
    """Start a process that gets a pipe and the work to start."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, start), name=PROCESS_NAME, daemon=True)
    # theirs is closed here, so that the pipe ends when the process does
    with theirs, _interrupts_blocked(), _main_without_file_hidden():
        process.start()
    return process, ours


def _end(process: SpawnProcess) -> int:
    """Wait until a process that has closed its pipe has ended; returns its exit code."""
    process.join(END_S)
    process.kill()
    process.join()
    return process.exitcode or 0


def _how(code: int) -> str:
    """How a process with this exit code ended."""
    how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
    return how + (": out of memory, or killed by hand" if code == -SIGKILL else "")


@contextmanager
def _main_without_file_hidden() -> Iterator[None]:
    """Let processes start from a program that is read from standard input: they would look for its file, "<stdin>"."""
    main = sys.modules["__main__"]
    path = getattr(main, "__file__", None)
    if path is None or getattr(main, "__spec__", None) is not None or Path(path).exists():
        yield
        return
    del main.__file__
    try:
        yield
    finally:
        main.__file__ = path


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


def _message(worker: _Process[Any] | _Fork[Any]) -> Message | None:
    with suppress(EOFError, OSError):
        message: Message = worker.pipe.recv()
        return message
    if not worker.is_ready:
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


def _run_template(control: Connection, start: Callable[[], AbstractContextManager[Work[Any, Any]]]) -> None:
    """Start the work, then do as `_Template` asks until its pipe ends: None, and a pipe, for a worker; a process id to
    wait for its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with start() as work:
            gc.freeze()  # so that no collection writes to pages that workers share
            while True:
                pid = control.recv()
                if pid is None:
                    with Connection(reduction.recv_handle(control)) as pipe:
                        control.send(_fork(pipe, control, work))
                else:
                    control.send(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    except (EOFError, ConnectionError):
        return
    except Exception as error:  # the work could not be started
        while control.poll():
            control.recv()
            with Connection(reduction.recv_handle(control)) as pipe:
                pipe.send(message_about(error))


def _fork(pipe: Connection, control: Connection, work: Work[Any, Any]) -> int | None:
    """Fork a worker; returns its process id, None if there is no room for it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads: numpy's, which it starts anew in a fork
            pid = os.fork()
    except OSError as error:
        pipe.send(message_about(error))
        return None
    if pid:
        return pid
    try:
        control.close()
        _run(pipe, lambda: nullcontext(work))
    finally:
        os._exit(0)


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
