"""Make questions of what users type."""

from __future__ import annotations

from edgeelad.errors import UsageError
from edgeelad.records import AnswerKind, Question


def make_question(text: str, kind: AnswerKind) -> Question:
    """Make a question of a text that a user typed; its choices, if any, are part of the text.

    Raises:
        UsageError: It is empty or not text.
    """
    if not text.strip():
        raise UsageError('the question is empty; give it in quotes, such as "What is 2 + 3?"')
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(f"the question is not UTF-8 at character {error.start}; set a UTF-8 locale") from error
    return Question("question", text, kind)
