"""From a row's draft to a question: texts checked, the answer's kind settled, the answer canonical, a unique id.

Takes drafts with their rows, gives questions; what cannot be one is a PoolError with file, line, field and remedy.
"""

from __future__ import annotations

import hashlib
import sqlite3
import unicodedata
from typing import Literal

from edgeelad.errors import StorageError
from edgeelad.pool.formats import Draft
from edgeelad.pool.rows import Row
from edgeelad.records import AnswerKind, Question
from edgeelad.text.answers import canonical, infer_kind
from edgeelad.text.explanation import split
from edgeelad.text.prompts import CHOICE_LABELS, question_text

Kind = Literal["auto", "number", "choice", "boolean", "text"]
ID_DIGITS = 16  # hexadecimal digits of a content hash: 64 bits, enough for a pool of any size that fits a disk
ID_TABLE = (
    "PRAGMA cache_size = -8000",  # kB; the rest goes to a temporary file
    "PRAGMA journal_mode = OFF",
    "CREATE TABLE ids (id TEXT PRIMARY KEY, number INTEGER, times INTEGER) WITHOUT ROWID",
    "BEGIN",
)
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
    """The ids given so far: own ids must be unique; questions without one get a hash of their content.

    They lie in a temporary database, most of it on disk where there are many: a pool of any size takes little memory.
    """

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._count = 0
        for statement in ID_TABLE:
            self._database.execute(statement)

    def close(self) -> None:
        """Forget the ids."""
        self._database.close()

    def settle(self, row: Row, question: Question) -> str:
        """The question's own id, or the hash of its text and choices, numbered where the same question comes again.

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
        """Take an id; False where it is taken."""
        try:
            found = self._database.execute("INSERT OR IGNORE INTO ids VALUES (?, ?, 1)", (question_id, self._count))
        except sqlite3.OperationalError as error:
            raise StorageError(
                f"the ids of the pool's questions do not fit into the temporary folder ({error}); free some space in "
                "it, or name another with the environment variable TMPDIR"
            ) from error
        return found.rowcount == 1

    def _find(self, column: str, question_id: str) -> tuple[int]:
        found: tuple[int] = self._database.execute(f"SELECT {column} FROM ids WHERE id = ?", (question_id,)).fetchone()
        return found


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
