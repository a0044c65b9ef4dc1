"""Worker processes that die are replaced, their items retried, the culprit found; endless deaths end the work."""

import contextlib
import multiprocessing
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytest

from edgeelad.engine.blocks import MAX_BLOCKS_AHEAD, MAX_DEATHS_IN_A_ROW, MAX_FAILED_STARTS, Lost
from edgeelad.engine.processes import WorkerProcesses
from edgeelad.errors import MissingExtraError, RunError

POISON, BUG, ONCE, WRONG = 1000, 1001, 1002, 1003


@contextmanager
def doubling(folder: Path | None = None) -> Iterator[Callable[[list[int]], list[int]]]:
    """Work that doubles numbers, and dies over some; over ONCE only while `folder` has no mark."""

    def work(items: list[int]) -> list[int]:
        for item in items:
            if item == POISON or (item == ONCE and not _is_marked(folder)):
                os.kill(os.getpid(), signal.SIGKILL)
            if item == BUG:
                raise ZeroDivisionError("no such number")
            if item == WRONG:
                raise MissingExtraError("sums", "sums", "adding")
        return [2 * item for item in items]

    yield work


def _is_marked(folder: Path | None) -> bool:
    assert folder is not None
    try:
        (folder / "mark").touch(exist_ok=False)
    except FileExistsError:
        return True
    return False


@contextmanager
def crowded(folder: Path) -> Iterator[Callable[[list[int]], list[int]]]:
    """Work that only one process can start, once three others have tried to and are gone."""
    try:
        (folder / "taken").touch(exist_ok=False)
    except FileExistsError:
        (folder / "tried").write_text(f"{os.getpid():9}", encoding="ascii")
        os._exit(3)
    tried = os.open(folder / "tried", os.O_RDWR)

    def work(items: list[int]) -> list[int]:
        for _ in range(MAX_FAILED_STARTS if 0 in items else 0):
            with contextlib.suppress(ProcessLookupError):
                select.select([os.pidfd_open(int(os.read(tried, 9)))], [], [])
        return [2 * item for item in items]

    yield work


@contextmanager
def gated(folder: Path) -> Iterator[Callable[[list[int]], list[int]]]:
    """Work that doubles numbers, 0 only once the gate in `folder` opens."""

    def work(items: list[int]) -> list[int]:
        if 0 in items:
            (folder / "gate").read_bytes()
        return [2 * item for item in items]

    yield work


@contextmanager
def hopeless() -> Iterator[Callable[[list[int]], list[int]]]:
    """Work that no process can start."""
    os._exit(3)
    yield list


def _blocks(numbers: Iterator[int] | list[int], size: int = 4) -> Iterator[list[int]]:
    source = iter(numbers)
    return iter(lambda: list(islice(source, size)), [])


Start = Callable[..., WorkerProcesses[Any, Any]]


@pytest.fixture(params=["spawned", "forked"])
def start(request: pytest.FixtureRequest) -> Start:
    """`WorkerProcesses` with processes of their own, or forked from a template."""
    if request.param == "forked" and sys.platform != "linux":
        pytest.skip("forks on Linux only")
    return partial(WorkerProcesses, is_forking=request.param == "forked")


@pytest.mark.parametrize("num_processes", [1, 3])
def test_results_come_in_order(start: Start, num_processes: int) -> None:
    with start(doubling, num_processes) as workers:
        assert list(workers.map(_blocks(list(range(30))))) == [2 * n for n in range(30)]
        assert len(multiprocessing.active_children()) <= num_processes
        assert workers.num_replaced == 0
        assert workers.peak_bytes is None or workers.peak_bytes > 1 << 20
    assert multiprocessing.active_children() == []


def test_no_more_processes_than_blocks_and_no_more_blocks_than_needed(start: Start) -> None:
    read: list[int] = []

    def counted() -> Iterator[int]:
        for number in count(1):
            read.append(number)
            yield number

    with start(doubling, 8) as workers:
        assert list(workers.map(_blocks([1, 2, 3]))) == [2, 4, 6]
        assert len(multiprocessing.active_children()) == 1
    with start(doubling, 2) as workers:
        for number, result in enumerate(islice(workers.map(_blocks(counted())), 60), start=1):
            assert result == 2 * number
            assert len(read) <= number + 4 * (2 * MAX_BLOCKS_AHEAD)


@pytest.mark.parametrize("num_processes", [1, 2])
def test_an_item_that_kills_is_lost_and_no_other(start: Start, num_processes: int) -> None:
    told: list[str] = []
    with start(doubling, num_processes, told.append) as workers:
        results = list(workers.map(_blocks([*range(6), POISON, *range(6)])))
    place = 6
    lost = results.pop(place)
    assert results == [2 * n for n in (*range(6), *range(6))]
    assert isinstance(lost, Lost)
    assert lost.item == POISON
    # with its block, with its block again, alone
    assert lost.reason == "3 worker processes died of it (killed by signal 9: out of memory, or killed by hand)"
    assert workers.num_replaced == len(told) == 3


def test_an_item_alone_in_its_block_is_lost_when_it_kills_twice(start: Start) -> None:
    with start(doubling, 1) as workers:
        results = list(workers.map(_blocks([1, POISON, 2], 1)))
    assert results == [2, Lost(POISON, results[1].reason), 4]
    assert workers.num_replaced == 2


def test_a_block_whose_process_dies_once_is_whole(start: Start, tmp_path: Path) -> None:
    with start(partial(doubling, tmp_path), 2) as workers:
        results = list(workers.map(_blocks([1, ONCE, 2, 3, 4, 5])))
    assert results == [2, 2 * ONCE, 4, 6, 8, 10]
    assert workers.num_replaced == 1


def test_an_item_that_raises_is_lost_with_the_exception(start: Start) -> None:
    with start(doubling, 2) as workers:
        results = list(workers.map(_blocks([1, BUG, 2])))
    assert (results[0], results[2]) == (2, 4)
    assert "ZeroDivisionError: no such number (" in results[1].reason
    assert "test_engine_processes.py:" in results[1].reason


def test_errors_of_edgeelad_end_the_work(start: Start) -> None:
    with start(doubling, 2) as workers, pytest.raises(MissingExtraError, match="adding needs sums"):
        list(workers.map(_blocks([*range(8), WRONG])))
    assert multiprocessing.active_children() == []


def test_the_work_ends_if_every_process_dies(start: Start) -> None:
    with (
        start(doubling, 2, lambda _: None) as workers,
        pytest.raises(RunError, match="died without finishing anything"),
    ):
        list(workers.map(_blocks([POISON] * 40)))
    assert workers.num_replaced == MAX_DEATHS_IN_A_ROW + 2 + 1


def test_the_work_ends_if_no_process_can_start(start: Start) -> None:
    with (
        start(hopeless, 2) as workers,
        pytest.raises(RunError, match=rf"{MAX_FAILED_STARTS} worker processes died .* \(exit code 3\); use fewer"),
    ):
        list(workers.map(_blocks(list(range(40)))))
    assert multiprocessing.active_children() == []


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs process descriptors (Linux)")
def test_one_process_does_all_the_work_if_there_is_room_for_one(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "tried")
    told: list[str] = []
    with WorkerProcesses(partial(crowded, tmp_path), 2, told.append) as workers:
        assert list(workers.map(_blocks(list(range(40))))) == [2 * n for n in range(40)]
    assert workers.num_workers == 1
    assert told == ["worker processes die before they are ready (exit code 3): continuing with 1"]


class Kept:
    """Keeps blocks in memory; from `most` on it fails."""

    def __init__(self, most: int) -> None:
        self.blocks: dict[int, list[int]] = {}
        self.most = most

    def find(self, block: list[int]) -> list[int] | None:
        return self.blocks.get(block[0])

    def keep(self, block: list[int], results: Sequence[int]) -> None:
        self.blocks[block[0]] = list(results)
        if len(self.blocks) == self.most:
            raise KeyboardInterrupt

    def drop(self, block: list[int]) -> None:
        del self.blocks[block[0]]


def test_blocks_that_finish_first_are_kept_and_not_done_again(start: Start, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gate")
    kept = Kept(2 * MAX_BLOCKS_AHEAD - 1)  # all that can be ahead of the first one
    with start(partial(gated, tmp_path), 2) as workers, pytest.raises(KeyboardInterrupt):
        list(workers.map(_blocks(list(range(40))), kept))
    assert kept.blocks == {first: [2 * n for n in range(first, first + 4)] for first in (4, 8, 12)}
    (tmp_path / "gate").unlink()
    (tmp_path / "gate").touch()
    kept.blocks[8] = [-1, -2, -3, -4]  # so that it shows where they come from
    kept.most = 40
    with start(partial(gated, tmp_path), 2) as workers:
        results = list(workers.map(_blocks(list(range(40))), kept))
    assert results == [*(2 * n for n in range(8)), -1, -2, -3, -4, *(2 * n for n in range(12, 40))]
    assert kept.blocks == {}


@contextmanager
def telling_signals() -> Iterator[Callable[[list[int]], list[bool]]]:
    """Work that tells whether the process has blocked Ctrl-C since it began."""
    yield lambda items: [signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []) for _ in items]


def test_a_worker_that_is_interrupted_while_it_starts_prints_nothing(start: Start) -> None:
    with start(telling_signals, 1) as workers:
        assert list(workers.map(iter([[0]]))) == [True]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


@contextmanager
def counted(folder: Path) -> Iterator[Callable[[list[int]], list[int]]]:
    """Work that gives the parent's process id; notes that it was started. Item 0 kills the parent, ONCE its worker."""
    with (folder / "starts").open("a", encoding="ascii") as file:
        file.write("started\n")

    def work(items: list[int]) -> list[int]:
        parent = os.getppid()
        if 0 in items:
            os.kill(parent, signal.SIGKILL)
        if ONCE in items and not _is_marked(folder):
            os.kill(os.getpid(), signal.SIGKILL)
        return [parent] * len(items)

    yield work


@pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux only")
def test_forked_workers_share_what_was_started_once(tmp_path: Path) -> None:
    with WorkerProcesses[int, int](partial(counted, tmp_path), 3, is_forking=True) as workers:
        parents = list(workers.map(_blocks([*range(1, 40), ONCE])))
        assert workers.num_replaced == 1
    assert len(parents) == 40
    assert len(set(parents)) == 1
    assert os.getpid() not in parents
    assert (tmp_path / "starts").read_text() == "started\n"


@pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux only")
def test_workers_outlive_their_template_and_get_another(tmp_path: Path) -> None:
    with WorkerProcesses[int, int](partial(counted, tmp_path), 1, is_forking=True) as workers:
        parents = list(workers.map(_blocks([0, 1, 2, ONCE, 3], 1)))
        assert workers.num_replaced == 1
    assert len(set(parents[3:])) == 1
    assert parents[0] != parents[3]
    assert (tmp_path / "starts").read_text() == "started\n" * 2


@contextmanager
def refused() -> Iterator[Callable[[list[int]], list[int]]]:
    """Work that cannot be started, for a reason that is told."""
    raise MissingExtraError("sums", "sums", "adding")
    yield list


def test_an_error_of_edgeelad_while_the_work_starts_ends_it(start: Start) -> None:
    with start(refused, 2) as workers, pytest.raises(MissingExtraError, match="adding needs sums"):
        list(workers.map(_blocks(list(range(8)))))
    assert multiprocessing.active_children() == []


@contextmanager
def endless(folder: Path) -> Iterator[Callable[[list[int]], list[int]]]:
    """Work that is never started."""
    (folder / "begun").write_text("begun", encoding="ascii")
    signal.pause()
    yield list


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_an_interrupt_while_the_work_starts_leaves_no_process(start: Start, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "begun")

    def interrupt() -> None:
        (tmp_path / "begun").read_text(encoding="ascii")
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with start(partial(endless, tmp_path), 1) as workers, pytest.raises(KeyboardInterrupt):
        list(workers.map(_blocks([1])))
    thread.join()
    assert multiprocessing.active_children() == []
