"""From a row's draft to a question: texts checked, the answer's kind settled, the answer canonical, a unique id.

Takes drafts with their rows, gives questions; what cannot be one is a PoolError with file, line, field and remedy.
"""

from __future__ import annotations

import hashlib
import unicodedata
from typing import Literal

from edgeelad.answers import canonical, infer_kind
from edgeelad.explanation import split
from edgeelad.pool.formats import Draft
from edgeelad.pool.rows import Row
from edgeelad.prompts import CHOICE_LABELS, question_text
from edgeelad.records import AnswerKind, Question

Kind = Literal["auto", "number", "choice", "boolean", "text"]
ID_DIGITS = 16  # hexadecimal digits of a content hash: 64 bits, enough for a pool of any size that fits a disk
MAX_SHOWN = 60  # characters of a wrong value in a message


def make_question(row: Row, draft: Draft, kind: Kind) -> Question:
    """Check a draft and make its question; its id is "" where the row gave none.

    Raises:
        PoolError: Something in the row cannot be used.
    """
    parts = {"question": draft.text, "answer": draft.answer, "explanation": draft.explanation, "id": draft.id}
    parts |= {f"choices[{index}]": choice for index, choice in enumerate(draft.choices)}
    for name, value in parts.items():
        _check_text(row, name, value)
    settled = _settle_kind(draft, kind)
    choices = tuple(" ".join(choice.split()) for choice in draft.choices) if settled == "choice" else ()
    _check_choices(row, choices)
    answer = canonical(draft.answer, settled, choices) if draft.answer is not None else None
    if draft.answer is not None and answer is None:
        what = {"number": "a number", "choice": "one of the choices", "boolean": "yes or no", "text": "text"}[settled]
        row.fail(
            "answer", f"{_shown(draft.answer)} is not {what}", "correct it, leave it out, or set the answers' --kind"
        )
    steps = split(draft.explanation).steps if draft.explanation is not None else ()
    return Question(
        id=draft.id or "",
        text=draft.text.replace("\r\n", "\n").strip(),
        kind=settled,
        choices=choices,
        answer=answer,
        explanation=steps or None,
        skill=draft.skill,
    )


class Ids:
    """The ids given so far: own ids must be unique; questions without one get a hash of their content."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    def settle(self, row: Row, question: Question) -> str:
        """The question's own id, or the hash of its text and choices, numbered where the same question comes again.

        Raises:
            PoolError: Another question has this id.
        """
        question_id = question.id
        if question_id in self._seen:
            first = self._seen[question_id]
            row.fail("id", f"{_shown(question_id)} is also the id of question {first}", "give each question its own id")
        if not question_id:
            digest = content_hash(question)
            question_id, again = digest, 1
            while question_id in self._seen:
                again += 1
                question_id = f"{digest}-{again}"
        self._seen[question_id] = len(self._seen) + 1
        return question_id


def content_hash(question: Question) -> str:
    """A short hash of what is asked: SHA-256 of text and choices, whatever the spaces and the Unicode composition."""
    asked = " ".join(unicodedata.normalize("NFC", question_text(question)).split())
    return hashlib.sha256(asked.encode("utf-8")).hexdigest()[:ID_DIGITS]


def _settle_kind(draft: Draft, kind: Kind) -> AnswerKind:
    if kind != "auto":
        return kind
    if draft.kind is not None:
        return draft.kind
    return infer_kind(draft.answer or "", draft.choices)


def _check_choices(row: Row, choices: tuple[str, ...]) -> None:
    if len(choices) > len(CHOICE_LABELS):
        row.fail("choices", f"{len(choices)} choices", f"give at most {len(CHOICE_LABELS)}")
    if len(choices) == 1:
        row.fail("choices", "only one choice", "give at least two, or leave them out")
    if not all(choices):
        row.fail("choices", "an empty choice", "fill it in, or leave it out")


def _check_text(row: Row, name: str, value: str | None) -> None:
    if value is None:
        return
    if "\0" in value:
        row.fail(name, "holds a NUL character", "remove it")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        row.fail(name, f"holds half a character (\\u{ord(value[error.start]):04x})", "write the character whole")


def _shown(value: str) -> str:
    return repr(value if len(value) <= MAX_SHOWN else value[:MAX_SHOWN] + "…")
