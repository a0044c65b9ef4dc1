"""Grow reasoning trees in worker processes, one single-threaded session each, results in the order of the questions.

Questions go out in blocks of `batch_size`, always the same blocks whatever the number of workers, so results do not
depend on it. At most a few blocks are under way at once: a pool of any size passes through in bounded memory.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from pathlib import Path

from edgeelad.engine.student import Precision, Student
from edgeelad.engine.tree import TreeParams
from edgeelad.errors import RunError
from edgeelad.records import Question, ReasoningTree

_student: Student | None = None  # a worker process's own


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
        num_workers: Worker processes; 1 grows in this process.
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
    with Student.open(folder, num_threads=num_threads, batch_size=batch_size, precision=precision) as student:
        if num_workers == 1:
            for block in blocks:
                yield from student.grow(block, params)
            return
    # opened once here all the same: what is wrong with the folder is said here, not by a worker
    pool = ProcessPoolExecutor(
        num_workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_open,
        initargs=(folder, num_threads, batch_size, precision),
    )
    try:
        pending: deque[Future[list[ReasoningTree]]] = deque()
        for block in blocks:
            pending.append(pool.submit(_grow, block, params))
            if len(pending) > num_workers + 1:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
    except BrokenProcessPool:
        raise RunError(
            "a scoring process died (killed, or out of memory); use fewer workers or a smaller scoring.batch_size, "
            "and run the command again: it goes on where it was"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _open(folder: Path, num_threads: int, batch_size: int, precision: Precision | None) -> None:
    """Make a worker ready: its own student; Ctrl-C is the parent's to handle; it dies with its parent."""
    global _student
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    _student = Student.open(folder, num_threads=num_threads, batch_size=batch_size, precision=precision)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _grow(block: list[Question], params: TreeParams) -> list[ReasoningTree]:
    assert _student is not None
    return list(_student.grow(block, params))
