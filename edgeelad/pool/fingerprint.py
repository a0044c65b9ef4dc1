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
        parts: list[object] = [question.id, question.text, question.kind, question.choices]
        parts += [question.answer, question.skill] if answers else []
        parts += [question.explanation] if explanations else []
        digest.update((json.dumps(parts) + "\n").encode("ascii"))  # JSON: no two rows give the same bytes
    return digest.hexdigest(), count
