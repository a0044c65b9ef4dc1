"""A pool in a temporary file gives the same questions as one in memory, by id, by place and by the order of ids."""

import csv
import gc
import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeelad.config import PoolConfig
from edgeelad.errors import PoolError, StorageError
from edgeelad.pool import load_pool, open_pool, store
from edgeelad.pool.store import Pool
from edgeelad.records import Question

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)
questions = st.builds(
    Question,
    id=texts,
    text=texts,
    kind=st.sampled_from(["number", "choice", "boolean", "text"]),
    choices=st.lists(texts, max_size=3).map(tuple),
    answer=st.none() | texts,
    explanation=st.none() | st.lists(texts, min_size=1, max_size=3).map(tuple),
    skill=st.none() | texts,
)
pools = st.lists(questions, max_size=12, unique_by=lambda question: question.id)


@dataclass(frozen=True)
class Scored:
    """A record about a question."""

    id: str


@settings(deadline=None)
@given(pools, st.data())
def test_a_stored_pool_is_the_pool_in_memory(pool: list[Question], data: st.DataObject) -> None:
    some = set(data.draw(st.lists(st.sampled_from([q.id for q in pool]))) if pool else [])
    by_id, stored = {question.id: question for question in pool}, Pool.store(iter(pool))
    assert dict(stored.items()) == by_id
    assert list(stored.questions) == pool == [stored.questions[i] for i in range(len(pool))]
    assert list(stored.questions[1:3]) == pool[1:3]
    assert list(stored.by_id()) == sorted(pool, key=lambda question: question.id)
    rest, part = stored.without([*some, "none of them"]), stored.only(some)
    assert list(rest.questions) == [question for question in pool if question.id not in some]
    assert list(part.questions) == [question for question in pool if question.id in some]
    assert list(rest.by_id()) == sorted(rest.questions, key=lambda question: question.id)
    assert len(rest) + len(part) == len(pool)
    assert rest.has_answers == any(question.answer is not None for question in rest.questions)
    assert all((id_ in part, id_ in rest) == (id_ in some, id_ not in some) for id_ in by_id)
    assert [part.num_until(q.id) for q in pool] == [sum(q.id in some for q in pool[: i + 1]) for i in range(len(pool))]
    with pytest.raises(KeyError):
        part.num_until("none of them")
    records = [Scored(question.id) for question in part.questions]
    assert [(pool[place].id, record) for place, record in stored.align(records)] == [(r.id, r) for r in records]


def test_records_in_another_order_than_the_pools_are_an_error() -> None:
    pool = Pool.store(Question(id_, "How many?") for id_ in "abc")
    for ids in ("ba", "ad", "aa"):
        with pytest.raises(KeyError):
            list(pool.align(map(Scored, ids)))


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    if path.suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pytest.importorskip("pyarrow").Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("name", ["pool.jsonl", "pool.csv", "pool.parquet"])
def test_a_file_is_read_once_and_may_change_afterwards(tmp_path: Path, name: str) -> None:
    rows = [{"question": f"What is {n} + 1?\n", "answer": n + 1} for n in range(40)]
    write(tmp_path / name, rows)
    config = PoolConfig(path=str(tmp_path / name))
    expected = load_pool(config)
    pool = Pool.store(open_pool(config))
    write(tmp_path / name, rows[::-1][:7])
    assert list(pool.questions) == expected
    assert [pool[question.id] for question in expected] == expected


def test_a_row_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "pool.jsonl").write_text('{"question": "a"}\n{"question": ""}\n')
    with pytest.raises(PoolError, match=r"pool\.jsonl:2: field 'question': empty"):
        Pool.store(open_pool(PoolConfig(path=str(tmp_path / "pool.jsonl"))))


def test_a_full_temporary_folder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def small() -> sqlite3.Connection:
        database = temporary_database()
        database.execute("PRAGMA max_page_count = 20")
        return database

    temporary_database = store.temporary_database
    monkeypatch.setattr(store, "temporary_database", small)
    with pytest.raises(StorageError, match=r"pool's questions do not fit into the temporary folder .*full.*TMPDIR"):
        Pool.store(Question(str(number), "How many apples are there? " * 20) for number in range(1000))


def test_the_file_is_closed_with_the_last_part_of_the_pool() -> None:
    pool = Pool.store([Question("a", "How many?")])
    database = pool._table._database
    part = pool.part(np.array([0])).questions
    del pool
    gc.collect()
    assert part[0].id == "a"
    del part
    gc.collect()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        database.execute("SELECT 1")
