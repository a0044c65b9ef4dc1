"""Generate reasoning trees in worker processes, one session each; results keep the order of the questions.

Questions go out in blocks, the same blocks for any number of workers, so results do not depend on it.
Workers that die are replaced (`processes`). A question that kills its workers, or that does not fit the student's
context, is set aside with the reason.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TypeVar

from edgeelad.engine.blocks import BlockWorkers, Lost
from edgeelad.engine.memory import kv_share
from edgeelad.engine.options import EngineOptions, num_cores
from edgeelad.engine.processes import WorkerProcesses, check_main_guard
from edgeelad.engine.session import flush_denormals, limit_memory
from edgeelad.engine.student import Student
from edgeelad.engine.tree import TreeParams
from edgeelad.errors import PromptTooLongError, RunError
from edgeelad.records import Question, ReasoningTree

TOO_LONG = "prompt longer than the student's context"
Result = TypeVar("Result")
Block = list[Question]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SetAside:
    """A question without a tree, and why; `is_too_long` if it does not fit the student's context."""

    question: Question
    reason: str
    is_too_long: bool = False


def generate_trees(
    folder: Path,
    questions: Iterable[Question],
    params: TreeParams,
    options: EngineOptions | None = None,
    *,
    on_set_aside: Callable[[SetAside], None] | None = None,
    block_size: int | None = None,
) -> Iterator[ReasoningTree]:
    """Generate the tree of every question, in order.

    Args:
        folder: An exported student or a package.
        questions: A stream of any length.
        params: What to generate.
        options: How to run the student. One worker, or questions that fit one block, run in this process.
        on_set_aside: Called with each question that has no tree, in order; default: such a question is an error.
        block_size: Questions that a worker gets at a time; default: `batch_size`. It changes no tree.

    Raises:
        ModelError: The student cannot be opened.
        PromptTooLongError: A question does not fit the student's context, and there is no `on_set_aside`.
        RunError: Worker processes die whatever they work on; or over one question, and there is no `on_set_aside`.
    """
    options = options or EngineOptions()
    if options.num_workers > 1:
        check_main_guard()
    source = iter(questions)
    blocks = iter(lambda: list(islice(source, block_size or options.batch_size)), [])
    first = list(islice(blocks, 2))
    if not options.on_ray and (options.num_workers == 1 or len(first) < 2):
        with _tree_work(student_opener(folder, options), params, _same) as work:
            for block in chain(first, blocks):
                yield from _trees(work(block), on_set_aside)
        return
    with tree_workers(folder, options, params, _same) as processes:
        yield from _trees(set_aside_lost(processes.map(chain(first, blocks))), on_set_aside)


def student_opener(folder: Path, options: EngineOptions) -> Callable[[], Student]:
    """The function with which every worker opens its student; without `kv_bytes` they share the free memory."""
    kv_bytes = kv_share(options.num_workers) if options.kv_bytes is None else options.kv_bytes
    return partial(Student.open, folder, replace(options, kv_bytes=kv_bytes))


def tree_workers(
    folder: Path,
    options: EngineOptions,
    params: TreeParams,
    then: Callable[[ReasoningTree], Result],
    warn: Callable[[str], None] = _log.warning,
) -> BlockWorkers[Question, Result | SetAside]:
    """Workers that generate trees and apply `then` to each; only its result leaves the worker."""
    if options.on_ray:
        from edgeelad.engine.ray_actors import RayActors

        return RayActors(partial(_work_on_node, options=options, params=params, then=then), folder, options, warn)
    return WorkerProcesses(
        partial(_work_in_process, student_opener(folder, options), params, then),
        options.num_workers,
        warn,
        is_forking=sys.platform == "linux" and options.num_threads == 1,  # the session's threads would not survive
    )


@contextmanager
def _work_on_node(
    folder: Path, options: EngineOptions, params: TreeParams, then: Callable[[ReasoningTree], Result]
) -> Iterator[Callable[[Block], list[Result | SetAside]]]:
    """`_tree_work` in an actor, which shares the memory of its node with as many as the node has room for."""
    num_workers = max(num_cores() // options.num_threads, 1)
    with _tree_work(student_opener(folder, replace(options, num_workers=num_workers)), params, then) as work:
        yield work


@contextmanager
def _work_in_process(
    opener: Callable[[], Student], params: TreeParams, then: Callable[[ReasoningTree], Result]
) -> Iterator[Callable[[Block], list[Result | SetAside]]]:
    """`_tree_work` in a process that does nothing else."""
    flush_denormals()
    limit_memory()
    with _tree_work(opener, params, then) as work:
        yield work


@contextmanager
def _tree_work(
    opener: Callable[[], Student], params: TreeParams, then: Callable[[ReasoningTree], Result]
) -> Iterator[Callable[[Block], list[Result | SetAside]]]:
    """Open a student; gives the function from a block of questions to their results."""
    with opener() as student:

        def work(block: Block) -> list[Result | SetAside]:
            fitting = [question for question in block if student.fits(question)]
            results = iter([then(tree) for tree in student.generate_trees(fitting, params)])
            is_fitting = {id(question) for question in fitting}
            return [next(results) if id(q) in is_fitting else SetAside(q, TOO_LONG, True) for q in block]

        yield work


def set_aside_lost(results: Iterable[Result | SetAside | Lost[Question]]) -> Iterator[Result | SetAside]:
    """Set aside the questions that killed their workers, too."""
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
                f"question {result.question.id}: {result.reason}; shorten it or use a student with a longer context"
            )
        else:
            raise RunError(
                f"question {result.question.id}: {result.reason}; remove it from the pool, or report the failure"
            )
