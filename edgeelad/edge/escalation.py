"""Hand a question to the teacher if the student's answer is likely wrong, and log it for the next pool.

The teacher is asked through the client and the ledger of `edgeelad distill`, so a question that was paid for before
costs nothing, and the caps of its configuration hold. If the teacher fails, the student's answer stands. One that is
down or refuses everything is left alone for a while; then one question tries it again.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeelad.edge.generation import insight
from edgeelad.errors import (
    BudgetError,
    EdgeeladError,
    TeacherError,
    TeacherRefusedError,
    TeacherReplyError,
    TeacherUnavailableError,
    UsageError,
)
from edgeelad.files import PRIVATE, dump_json, storage_errors
from edgeelad.locks import lock_file
from edgeelad.records import Question, ReasoningTree
from edgeelad.teacher.protocol import Teacher, UnusableReplyError
from edgeelad.text.explanation import join
from edgeelad.uncertainty.risk import risk_of

# questions that the teacher has at the same time; its client may allow fewer
MAX_ASKING = 32
# until a teacher that was unavailable, or refused everything, is tried again
COOL_OFF_S = 60.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Handed:
    """What became of a question that was handed to the teacher.

    Attributes:
        outcome: "answered", "unusable" (the reply), "budget" (a cap) or "failed".
        text: The teacher's explanation with its answer; None if there is none.
        extension: The field `edgeelad` of the choice.
    """

    outcome: str
    text: str | None
    extension: dict[str, Any]


class Escalation:
    """Decides which questions the teacher gets, and asks it; thread-safe.

    Args:
        teacher: The teacher. One that has a method `reopen()` is interrupted while it is left alone, answers what its
            ledger holds, and is reopened before it is tried again.
        threshold: Probability that the student's answer is right, below which the teacher is asked.
        log: Where the questions are kept.
        clock: Seconds, monotonic.

    Attributes:
        threshold: As given.
    """

    def __init__(
        self,
        teacher: Teacher,
        threshold: float,
        log: EscalatedLog | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.threshold = threshold
        self._teacher, self._log, self._clock = teacher, log, clock
        self._is_spent = False
        self._lock = threading.Lock()
        self._retry_at: float | None = None  # while the teacher is left alone
        self._is_tried = False
        self._can_reopen = callable(getattr(teacher, "reopen", None))
        self._limiter: Any = None

    def is_wanted(self, tree: ReasoningTree) -> bool:
        """Whether the student is too unsure of an answer."""
        return not self._is_spent and 1.0 - risk_of(tree) < self.threshold

    async def hand_over(self, question: Question, tree: ReasoningTree) -> Handed:
        """Ask the teacher, in a thread; what is asked when the client leaves is paid for, and kept in the ledger."""
        from anyio import CapacityLimiter, to_thread

        if self._limiter is None:  # it belongs to the event loop; other work has threads of its own
            self._limiter = CapacityLimiter(MAX_ASKING)
        return await to_thread.run_sync(self._ask, question, tree, abandon_on_cancel=True, limiter=self._limiter)

    def interrupt(self) -> None:
        """Ask nothing more."""
        with self._lock:  # a trial reopens the teacher before this, or not at all
            self._is_spent = True
        self._tell("interrupt")

    def _ask(self, question: Question, tree: ReasoningTree) -> Handed:
        own = insight(tree)
        try:
            with self._turn():
                reply = self._teacher.rationale(question, None)
        except TeacherReplyError as error:
            return self._failed("unusable", error, question, own)
        except BudgetError as error:
            self._is_spent = True
            _log.warning("%s; from now on the student answers alone", error)
            return self._failed("budget", error, question, own)
        except (TeacherUnavailableError, TeacherRefusedError) as error:
            return self._failed("failed", error, question, own)
        except EdgeeladError as error:
            _log.warning("%s; the student's answer stands", error)
            return self._failed("failed", error, question, own)
        except Exception:  # a teacher of the user's own may raise anything; no client loses its answer by that
            _log.exception("the teacher failed unexpectedly; the student's answer stands")
            return self._failed("failed", TeacherError("the teacher failed; see the server's log"), question, own)
        if reply.answer is None:
            return self._failed("unusable", TeacherReplyError("the reply states no answer"), question, own)
        text = join(reply.steps, reply.answer)
        self._note(question, reply.answer, text)
        extension = {"source": "teacher", "steps": list(reply.steps), "answer": reply.answer, "student": own}
        return Handed("answered", text, extension)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Ask the teacher in this block, unless it is left alone; after the cool-off one block at a time tries it.

        Raises:
            TeacherUnavailableError: It is left alone.
        """
        with self._lock:
            is_down = self._retry_at is not None
            is_over = self._retry_at is not None and self._clock() >= self._retry_at
            is_trial = is_over and not (self._is_tried or self._is_spent)
            if is_down and not is_trial and (self._is_tried or not self._can_reopen):
                raise TeacherUnavailableError("the teacher failed a short time ago, and is not asked now")
            if is_trial:
                self._tell("reopen")
                self._is_tried = True
        has_answered = False
        try:
            yield
            has_answered = True
        except UnusableReplyError:
            has_answered = True
            raise
        except (TeacherUnavailableError, TeacherRefusedError) as error:
            self._leave_alone(error)
            raise
        finally:
            if is_trial:
                self._end_trial(has_answered=has_answered)

    def _leave_alone(self, error: EdgeeladError) -> None:
        with self._lock:
            is_new = self._retry_at is None and not self._is_spent
            if is_new:
                self._stop()
        if is_new:
            _log.warning("%s; the student's answer stands, and the teacher is tried again in %.0f s", error, COOL_OFF_S)

    def _end_trial(self, *, has_answered: bool) -> None:
        """Ask as before if there was a reply; a request that got none may not be the only one."""
        with self._lock:
            self._is_tried, self._retry_at = False, None
            if not has_answered:
                self._stop()
        if has_answered:
            _log.warning("the teacher answers again")

    def _stop(self) -> None:
        """Begin to leave the teacher alone; what its ledger holds, it may still tell."""
        self._retry_at = self._clock() + COOL_OFF_S
        if self._can_reopen:
            self._tell("interrupt")

    def _tell(self, method: str) -> None:
        """Call a method that teachers need not have."""
        call = getattr(self._teacher, method, None)
        if callable(call):
            call()

    def _failed(self, outcome: str, error: EdgeeladError, question: Question, own: dict[str, Any]) -> Handed:
        self._note(question, None, None)
        return Handed(outcome, None, {"source": "student", **own, "escalation": str(error)})

    def _note(self, question: Question, answer: str | None, explanation: str | None) -> None:
        if self._log is not None:
            self._log.add(question, answer, explanation)


class EscalatedLog:
    """Questions that were handed to the teacher, as a pool: JSON lines with question, answer and explanation.

    Each question is logged once; without an answer if the teacher gave none.
    """

    def __init__(self, path: Path) -> None:
        """Open a log, or continue one; a line that a crash cut off is dropped.

        Raises:
            StorageError: It cannot be written.
            UsageError: Another server writes it, or it holds something else.
        """
        self.path = path
        self._lock = threading.Lock()
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, PRIVATE)
        try:
            lock_file(self._file)
        except OSError:
            os.close(self._file)
            raise UsageError(f"--escalated-log {path}: another server writes it; name another file") from None
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        try:
            self._known = {json.loads(line)["question"] for line in whole.splitlines()}
        except (ValueError, TypeError, KeyError):
            os.close(self._file)
            raise UsageError(f"--escalated-log {path}: holds other lines than questions; name another file") from None
        os.ftruncate(self._file, len(whole))

    def add(self, question: Question, answer: str | None, explanation: str | None) -> None:
        """Log a question unless it is there; a full disk is a warning, since the answer is worth more."""
        row = {"question": question.text, "answer": answer, "explanation": explanation}
        line = (dump_json({name: value for name, value in row.items() if value is not None}) + "\n").encode()
        with self._lock:
            if question.text in self._known:
                return
            size = os.fstat(self._file).st_size
            try:
                if os.write(self._file, line) < len(line):
                    os.ftruncate(self._file, size)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError as error:
                _log.warning("%s: cannot be written: %s", self.path, error.strerror)
                return
            self._known.add(question.text)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
