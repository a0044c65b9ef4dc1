"""What a ledger does about processes that died, files that were altered, and files that are damaged."""

import contextlib
import multiprocessing
import os
import random
import signal
import sqlite3
import stat

import pytest
from fixtures.ledgers import PRICES, REQUEST, answer, begin, numbered

from edgeelad.errors import EdgeeladError, RunError, StorageError
from edgeelad.teacher.ledger.files import delete_altered, export_ledger, verify_ledger
from edgeelad.teacher.ledger.ledger import Begun, Ledger


def run_child(target, *arguments):
    child = multiprocessing.get_context("spawn").Process(target=target, args=arguments)
    child.start()
    child.join()
    return child.exitcode


def _begin_and_die(path):
    begin(Ledger(path))
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_was_killed_holds_nothing_though_another_has_its_id(tmp_path):
    """In containers every process has the id 1."""
    path = tmp_path / "l"
    assert run_child(_begin_and_die, path) == -signal.SIGKILL
    assert list(tmp_path.glob("l.*.lock"))
    connection = sqlite3.connect(path)
    connection.execute("UPDATE sessions SET pid = ?", (os.getpid(),))
    connection.commit()
    connection.close()
    said = []
    with Ledger(path, say=said.append) as ledger:
        assert begin(ledger).attempt_id == 2
        (lock,) = tmp_path.glob("l.*.lock")
        assert ledger.session in lock.name
    assert said == []
    assert list(tmp_path.glob("l.*.lock")) == []


def test_the_user_is_told_once_for_whom_a_process_waits(tmp_path):
    said = []
    with Ledger(tmp_path / "l") as one, Ledger(tmp_path / "l", say=said.append) as two:
        begun = begin(one)
        assert begin(two) == begin(two) == Begun()
        (message,) = said
        assert message.startswith(f"waiting for process {os.getpid()} on ")
        one.fail(begun.attempt_id, "unbilled", "x")
        assert begin(two).attempt_id is not None


def test_reading_a_ledger_leaves_nothing_behind(tmp_path):
    with Ledger(tmp_path / "l") as ledger:
        ledger.totals()
    assert [path.name for path in tmp_path.iterdir()] == ["l"]
    assert stat.S_IMODE((tmp_path / "l").stat().st_mode) == 0o600


def _open_and_begin(path, number):
    with Ledger(path) as ledger:
        begin(ledger, numbered(number))


def test_processes_that_create_a_ledger_at_once_share_one(tmp_path):
    context = multiprocessing.get_context("spawn")
    children = [context.Process(target=_open_and_begin, args=(tmp_path / "l", number)) for number in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    with Ledger(tmp_path / "l") as ledger:
        assert ledger.totals().requests == 4
    assert [path.name for path in tmp_path.iterdir()] == ["l"]


@pytest.mark.parametrize("column", ["content", "finish_reason", "completion_cap", "model", "key"])
def test_an_altered_reply_is_never_used(tmp_path, column):
    path = tmp_path / "l"
    with Ledger(path) as ledger:
        answer(ledger, begin(ledger).attempt_id)
        answer(ledger, begin(ledger, numbered(1)).attempt_id, numbered(1), content="8")
    connection = sqlite3.connect(path)
    value = {"content": "8", "completion_cap": 10**6, "key": numbered(1).key}.get(column, "x")
    connection.execute(f"UPDATE replies SET {column} = ? WHERE attempt_id = 1", (value,))
    connection.commit()
    connection.close()
    if column == "key":
        with pytest.raises(RunError, match="the reply of attempt 1 is missing"):
            Ledger(path)
    asked = numbered(1) if column == "key" else REQUEST
    with Ledger(path, is_checked=False) as ledger:
        ledger._connection.execute("DELETE FROM replies WHERE attempt_id = 2")
        for work in (lambda: ledger.find(asked.key), lambda: begin(ledger, asked)):
            with pytest.raises(RunError, match=r"attempt 1 was altered .*ledger verify --delete"):
                work()
    with pytest.raises(RunError, match="altered"):
        export_ledger(path, tmp_path / "out")
    assert any("attempt 1" in line for line in verify_ledger(path))
    assert delete_altered(path) == 1
    assert verify_ledger(path) == ["the reply of attempt 2 is missing"]
    with Ledger(path, is_checked=False) as ledger:
        assert begin(ledger, asked).attempt_id is not None
        assert ledger.totals("r", PRICES).replies == 2


def test_an_altered_request_is_not_sent(tmp_path):
    from edgeelad.teacher.client.batch_book import BatchBook

    path = tmp_path / "l"
    with Ledger(path) as ledger:
        book = BatchBook(ledger, "r", "http://t/v1")
        batch = book.create()
        begin(ledger, batch=batch)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE requests SET canonical = replace(canonical, 'What', 'Who')")
    connection.commit()
    connection.close()
    with Ledger(path) as ledger, pytest.raises(RunError, match="damaged"):
        BatchBook(ledger, "r", "http://t/v1").open_attempts(batch)


def test_figures_that_do_not_add_up_are_refused(tmp_path):
    path = tmp_path / "l"
    with Ledger(path) as ledger:
        answer(ledger, begin(ledger).attempt_id)
    for sql in ("UPDATE attempts SET cost = cost / 2", "UPDATE totals SET prompt = 1", "DELETE FROM totals"):
        whole = path.read_bytes()
        connection = sqlite3.connect(path)
        connection.execute(sql)
        connection.commit()
        connection.close()
        with pytest.raises(RunError, match="run 'r': its totals are not the sum of its attempts"):
            Ledger(path)
        path.write_bytes(whole)
    Ledger(path).close()


def test_an_empty_file_is_not_taken_for_a_new_ledger(tmp_path):
    (tmp_path / "l").touch()
    with pytest.raises(RunError, match="restore it, or delete it"):
        Ledger(tmp_path / "l")


def test_a_value_of_another_type_is_damage(tmp_path):
    path = tmp_path / "l"
    with Ledger(path) as ledger:
        answer(ledger, begin(ledger).attempt_id)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE replies SET content = x'ff00'")
    connection.commit()
    connection.close()
    with Ledger(path) as ledger, pytest.raises(RunError, match="damaged"):
        ledger.find(REQUEST.key)


def test_a_ledger_that_another_process_holds_is_said(tmp_path):
    with Ledger(tmp_path / "l") as one, Ledger(tmp_path / "l") as two:
        two._connection.execute("PRAGMA busy_timeout = 0")
        with (
            one.transaction(),
            pytest.raises(StorageError, match="another process has held the ledger"),
            two.transaction(),
        ):
            pass


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of a ledger with 60 replies, and what they say."""
    path = tmp_path_factory.mktemp("whole") / "l"
    with Ledger(path) as ledger:
        for index in range(60):
            begun = begin(ledger, numbered(index), question=f"q{index}")
            answer(ledger, begun.attempt_id, numbered(index), content=f"{index} " * 40)
        replies = {index: ledger.find(numbered(index).key) for index in range(60)}
        totals = ledger.totals("r", PRICES)
    return path.read_bytes(), replies, totals


def read_all(path):
    with Ledger(path) as ledger:
        replies = {index: ledger.find(numbered(index).key) for index in range(60)}
        return replies, ledger.totals("r", PRICES)


@pytest.mark.parametrize("seed", range(120))
def test_no_damage_is_silent(tmp_path, whole, seed):
    """A flipped bit, a zeroed page, a lost end: read as it was written, a reply missing, or a typed error."""
    data, replies, totals = bytearray(whole[0]), whole[1], whole[2]
    rng = random.Random(seed)
    place = rng.randrange(len(data))
    if seed % 4 == 0:
        del data[place:]
    elif seed % 4 == 1:
        start = place - place % 4096
        data[start : start + 4096] = bytes(4096)
    else:
        data[place] ^= 1 << rng.randrange(8)
    path = tmp_path / "l"
    path.write_bytes(data)
    try:
        found, sums = read_all(path)
    except (RunError, StorageError) as error:
        message = str(error)
        found, sums = replies, totals
    else:
        message = str(path)
    assert str(path) in message
    assert "\n" not in message
    assert {index: reply and reply.content for index, reply in found.items()} == {
        index: reply.content for index, reply in replies.items()
    }
    assert sums.usage == totals.usage
    with contextlib.suppress(EdgeeladError):
        verify_ledger(path)
