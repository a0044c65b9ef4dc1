"""Hash a pool: whether a run, or a file of scores, still belongs to the questions that it was started with."""

from __future__ import annotations

import hashlib
import json
import tempfile
import weakref
from collections.abc import Iterable, Iterator

from edgeelad.errors import PoolError
from edgeelad.pool.store import full_disk_errors
from edgeelad.records import Question

DIGEST_BYTES = 8
MAX_IN_MEMORY = 1 << 20  # bytes: the digests of 131,072 questions


def pool_fingerprint(
    questions: Iterable[Question], *, answers: bool = True, explanations: bool = True
) -> tuple[str, int]:
    """Hash the questions in order, and count them.

    Args:
        questions: The questions; ids, texts, kinds and choices are always hashed.
        answers: Whether to hash answers and skills: a run splits the pool by its answers and compares with them.
        explanations: Whether to hash explanations: the dataset teacher teaches them.

    Returns:
        SHA-256 in hexadecimal, and the number of questions.
    """
    digest, count = hashlib.sha256(b"edgeelad-pool-2\n"), 0
    for question in questions:
        count += 1
        digest.update(_content(question, answers=answers, explanations=explanations))
    return digest.hexdigest(), count


class QuestionDigests:
    """A short hash of what each question of a pool asks, to tell whether a second reading gives the same questions.

    They are kept in memory up to 1 MB, then in a temporary file.
    """

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(MAX_IN_MEMORY)  # noqa: SIM115  closed with this object
        weakref.finalize(self, self._file.close)

    def keep(self, questions: Iterable[Question]) -> Iterator[Question]:
        """Pass the questions of the first reading on.

        Raises:
            StorageError: The temporary folder is full.
        """
        for question in questions:
            with full_disk_errors("the digests of the pool's questions do", OSError):
                self._file.write(_digest(question))
            yield question

    def check(self, questions: Iterable[Question], first: int, source: str) -> Iterator[Question]:
        """Pass questions of the second reading on, while they are those of the first.

        Args:
            questions: The questions.
            first: The place of their first in the pool, counted from 0.
            source: The pool, for the message.

        Raises:
            PoolError: A question differs.
        """
        self._file.seek(first * DIGEST_BYTES)
        for number, question in enumerate(questions, start=first + 1):
            if self._file.read(DIGEST_BYTES) != _digest(question):
                raise PoolError(
                    f"{source}: it changed during scoring (question {number:,}); restore it, then run the command again"
                )
            yield question


def _digest(question: Question) -> bytes:
    content = _content(question, answers=False, explanations=False)
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()


def _content(question: Question, *, answers: bool, explanations: bool) -> bytes:
    """What is hashed of a question; no two give the same bytes."""
    parts: list[object] = [question.id, question.text, question.kind, question.choices]
    parts += [question.answer, question.skill] if answers else []
    parts += [question.explanation] if explanations else []
    return (json.dumps(parts) + "\n").encode("ascii")
