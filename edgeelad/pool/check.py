"""Turn a row's draft into a question: check its texts, settle the answer's kind, make the answer canonical, give an id.

Takes drafts with their rows; what cannot be a question is a PoolError with file, line, field and remedy.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping
from typing import Literal

from edgeelad.pool.own import Draft
from edgeelad.pool.rows import MAX_TEXT, Row
from edgeelad.pool.store import full_disk_errors, temporary_database
from edgeelad.records import AnswerKind, Question
from edgeelad.text.answers import canonical, infer_kind
from edgeelad.text.explanation import split
from edgeelad.text.prompts import CHOICE_LABELS, question_text

Kind = Literal["auto", "number", "choice", "boolean", "text"]
KIND_NAMES: dict[AnswerKind, str] = {
    "number": "a number",
    "choice": "one of the choices",
    "boolean": "yes or no",
    "text": "text",
}
ID_DIGITS = 16  # hexadecimal digits of a content hash: 64 bits, enough for a pool of any size that fits a disk
MAX_SHOWN = 60  # characters of a wrong value in a message


def make_question(row: Row, draft: Draft, kind: Kind, default_kind: AnswerKind | None = None) -> Question:
    """Check a draft and make its question; its id is "" if the row gave none.

    Args:
        row: The draft's row, for messages.
        draft: The question's parts.
        kind: Kind of all answers; "auto": as the row tells it.
        default_kind: Kind of a question without choices that has no answer, or one that can be read as of this kind.

    Raises:
        PoolError: Something in the row cannot be used.
    """
    parts = {"question": draft.text, "answer": draft.answer, "explanation": draft.explanation, "id": draft.id}
    parts |= {f"choices[{index}]": choice for index, choice in enumerate(draft.choices)}
    for name, value in parts.items():
        _check_text(row, name, value)
    settled = _settle_kind(draft, kind, default_kind)
    choices = tuple(" ".join(choice.split()) for choice in draft.choices) if settled == "choice" else ()
    _check_choices(row, choices)
    given = draft.answer
    if given is not None and draft.choices and settled != "choice":
        given = _text_of_choice(given, draft.choices)
    answer = canonical(given, settled, choices) if given is not None else None
    if given is not None and answer is None:
        remedy = "correct it, leave it out, or set the answer type with --kind"
        row.fail("answer", f"{_shown(given)} is not {KIND_NAMES[settled]}", remedy)
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


def other_kinds(kinds: Mapping[AnswerKind, int], expected: AnswerKind | None) -> str:
    """How the answers of a pool differ in type from those that a student was taught, in words; "" if they do not.

    Args:
        kinds: The number of answers by type.
        expected: The student's type; None if unknown; "text" also for several types, and then nothing differs.
    """
    return "" if expected == "text" else _differences(kinds, expected)


def doubtful_kinds(kinds: Mapping[AnswerKind, int], expected: AnswerKind | None) -> str:
    """What a student of type "text", which may have been taught several types, may not know; "" if all is text."""
    found = _differences(kinds, expected) if expected == "text" else ""
    return found and f"{found}: unless it was taught such questions as well, its accuracy on them says nothing"


def _differences(kinds: Mapping[AnswerKind, int], expected: AnswerKind | None) -> str:
    others = {kind: num for kind, num in kinds.items() if kind != expected}
    if expected is None or not others:
        return ""
    most, total = max(others, key=lambda kind: others[kind]), sum(kinds.values())
    return f"{others[most]:,} of {total:,} answers are of type {most}, and the student's are of type {expected}"


class Ids:
    """The ids given so far: a row's own ids must be unique; questions without one get a hash of their content.

    They are kept in a temporary database, mostly on disk if there are many, so that a pool of any size needs little
    memory.
    """

    def __init__(self) -> None:
        self._database = temporary_database()
        self._database.execute("CREATE TABLE ids (id TEXT PRIMARY KEY, number INTEGER, times INTEGER) WITHOUT ROWID")
        self._count = 0

    def close(self) -> None:
        """Delete the database."""
        self._database.close()

    def settle(self, row: Row, question: Question) -> str:
        """The question's own id, or the hash of its text and choices, numbered if the same question occurs again.

        Raises:
            PoolError: Another question has this id.
            StorageError: The temporary folder is full.
        """
        self._count += 1
        if not question.id:
            return self._settle_hash(content_hash(question))
        if not self._take(question.id):
            (first,) = self._find("number", question.id)
            row.fail("id", f"{_shown(question.id)} is also the id of question {first}", "give each question its own id")
        return question.id

    def _settle_hash(self, digest: str) -> str:
        if self._take(digest):
            return digest
        (times,) = self._find("times", digest)
        while not self._take(f"{digest}-{times + 1}"):
            times += 1
        self._database.execute("UPDATE ids SET times = ? WHERE id = ?", (times + 1, digest))
        return f"{digest}-{times + 1}"

    def _take(self, question_id: str) -> bool:
        """Take an id; False if it is taken."""
        with full_disk_errors("the ids of the pool's questions do"):
            found = self._database.execute("INSERT OR IGNORE INTO ids VALUES (?, ?, 1)", (question_id, self._count))
        return found.rowcount == 1

    def _find(self, column: str, question_id: str) -> tuple[int]:
        found: tuple[int] = self._database.execute(f"SELECT {column} FROM ids WHERE id = ?", (question_id,)).fetchone()
        return found


def content_hash(question: Question) -> str:
    """A short hash of what is asked: SHA-256 of text and choices, independent of spaces and Unicode composition."""
    asked = " ".join(unicodedata.normalize("NFC", question_text(question)).split())
    return hashlib.sha256(asked.encode("utf-8")).hexdigest()[:ID_DIGITS]


def _settle_kind(draft: Draft, kind: Kind, default_kind: AnswerKind | None) -> AnswerKind:
    if kind != "auto":
        return kind
    if draft.kind is not None:
        return draft.kind
    if draft.choices or default_kind is None:
        return infer_kind(draft.answer or "", draft.choices)
    # "text" is also what a package says of a pool of several kinds, so it overrides no answer
    is_of_default = default_kind != "text" and canonical(draft.answer or "", default_kind) is not None
    return default_kind if draft.answer is None or is_of_default else infer_kind(draft.answer)


def _text_of_choice(answer: str, choices: tuple[str, ...]) -> str:
    """The text of the choice that an answer names by its label; any other answer as it is."""
    index = CHOICE_LABELS.find(answer) if len(answer) == 1 else -1
    return choices[index] if 0 <= index < len(choices) else answer


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
    if len(value) > MAX_TEXT:
        row.fail(name, f"{len(value):,} characters", f"shorten it to {MAX_TEXT:,}, or delete the row")
    if "\0" in value:
        row.fail(name, "holds a NUL character", "remove it")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        row.fail(name, f"holds half a character (\\u{ord(value[error.start]):04x})", "write the character whole")


def _shown(value: str) -> str:
    return repr(value if len(value) <= MAX_SHOWN else value[:MAX_SHOWN] + "…")
