"""Grow reasoning trees in worker processes, one single-threaded session each, results in the order of the questions.

Questions go out in blocks of `batch_size`, always the same blocks whatever the number of workers, so results do not
depend on it. At most a few blocks are under way at once: a pool of any size passes through in bounded memory.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from edgeelad.engine.student import Precision, Student
from edgeelad.engine.tree import TreeParams
from edgeelad.errors import EdgeeladError, RunError
from edgeelad.records import Question, ReasoningTree

# a worker that is fast may be this many blocks, per worker, ahead of the slowest
MAX_BLOCKS_AHEAD = 2
Block = list[Question]


@dataclass(slots=True, eq=False)
class _Worker:
    """A worker process, the pipe to it, and the number of the block that it works on (None: it waits for one)."""

    process: SpawnProcess
    pipe: Connection
    block: int | None = None


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def grow_trees(
    folder: Path,
    questions: Iterable[Question],
    params: TreeParams,
    *,
    num_workers: int,
    num_threads: int = 1,
    batch_size: int = 64,
    precision: Precision | None = None,
) -> Iterator[ReasoningTree]:
    """Grow the tree of every question, in order.

    Args:
        folder: An exported student or a package.
        questions: May be a stream of any length.
        params: What to grow.
        num_workers: Worker processes; 1 grows in this process, and so do questions that fit one block.
        num_threads: Threads of each session.
        batch_size: Questions that run together.
        precision: Which graph; default: fp32 where there is one.

    Raises:
        ModelError: The student cannot be opened.
        PromptTooLongError: A question leaves no room for an explanation.
        RunError: A worker died.
    """
    source = iter(questions)
    blocks = iter(lambda: list(islice(source, batch_size)), [])
    first = list(islice(blocks, num_workers))
    with Student.open(folder, num_threads=num_threads, batch_size=batch_size, precision=precision) as student:
        if len(first) <= 1:
            for block in chain(first, blocks):
                yield from student.grow(block, params)
            return
    # opened once here all the same: what is wrong with the folder is said here, not by a worker
    workers = [_start(folder, params, num_threads, batch_size, precision) for _ in first]
    try:
        yield from _work_through(chain(first, blocks), workers)
    finally:
        _stop(workers)


def _work_through(blocks: Iterator[Block], workers: list[_Worker]) -> Iterator[ReasoningTree]:
    """Hand blocks to workers that wait for one, and give the trees in the order of the blocks."""
    numbered = enumerate(blocks)
    done: dict[int, list[ReasoningTree]] = {}
    next_out = num_sent = 0
    while True:
        # 1. work for everyone, unless the slowest is far behind
        for worker in workers:
            if worker.block is None and num_sent - next_out < MAX_BLOCKS_AHEAD * len(workers):
                task = next(numbered, None)
                if task is None:
                    break
                worker.block, num_sent = task[0], task[0] + 1
                _send(worker, task[1])
        # 2. what is next
        if next_out in done:
            yield from done.pop(next_out)
            next_out += 1
            continue
        # 3. what is ready
        busy = {worker.pipe: worker for worker in workers if worker.block is not None}
        if not busy:
            return
        for pipe in wait(list(busy)):
            assert isinstance(pipe, Connection)
            worker = busy[pipe]
            assert worker.block is not None
            done[worker.block] = _receive(worker)
            worker.block = None


def _start(folder: Path, params: TreeParams, num_threads: int, batch_size: int, precision: Precision | None) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_work, args=(theirs, folder, params, num_threads, batch_size, precision), daemon=True
    )
    process.start()
    theirs.close()  # so that the pipe ends when the worker does
    return _Worker(process, ours)


def _stop(workers: list[_Worker]) -> None:
    """End the workers, whatever they are doing: nothing of theirs is wanted any more, and they hold nothing open."""
    for worker in workers:
        worker.process.kill()
    for worker in workers:
        worker.process.join()
        worker.process.close()
        worker.pipe.close()


def _send(worker: _Worker, block: Block) -> None:
    try:
        worker.pipe.send(block)
    except OSError:
        raise _death(worker) from None


def _receive(worker: _Worker) -> list[ReasoningTree]:
    try:
        message: list[ReasoningTree] | EdgeeladError = worker.pipe.recv()
    except (EOFError, OSError):
        raise _death(worker) from None
    if isinstance(message, EdgeeladError):
        raise message
    return message


def _death(worker: _Worker) -> RunError:
    worker.process.join()
    code = worker.process.exitcode or 0
    how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
    return RunError(
        f"a scoring process died ({how}; if it was out of memory, use fewer workers or a smaller scoring.batch_size); "
        "run the command again: it goes on where it was"
    )


def _work(
    pipe: Connection,
    folder: Path,
    params: TreeParams,
    num_threads: int,
    batch_size: int,
    precision: Precision | None,
) -> None:
    """A worker's life: blocks come in, trees go out, until the pipe ends. Ctrl-C is for the parent to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        with Student.open(folder, num_threads=num_threads, batch_size=batch_size, precision=precision) as student:
            while True:
                pipe.send(list(student.grow(pipe.recv(), params)))
    except EdgeeladError as error:
        pipe.send(error)
    except EOFError:
        return


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
