"""Work on many questions at once: teacher calls from a pool of threads, the student's continuations in batches.

Takes works (generators that yield what they need, see `work`), gives what each returned, in their order. What comes
depends on the replies alone, not on timing. A batched teacher's replies are fetched when nothing else can continue.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Generic, TypeVar, cast

from edgeelad.errors import BudgetError, EdgeeladError, TeacherReplyError
from edgeelad.records import Question
from edgeelad.teacher.client.batch_pending import NotYetError, Pending
from edgeelad.teacher.protocol import FullTeacher, Teacher
from edgeelad.teacher.revision.work import AskStudent, AskTeacher, Need

Continue = Callable[[Sequence[tuple[Question, tuple[str, ...]]]], list[str]]
Result = TypeVar("Result")

# works in progress per concurrent call: enough for the student's batches to fill
WORKS_PER_CALL = 4


def work_side_by_side(
    works: Iterable[Generator[Need, Any, Result]], teacher: Teacher, continue_from: Continue, max_concurrency: int
) -> Iterator[Result]:
    """Run works to their ends; results come in the order of the works.

    When a cap is reached, or the teacher refuses or fails for good, no further work is begun, those in progress are
    finished if possible, what is complete is yielded, and only then the error is raised.

    Args:
        works: Begun as they are needed; all at once with a batched teacher.
        teacher: Whom `AskTeacher` asks.
        continue_from: Whom `AskStudent` asks; called from the caller's thread only.
        max_concurrency: Maximum number of concurrent teacher calls.

    Raises:
        BudgetError, TeacherRefusedError, TeacherUnavailableError, StorageError: Why not all are done.
    """
    desk = _Desk(works, teacher, continue_from, max_concurrency)
    next_index = 0
    with ThreadPoolExecutor(max_concurrency, thread_name_prefix="teacher") as threads:
        try:
            while desk.advance(threads):
                while next_index in desk.finished:
                    yield desk.finished.pop(next_index)
                    next_index += 1
        except BaseException:
            # also if the caller stops early: wait for what is paid for, send nothing more
            getattr(teacher, "interrupt", lambda: None)()
            threads.shutdown(cancel_futures=True)
            raise
    for index in sorted(desk.finished):
        yield desk.finished[index]
    if desk.error is not None:
        raise desk.error


class _Desk(Generic[Result]):
    """The works in progress: which are ready to continue, which wait for the teacher, which for the student."""

    def __init__(
        self,
        works: Iterable[Generator[Need, Any, Result]],
        teacher: Teacher,
        continue_from: Continue,
        max_concurrency: int,
    ) -> None:
        self.finished: dict[int, Result] = {}
        self.error: EdgeeladError | None = None
        # works ask only for what the teacher can do (`abilities_of`)
        self._teacher = cast(FullTeacher, teacher)
        # a teacher that buys in batches: its replies are fetched when nothing else can be done
        self._buy: Callable[[Sequence[Pending]], None] | None = getattr(teacher, "fetch", None)
        self._continue_from = continue_from
        self._new = enumerate(works)
        self._max_open = WORKS_PER_CALL * max_concurrency if self._buy is None else None
        self._works: dict[int, Generator[Need, Any, Result]] = {}
        self._calls: dict[Future[Any], tuple[int, AskTeacher]] = {}
        self._continuations: dict[int, AskStudent] = {}
        self._pending: dict[int, tuple[AskTeacher, Pending]] = {}

    def advance(self, threads: ThreadPoolExecutor) -> bool:
        """Do what can be done now, or wait for a reply; False when no work is left."""
        self._begin(threads)
        if not self._works:
            return False
        replied = [call for call in self._calls if call.done()]
        if replied:
            self._receive(replied, threads)
        elif self._continuations:
            self._continue(threads)
        elif self._calls:
            self._receive(list(wait(self._calls, return_when=FIRST_COMPLETED).done), threads)
        else:
            self._fetch(threads)
        return True

    def _begin(self, threads: ThreadPoolExecutor) -> None:
        while self.error is None and (self._max_open is None or len(self._works) < self._max_open):
            new = next(self._new, None)
            if new is None:
                return
            index, work = new
            self._works[index] = work
            self._resume(index, threads, None)

    def _continue(self, threads: ThreadPoolExecutor) -> None:
        items = sorted(self._continuations.items())
        self._continuations.clear()
        texts = self._continue_from([(need.question, need.steps) for _, need in items])
        assert len(texts) == len(items), "continue_from gives one text an item"
        for (index, _), text in zip(items, texts, strict=True):
            self._resume(index, threads, text)

    def _fetch(self, threads: ThreadPoolExecutor) -> None:
        """Buy what a batched teacher has pending, then ask again."""
        waiting = deque(sorted(self._pending.items()))
        self._pending.clear()
        try:
            assert self._buy is not None, "only a teacher that buys in batches leaves replies pending"
            self._buy([pending for _, (_, pending) in waiting])
        except EdgeeladError as error:
            for index, _ in waiting:
                self._drop(index, error)
            return
        for index, (need, _) in waiting:
            self._calls[threads.submit(need.call, self._teacher)] = (index, need)

    def _receive(self, calls: Sequence[Future[Any]], threads: ThreadPoolExecutor) -> None:
        for call in sorted(calls, key=lambda call: self._calls[call][0]):
            index, need = self._calls.pop(call)
            try:
                reply = call.result()
            except NotYetError as error:
                self._pending[index] = (need, error.pending)
            except TeacherReplyError as error:
                self._resume(index, threads, error)
            except EdgeeladError as error:
                self._drop(index, error)
            else:
                self._resume(index, threads, reply)

    def _resume(self, index: int, threads: ThreadPoolExecutor, reply: Any) -> None:
        """Hand a work its reply (or throw it in, if it is an error), up to its next need or its end."""
        work = self._works[index]
        try:
            need = work.throw(reply) if isinstance(reply, TeacherReplyError) else work.send(reply)
        except StopIteration as stop:
            self.finished[index] = stop.value
            del self._works[index]
            return
        if isinstance(need, AskStudent):
            self._continuations[index] = need
        elif self.error is not None and not isinstance(self.error, BudgetError):
            # the teacher is gone: asking on is no use. After a cap, a reply that the ledger has is still free.
            self._drop(index, self.error)
        else:
            self._calls[threads.submit(need.call, self._teacher)] = (index, need)

    def _drop(self, index: int, error: EdgeeladError) -> None:
        """Leave a work unfinished; what its replies said is in the ledger."""
        self._works.pop(index).close()
        if self.error is None or (isinstance(self.error, BudgetError) and not isinstance(error, BudgetError)):
            self.error = error
