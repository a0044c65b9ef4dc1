"""What a run begins with."""

from edgeelad.config import make_config
from edgeelad.launch import plan_run
from edgeelad.pool.store import Pool
from edgeelad.records import Question
from edgeelad.stages.open_run import _copies, _with_own_ids


def test_questions_of_a_test_file_that_is_numbered_like_the_pool_have_ids_of_their_own():
    pool = Pool.store(Question(str(number), f"What is {number} + 1?") for number in range(5))
    test = tuple(Question(str(number), f"What is {number} * 100?") for number in range(3, 8))
    found = _with_own_ids(test, pool)
    assert [question.id for question in found] == ["test:3", "test:4", "5", "6", "7"]
    assert [question.text for question in found] == [question.text for question in test]


def test_the_folder_of_a_pool_of_many_files_has_a_plain_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"s3://bucket/pool/*.parquet": "run", "data/part-*.jsonl": "part", "questions.v2.csv": "questions.v2"}
    for path, name in names.items():
        assert plan_run(make_config({"pool": {"path": path}})).folder.name == name


def test_copies_of_held_out_questions_are_found_by_their_text():
    pool = Pool.store(
        [
            Question("a", "How many pens?"),
            Question("b", "how  many PENS?"),
            Question("c", "How many pens", "choice", ("1", "2")),
            Question("d", "How many boats?"),
        ]
    )
    assert _copies([Question("t", "How many pens?")], pool) == ["a", "b"]
    assert _copies([Question("t", "How many pens", "choice", ("1", "3"))], pool) == []
    assert _copies([], pool) == []
