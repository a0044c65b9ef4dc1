"""Hash a pool: whether a run, or a file of scores, still belongs to the questions that it was started with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

from edgeelad.records import Question


def pool_fingerprint(
    questions: Iterable[Question], *, answers: bool = True, explanations: bool = True
) -> tuple[str, int]:
    """Hash the questions in order, and count them.

    What is asked always counts: ids, texts, kinds and choices. References count where they are used: `answers` where
    the pool is split into labeled and unlabeled questions or answers are compared, `explanations` where they teach.

    Returns:
        SHA-256 in hexadecimal, and the number of questions.
    """
    digest, count = hashlib.sha256(b"edgeelad-pool-2\n"), 0
    for question in questions:
        count += 1
        parts: list[object] = [question.id, question.text, question.kind, question.choices]
        parts += [question.answer, question.skill] if answers else []
        parts += [question.explanation] if explanations else []
        digest.update((json.dumps(parts) + "\n").encode("ascii"))  # JSON: no two rows give the same bytes
    return digest.hexdigest(), count
