"""Generate reasoning trees in worker processes, one session each; results keep the order of the questions.

Questions go out in blocks of `batch_size`, the same blocks for any number of workers, so results do not depend on it.
Workers that die are replaced (`processes`). A question that kills its workers, or that does not fit the student's
context, is set aside with the reason.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TypeVar

from edgeelad.engine.graph_files import Precision
from edgeelad.engine.memory import kv_share
from edgeelad.engine.processes import MAX_BLOCKS_AHEAD, Lost, WorkerProcesses
from edgeelad.engine.session import flush_denormals
from edgeelad.engine.student import Student
from edgeelad.engine.tree import TreeParams
from edgeelad.errors import PromptTooLongError, RunError
from edgeelad.records import Question, ReasoningTree

__all__ = ["MAX_BLOCKS_AHEAD", "SetAside", "generate_trees", "num_cores", "student_opener", "tree_processes"]

TOO_LONG = "prompt longer than the student's context"
Result = TypeVar("Result")
Block = list[Question]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SetAside:
    """A question without a tree, and why; `is_too_long` where it does not fit the student's context."""

    question: Question
    reason: str
    is_too_long: bool = False


def num_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores that this process may use: those it may run on, or fewer where a container's limit gives less time.

    Args:
        cgroup: Where Linux shows the limits of a container.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, period = 0, 1
    with contextlib.suppress(OSError, ValueError):  # no limit: "max" or -1, or no such file
        if (cgroup / "cpu.max").exists():
            quota, period = map(int, (cgroup / "cpu.max").read_text(encoding="ascii").split())
        else:
            names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            quota, period = (int((cgroup / "cpu" / name).read_text(encoding="ascii")) for name in names)
    return min(cores, -(-quota // period)) if quota > 0 else cores


def generate_trees(
    folder: Path,
    questions: Iterable[Question],
    params: TreeParams,
    *,
    num_workers: int,
    num_threads: int = 1,
    batch_size: int = 64,
    precision: Precision | None = None,
    kv_bytes: int | None = None,
    on_set_aside: Callable[[SetAside], None] | None = None,
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
        kv_bytes: Keys and values that each worker holds at most; default: what runs fastest, as far as memory goes.
        on_set_aside: Told, in the order of the questions, of those that have no tree; default: they are errors.

    Raises:
        ModelError: The student cannot be opened.
        PromptTooLongError: A question leaves no room for an explanation, and nobody is told instead.
        RunError: Worker processes die, whatever they work on; or of one question, and nobody is told instead.
    """
    opener = student_opener(folder, num_workers, num_threads, batch_size, precision, kv_bytes)
    source = iter(questions)
    blocks = iter(lambda: list(islice(source, batch_size)), [])
    first = list(islice(blocks, 2))
    if num_workers == 1 or len(first) < 2:
        with tree_work(opener, params, _same) as grow:
            for block in chain(first, blocks):
                yield from _trees(grow(block), on_set_aside)
        return
    with tree_processes(opener, params, _same, num_workers) as processes:
        yield from _trees(set_aside_lost(processes.map(chain(first, blocks))), on_set_aside)


def student_opener(
    folder: Path,
    num_workers: int,
    num_threads: int,
    batch_size: int,
    precision: Precision | None,
    kv_bytes: int | None,
) -> Callable[[], Student]:
    """What every worker calls to open its student; without `kv_bytes` they share the memory that is free."""
    return partial(
        Student.open,
        folder,
        num_threads=num_threads,
        batch_size=batch_size,
        precision=precision,
        kv_bytes=kv_share(num_workers) if kv_bytes is None else kv_bytes,
    )


def tree_processes(
    opener: Callable[[], Student],
    params: TreeParams,
    then: Callable[[ReasoningTree], Result],
    num_workers: int,
    warn: Callable[[str], None] = _log.warning,
) -> WorkerProcesses[Question, Result | SetAside]:
    """Workers that grow trees, and do `then` with each: what that gives is what leaves the process."""
    return WorkerProcesses(partial(_lonely_work, opener, params, then), num_workers, warn)


@contextmanager
def tree_work(
    opener: Callable[[], Student], params: TreeParams, then: Callable[[ReasoningTree], Result]
) -> Iterator[Callable[[Block], list[Result | SetAside]]]:
    """A student at work: from a block of questions to what comes of each."""
    with opener() as student:

        def grow(block: Block) -> list[Result | SetAside]:
            fitting = [question for question in block if student.fits(question)]
            grown = iter([then(tree) for tree in student.generate_trees(fitting, params)])
            is_fitting = {id(question) for question in fitting}
            return [next(grown) if id(q) in is_fitting else SetAside(q, TOO_LONG, True) for q in block]

        yield grow


@contextmanager
def _lonely_work(
    opener: Callable[[], Student], params: TreeParams, then: Callable[[ReasoningTree], Result]
) -> Iterator[Callable[[Block], list[Result | SetAside]]]:
    """The same in a process that does nothing else."""
    flush_denormals()
    with tree_work(opener, params, then) as grow:
        yield grow


def set_aside_lost(
    results: Iterable[Result | SetAside | Lost[Question]],
) -> Iterator[Result | SetAside]:
    """Questions that no worker survived are set aside too."""
    for result in results:
        yield SetAside(result.item, result.reason) if isinstance(result, Lost) else result


def _same(tree: ReasoningTree) -> ReasoningTree:
    return tree


def _trees(
    results: Iterable[ReasoningTree | SetAside], on_set_aside: Callable[[SetAside], None] | None
) -> Iterator[ReasoningTree]:
    for result in results:
        if not isinstance(result, SetAside):
            yield result
        elif on_set_aside is not None:
            on_set_aside(result)
        elif result.is_too_long:
            raise PromptTooLongError(
                f"question {result.question.id}: {result.reason}; shorten it or take a student with a longer context"
            )
        else:
            raise RunError(f"question {result.question.id}: {result.reason}; take it out of the pool, or report it")
