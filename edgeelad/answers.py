"""Extract, normalize and compare answers: number, choice, boolean, text.

A canonical answer is a string, so that equality of answers is equality of strings. "No answer found" is None, its own
outcome, which agrees with nothing. Takes text, gives canonical strings; knows no models and no files.
"""

from __future__ import annotations


def agree(first: str | None, second: str | None) -> bool:
    """Whether two canonical answers are the same; an answer that was not found agrees with nothing."""
    return first is not None and first == second
