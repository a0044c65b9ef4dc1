"""Keep a pool's questions in a temporary file, and read them when they are used.

Takes questions in the pool's order; gives them by id, by place, or in the order of their ids. Memory holds 8 bytes per
question, its place in the pool. The file is SQLite's, which deletes it when the pool is no longer used.
"""

from __future__ import annotations

import json
import sqlite3
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any, Protocol, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from edgeelad.errors import StorageError
from edgeelad.records import Question

Places = NDArray[np.int64]


class HasId(Protocol):
    """A record about a question."""

    @property
    def id(self) -> str:
        """The question's id."""


Record = TypeVar("Record", bound=HasId)


class Pool(Mapping[str, Question]):
    """Questions by id, in the order of their pool.

    Attributes:
        places: The questions' places in the pool that was stored, ascending, counted from 0.
    """

    def __init__(self, table: _Table, places: Places) -> None:
        self._table = table
        self.places = places

    @classmethod
    def store(cls, questions: Iterable[Question]) -> Pool:
        """Write questions with unique ids to a temporary file.

        Raises:
            StorageError: The temporary folder is full.
        """
        table = _Table()
        return cls(table, np.arange(table.fill(questions), dtype=np.int64))

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> Iterator[str]:
        return (id_ for place, id_ in self._table.ids() if self._holds(place))

    def __getitem__(self, id_: str) -> Question:
        place = self._table.find(id_)
        if place is None or not self._holds(place):
            raise KeyError(id_)
        return self._table.question(place)

    @property
    def questions(self) -> Questions:
        """The questions in the pool's order."""
        return Questions(self._table, self.places)

    def by_id(self) -> Questions:
        """The questions in the order of their ids."""
        order = self._table.places_by_id()
        return Questions(self._table, order[np.isin(order, self.places)])

    def part(self, places: Places) -> Pool:
        """The pool of the questions at some places, which are ascending; it shares the file."""
        return Pool(self._table, places)

    def only(self, ids: Iterable[str]) -> Pool:
        """The part of the pool with some ids."""
        return self.part(self.places[np.isin(self.places, self._table.places(ids))])

    def without(self, ids: Iterable[str]) -> Pool:
        """The part of the pool without some ids."""
        return self.part(self.places[np.isin(self.places, self._table.places(ids), invert=True)])

    def num_until(self, id_: str) -> int:
        """How many of its questions stand no later in the stored pool than this one, itself included.

        Raises:
            KeyError: The stored pool has no such question.
        """
        place = self._table.find(id_)
        if place is None:
            raise KeyError(id_)
        return int(np.searchsorted(self.places, place, side="right"))

    @property
    def has_answers(self) -> bool:
        """Whether some question has an answer; what no answer tells need not be read then."""
        return any(map(self._holds, self._table.answered()))

    def align(self, records: Iterable[Record]) -> Iterator[tuple[int, Record]]:
        """The places of questions that records are about; the records are in the pool's order, and may skip questions.

        Raises:
            KeyError: A record is about no question that follows the last one's.
        """
        stored = self._table.ids()
        for record in records:
            place = next((place for place, id_ in stored if id_ == record.id), None)
            if place is None:
                raise KeyError(record.id)
            yield place, record

    def _holds(self, place: int) -> bool:
        index = np.searchsorted(self.places, place)
        return bool(index < len(self.places) and self.places[index] == place)


class Questions(Sequence[Question]):
    """Questions of a pool in some order, each read when it is used.

    Attributes:
        places: Their places in the pool that was stored.
    """

    def __init__(self, table: _Table, places: Places) -> None:
        self._table = table
        self.places = places

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> Iterator[Question]:
        return (self._table.question(int(place)) for place in self.places)

    @overload
    def __getitem__(self, index: int) -> Question: ...
    @overload
    def __getitem__(self, index: slice) -> Questions: ...
    def __getitem__(self, index: int | slice) -> Question | Questions:
        if isinstance(index, slice):
            return Questions(self._table, self.places[index])
        return self._table.question(int(self.places[index]))


class _Table:
    """The temporary file: a row per question, by place and by id."""

    def __init__(self) -> None:
        self._database = temporary_database()
        self._lock = Lock()  # teachers are asked from several threads
        weakref.finalize(self, self._database.close)

    def fill(self, questions: Iterable[Question]) -> int:
        """Write all rows; returns their number."""
        with full_disk_errors("the pool's questions do"):
            columns = "place INTEGER PRIMARY KEY, id TEXT, answered INTEGER, rest TEXT"
            self._database.execute(f"CREATE TABLE questions ({columns})")
            rows = ((place, item.id, item.answer is not None, _dump(item)) for place, item in enumerate(questions))
            self._database.executemany("INSERT INTO questions VALUES (?, ?, ?, ?)", rows)
            self._database.execute("CREATE UNIQUE INDEX by_id ON questions (id)")
            (count,) = self._database.execute("SELECT count(*) FROM questions").fetchone()
        return int(count)

    def find(self, id_: str) -> int | None:
        """The place of an id; None if it is not there."""
        found = self._one("SELECT place FROM questions WHERE id = ?", id_)
        return None if found is None else int(found[0])

    def places(self, ids: Iterable[str]) -> Places:
        """The places of those ids that are there."""
        return np.array([place for place in map(self.find, ids) if place is not None], dtype=np.int64)

    def question(self, place: int) -> Question:
        """The question at a place."""
        id_, rest = self._one("SELECT id, rest FROM questions WHERE place = ?", place)
        text, kind, choices, answer, explanation, skill = json.loads(rest)
        steps = None if explanation is None else tuple(explanation)
        return Question(id_, text, kind, tuple(choices), answer, steps, skill)

    def places_by_id(self) -> Places:
        """All places in the order of their ids."""
        rows = self._database.execute("SELECT place FROM questions ORDER BY id")
        return np.fromiter((place for (place,) in rows), np.int64)

    def answered(self) -> Iterator[int]:
        """The places of the questions with an answer."""
        return (place for (place,) in self._database.execute("SELECT place FROM questions WHERE answered"))

    def ids(self) -> Iterator[tuple[int, str]]:
        """All places with their ids, in order."""
        return self._database.execute("SELECT place, id FROM questions ORDER BY place")

    def _one(self, statement: str, value: str | int) -> Any:
        with self._lock:
            return self._database.execute(statement, (value,)).fetchone()


def _dump(item: Question) -> str:
    return json.dumps((item.text, item.kind, item.choices, item.answer, item.explanation, item.skill))


def temporary_database() -> sqlite3.Connection:
    """Open a database in a temporary file that is deleted when it is closed; 8 MB of it are in memory."""
    database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    for statement in ("PRAGMA cache_size = -8000", "PRAGMA journal_mode = OFF", "BEGIN"):
        database.execute(statement)
    return database


@contextmanager
def full_disk_errors(what: str, failure: type[Exception] = sqlite3.OperationalError) -> Iterator[None]:
    """Turn a failure to write a temporary file into a StorageError that begins with `what` ("the ids do").

    Raises:
        StorageError: The temporary folder is full.
    """
    try:
        yield
    except failure as error:
        raise StorageError(
            f"{what} not fit into the temporary folder ({error}); free some space in it, or name another with the "
            "environment variable TMPDIR"
        ) from error
