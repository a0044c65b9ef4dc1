"""Have the teacher work on a batch: many questions side by side, each annotation given as soon as its turn comes.

Teacher calls go out from a pool of threads; the student's continuations are gathered and run as a batch while the
calls are under way. Annotations come in the order of the questions, and what each says depends on the replies alone,
not on timing. Nothing is written here: the ledger keeps what was paid for, the caller keeps the annotations.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from edgeelad.config import TeacherConfig
from edgeelad.errors import BudgetError, EdgeeladError, TeacherReplyError
from edgeelad.records import Annotation, Question, ReasoningTree
from edgeelad.teacher.protocol import Teacher
from edgeelad.teacher.revise import revise
from edgeelad.teacher.work import AskStudent, AskTeacher, Need

Continue = Callable[[Sequence[tuple[Question, tuple[str, ...]]]], list[str]]

# questions worked on for each call that may be under way: enough for the student's batches to fill
QUESTIONS_PER_CALL = 4


def annotate(
    questions: Sequence[Question],
    trees: Mapping[str, ReasoningTree],
    teacher: Teacher,
    continue_from: Continue,
    config: TeacherConfig,
) -> Iterator[Annotation]:
    """Annotate questions, in their order.

    When a cap is reached, or the teacher refuses or fails for good, no further question is begun, those under way are
    brought to an end as far as that goes, what is complete is yielded, and only then the error is raised.

    Args:
        questions: The batch.
        trees: The student's reasoning on each, by question id; one without is explained by the teacher from scratch.
        teacher: Whom to ask.
        continue_from: Gives the student's greedy text after the given steps, for many questions at once; called from
            the caller's thread only.
        config: The mode, the walk, limits, and how many calls may be under way.

    Raises:
        BudgetError, TeacherRefusedError, TeacherUnavailableError, StorageError: Why not all are annotated.
    """
    batch = _Batch(questions, trees, teacher, continue_from, config)
    next_index = 0
    with ThreadPoolExecutor(config.max_concurrency, thread_name_prefix="teacher") as threads:
        try:
            while batch.advance(threads):
                while next_index in batch.finished:
                    yield batch.finished.pop(next_index)
                    next_index += 1
        except BaseException:
            # also where the caller stops early: wait for what is paid for, send nothing more
            teacher.interrupt()
            threads.shutdown(cancel_futures=True)
            raise
    for index in sorted(batch.finished):
        yield batch.finished[index]
    if batch.error is not None:
        raise batch.error


class _Batch:
    """The questions under way: which are ready to go on, which wait for the teacher, which for the student."""

    def __init__(
        self,
        questions: Sequence[Question],
        trees: Mapping[str, ReasoningTree],
        teacher: Teacher,
        continue_from: Continue,
        config: TeacherConfig,
    ) -> None:
        self.finished: dict[int, Annotation] = {}
        self.error: EdgeeladError | None = None
        self._waiting_questions = deque(enumerate(questions))
        self._trees = trees
        self._teacher = teacher
        self._continue_from = continue_from
        self._config = config
        self._ladders: dict[int, Generator[Need, Any, Annotation]] = {}
        self._calls: dict[Future[Any], int] = {}
        self._continuations: dict[int, AskStudent] = {}

    def advance(self, threads: ThreadPoolExecutor) -> bool:
        """Do what can be done now, or wait for a reply; False when nothing is under way any more."""
        self._begin(threads)
        if not self._ladders:
            return False
        replied = [call for call in self._calls if call.done()]
        if not replied and self._continuations:
            self._continue(threads)
        elif not replied:
            replied = list(wait(self._calls, return_when=FIRST_COMPLETED).done)
        for call in sorted(replied, key=self._calls.__getitem__):
            self._receive(call, threads)
        return True

    def _begin(self, threads: ThreadPoolExecutor) -> None:
        max_open = QUESTIONS_PER_CALL * self._config.max_concurrency
        while self.error is None and self._waiting_questions and len(self._ladders) < max_open:
            index, question = self._waiting_questions.popleft()
            tree = self._trees.get(question.id)
            self._ladders[index] = revise(question, tree, self._config, self._teacher.abilities)
            self._resume(index, threads, None)

    def _continue(self, threads: ThreadPoolExecutor) -> None:
        items = sorted(self._continuations.items())
        self._continuations.clear()
        texts = self._continue_from([(need.question, need.steps) for _, need in items])
        assert len(texts) == len(items), "continue_from gives one text an item"
        for (index, _), text in zip(items, texts, strict=True):
            self._resume(index, threads, text)

    def _receive(self, call: Future[Any], threads: ThreadPoolExecutor) -> None:
        index = self._calls.pop(call)
        try:
            reply = call.result()
        except TeacherReplyError as error:
            self._resume(index, threads, error)
        except EdgeeladError as error:
            self._drop(index, error)
        else:
            self._resume(index, threads, reply)

    def _resume(self, index: int, threads: ThreadPoolExecutor, reply: Any) -> None:
        """Hand one question's work its reply (or throw it in, if it is an error), up to its next need or its end."""
        ladder = self._ladders[index]
        try:
            need = ladder.throw(reply) if isinstance(reply, TeacherReplyError) else ladder.send(reply)
        except StopIteration as stop:
            self.finished[index] = stop.value
            del self._ladders[index]
            return
        if isinstance(need, AskStudent):
            self._continuations[index] = need
        elif self.error is not None and not isinstance(self.error, BudgetError):
            # the teacher is gone: asking on is no use. After a cap, a reply that the ledger has is still free.
            self._drop(index, self.error)
        else:
            assert isinstance(need, AskTeacher)
            self._calls[threads.submit(need.call, self._teacher)] = index

    def _drop(self, index: int, error: EdgeeladError) -> None:
        """Leave a question unfinished; what its replies said is in the ledger."""
        self._ladders.pop(index).close()
        if self.error is None or (isinstance(self.error, BudgetError) and not isinstance(error, BudgetError)):
            self.error = error
