"""Hand a question to the teacher if the student's answer is likely wrong, and log it for the next pool.

The teacher is asked through the client and the ledger of `edgeelad distill`, so a question that was paid for before
costs nothing, and the caps of its configuration hold. If the teacher fails, the student's answer stands.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeelad.edge.generation import insight
from edgeelad.errors import BudgetError, EdgeeladError, TeacherReplyError, UsageError
from edgeelad.files import PRIVATE, dump_json, storage_errors
from edgeelad.locks import lock_file
from edgeelad.records import Question, ReasoningTree
from edgeelad.teacher.protocol import Teacher
from edgeelad.text.explanation import join
from edgeelad.uncertainty.risk import risk_of

# questions that the teacher has at the same time; its client may allow fewer
MAX_ASKING = 32
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
    """Decides which questions the teacher gets, and asks it.

    Attributes:
        threshold: Probability that the student's answer is right, below which the teacher is asked.
    """

    def __init__(self, teacher: Teacher, threshold: float, log: EscalatedLog | None = None) -> None:
        self.threshold = threshold
        self._teacher, self._log = teacher, log
        self._is_spent = False
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
        self._is_spent = True
        interrupt = getattr(self._teacher, "interrupt", None)
        if callable(interrupt):
            interrupt()

    def _ask(self, question: Question, tree: ReasoningTree) -> Handed:
        own = insight(tree)
        try:
            reply = self._teacher.rationale(question, None)
        except TeacherReplyError as error:
            return self._failed("unusable", error, question, own)
        except BudgetError as error:
            self._is_spent = True
            _log.warning("%s; from now on the student answers alone", error)
            return self._failed("budget", error, question, own)
        except EdgeeladError as error:
            _log.warning("%s; the student's answer stands", error)
            return self._failed("failed", error, question, own)
        if reply.answer is None:
            return self._failed("unusable", TeacherReplyError("the reply states no answer"), question, own)
        text = join(reply.steps, reply.answer)
        self._note(question, reply.answer, text)
        extension = {"source": "teacher", "steps": list(reply.steps), "answer": reply.answer, "student": own}
        return Handed("answered", text, extension)

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
