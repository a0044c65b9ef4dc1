import multiprocessing
import os
import re
import signal
import sqlite3
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from fixtures.ledgers import PRICES, REQUEST, answer, begin, numbered
from hypothesis import given, settings
from hypothesis import strategies as st

import edgeelad
from edgeelad.config import TeacherConfig
from edgeelad.errors import BudgetError, RunError, StorageError
from edgeelad.records import TeacherUsage
from edgeelad.teacher.ledger import counts as ledger_counts
from edgeelad.teacher.ledger.budget import Caps, Prices, Reservation, Spent, check, reserve
from edgeelad.teacher.ledger.exchange import Billing, StoredReply
from edgeelad.teacher.ledger.files import verify_ledger
from edgeelad.teacher.ledger.ledger import Begun, Ledger
from edgeelad.teacher.ledger.schema import COUNT_ALL, TRIGGERS, VERSION
from edgeelad.teacher.prompts.messages import Message


def test_a_reply_is_bought_once(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        begun = begin(ledger)
        assert begun.reply is None
        reply = answer(ledger, begun.attempt_id)
        assert begin(ledger).reply == reply
    with Ledger(path) as ledger:
        assert ledger.find(REQUEST.key) == reply
        assert begin(ledger, run="another run").reply == reply
        assert ledger.totals().usage == TeacherUsage(1, 10, 5, 6e-9)
        assert ledger.verify() == []


@pytest.mark.parametrize(
    "change",
    [
        {"endpoint": "http://u/v1"},
        {"model": "n"},
        {"messages": (Message("user", "What? "),)},
        {"messages": (Message("system", "What?"),)},
        {"temperature": 0.7},
        {"prompt_id": "rationale"},
        {"prompt_sha256": "1" * 64},
        {"sample": 1},
        {"retry": 1},
        {"extra_body": '{"seed":1}'},
    ],
)
def test_all_that_makes_a_request_is_in_its_key(change):
    assert replace(REQUEST, **change).key != REQUEST.key


def test_an_attempt_is_on_disk_before_it_is_sent_and_counts_when_the_process_dies(tmp_path):
    path = tmp_path / "ledger.sqlite"
    child = multiprocessing.get_context("spawn").Process(target=_begin_and_die, args=(path,))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    with Ledger(path) as ledger:
        totals = ledger.totals("r", PRICES)
        assert (totals.requests, totals.replies, totals.num_doubtful) == (1, 0, 1)
        assert totals.usage == TeacherUsage(1, 0, 0, 0.0)
        assert totals.doubtful == Reservation(100, 50, 60_000)
        assert ledger.spent("r", PRICES) == Spent(1, 100, 50, 60_000, 1)
        # nobody is at it any more, so it may be sent again; both attempts count
        begun = begin(ledger)
        assert begun.attempt_id == 2
        answer(ledger, begun.attempt_id)
        assert ledger.spent("r", PRICES) == Spent(2, 110, 55, 66_000, 1)


def _begin_and_die(path):
    begin(Ledger(path))
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_request_under_way_in_a_live_process_is_not_sent_a_second_time(tmp_path):
    with Ledger(tmp_path / "l") as one, Ledger(tmp_path / "l") as two:
        begun = begin(one)
        again = begin(two)
        assert (again.attempt_id, again.reply) == (None, None)
        reply = answer(one, begun.attempt_id)
        assert begin(two).reply == reply


def test_an_unusable_reply_stands_until_the_cap_is_higher(tmp_path):
    with Ledger(tmp_path / "l") as ledger:
        answer(ledger, begin(ledger).attempt_id, problem="cut off at the completion cap")
        assert begin(ledger).reply.problem == "cut off at the completion cap"
        begun = begin(ledger, cap=100)
        assert begun.attempt_id is not None
        answer(ledger, begun.attempt_id, cap=100)
        assert ledger.find(REQUEST.key).problem == ""


def test_what_failed_is_counted_as_it_was(tmp_path):
    with Ledger(tmp_path / "l") as ledger:
        ledger.fail(begin(ledger).attempt_id, "unbilled", "status 500")
        assert ledger.spent("r", PRICES) == Spent(1, 0, 0, 0, 1)
        ledger.fail(begin(ledger).attempt_id, "in_doubt", "the connection broke")
        assert ledger.spent("r", PRICES) == Spent(2, 100, 50, 60_000, 1)
        assert ledger.totals("r", PRICES).usage == TeacherUsage(2, 0, 0, 0.0)
        assert ledger.usage_of([REQUEST.key], PRICES) == TeacherUsage(2, 0, 0, 0.0)


def test_usage_of_requests_is_what_their_replies_cost_when_bought(tmp_path):
    with Ledger(tmp_path / "l") as ledger:
        for index in range(3):
            answer(ledger, begin(ledger, numbered(index)).attempt_id, numbered(index), Billing(10 * index, index))
        keys = [numbered(1).key, numbered(2).key]
        assert ledger.usage_of(keys, PRICES) == TeacherUsage(2, 30, 3, 6e-9)


def test_unknown_prices_stay_unknown(tmp_path):
    with Ledger(tmp_path / "l") as ledger:
        assert ledger.totals("r").usage.cost_usd is None
        begun = begin(ledger, prices=Prices())
        reply = StoredReply(REQUEST.key, "7", "stop", "", 50, Billing(10, 5))
        ledger.answer(begun.attempt_id, reply, None, model="m")
        assert ledger.totals("r").usage == TeacherUsage(1, 10, 5, None)
        assert ledger.spent("r").cost_pico is None
        # priced afterwards
        assert ledger.spent("r", PRICES).cost_pico == 6_000
        with pytest.raises(BudgetError, match="unknown price"):
            begin(ledger, numbered(1), caps=Caps(cost_pico=10**12), prices=Prices(), wanted=Reservation(1, 1, None))


def test_cached_tokens_have_their_price():
    assert PRICES.cost(Billing(1000, 10, cached_prompt_tokens=600)) == 400 * 100 + 600 * 10 + 10 * 1000
    assert replace(PRICES, cached_prompt=None).cost(Billing(1000, 0, cached_prompt_tokens=600)) == 100_000
    assert replace(PRICES, completion=None).cost(Billing(1, 1)) is None
    assert replace(PRICES, factor=0.5).cost(Billing(1000, 0)) == 50_000
    config = TeacherConfig(usd_per_million_prompt=0.15, usd_per_million_completion=0.6)
    assert Prices.from_config(config) == Prices(150_000, None, 600_000)


@pytest.mark.parametrize(
    ("caps", "option"),
    [
        (Caps(requests=3), "max_requests"),
        (Caps(prompt_tokens=399), "max_prompt_tokens"),
        (Caps(completion_tokens=199), "max_completion_tokens_total"),
        (Caps(cost_pico=239_999), "max_usd"),
    ],
)
def test_each_cap_is_kept_with_the_worst_case_reserved(tmp_path, caps, option):
    with Ledger(tmp_path / "l") as ledger:
        begun = [begin(ledger, numbered(index), caps=caps) for index in range(3)]
        if option != "max_requests":
            # what is under way may turn out cheaper than reserved: wait for it
            held = begin(ledger, numbered(3), caps=caps)
            assert (held, held.is_held) == (Begun(), True)
        for attempt in begun:
            ledger.fail(attempt.attempt_id, "in_doubt", "the connection broke")
        with pytest.raises(BudgetError, match=option):
            begin(ledger, numbered(3), caps=caps)
        assert ledger.spent("r", PRICES).requests == 3
        # another run has a budget of its own
        assert begin(ledger, numbered(3), caps=caps, run="s").attempt_id is not None


def test_a_cap_on_questions_lets_known_questions_go_on(tmp_path):
    with Ledger(tmp_path / "l") as ledger:
        begin(ledger, numbered(0), caps=Caps(questions=1), question="a")
        begin(ledger, numbered(1), caps=Caps(questions=1), question="a")
        with pytest.raises(BudgetError, match="max_questions = 1"):
            begin(ledger, numbered(2), caps=Caps(questions=1), question="b")


def test_caps_that_are_met_exactly_are_not_passed():
    check(Spent(9, 90, 45, 54, 0), Reservation(10, 5, 6), Caps(60, 10, 100, 50), is_new_question=True)
    with pytest.raises(BudgetError):
        check(Spent(9, 90, 45, 55, 0), Reservation(10, 5, 6), Caps(60, 10, 100, 50), is_new_question=True)


def test_the_worst_case_covers_every_byte():
    wanted = reserve(num_bytes=1000, num_messages=2, completion_cap=512, prices=PRICES)
    assert wanted.prompt_tokens >= 1000
    assert wanted.cost_pico == wanted.prompt_tokens * 100 + 512_000


def test_sixteen_threads_cannot_pass_a_cap_together(tmp_path):
    caps = Caps(cost_pico=60_000 * 10 + 1)
    with Ledger(tmp_path / "l") as ledger:
        outcomes = []

        def buy(thread):
            for index in range(8):
                request = numbered(100 * thread + index)
                try:
                    begun = begin(ledger, request, caps=caps)
                    while begun == Begun():
                        begun = begin(ledger, request, caps=caps)
                except BudgetError:
                    outcomes.append("refused")
                else:
                    outcomes.append("sent")
                    # the worst case comes true
                    answer(ledger, begun.attempt_id, request, Billing(100, 50))

        threads = [threading.Thread(target=buy, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert outcomes.count("sent") == 10
        assert len(outcomes) == 128
        assert ledger.totals("r", PRICES).cost_pico == 600_000


def test_two_processes_share_a_budget(tmp_path):
    context = multiprocessing.get_context("spawn")
    children = [context.Process(target=_buy_until_refused, args=(tmp_path / "l", number)) for number in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0]
    with Ledger(tmp_path / "l") as ledger:
        assert ledger.spent("r", PRICES).requests == 20


def _buy_until_refused(path, number):
    with Ledger(path) as ledger:
        for index in range(1000):
            try:
                begin(ledger, numbered(1000 * number + index), caps=Caps(requests=20))
            except BudgetError:
                return
    raise AssertionError("never refused")


def test_abilities_are_remembered(tmp_path):
    with Ledger(tmp_path / "l") as ledger:
        assert ledger.ability("e", "m", "structured") is None
        ledger.remember_ability("e", "m", "structured", "json_object")
    with Ledger(tmp_path / "l") as ledger:
        assert ledger.ability("e", "m", "structured") == "json_object"
        assert ledger.ability("e", "other", "structured") is None


def test_verify_names_what_was_altered(tmp_path):
    path = tmp_path / "l"
    with Ledger(path) as ledger:
        answer(ledger, begin(ledger).attempt_id)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE replies SET content = '8'")
    connection.execute("UPDATE totals SET prompt = prompt - 1")
    connection.execute("UPDATE requests SET canonical = replace(canonical, 'What', 'Who')")
    connection.commit()
    connection.close()
    with Ledger(path, is_checked=False) as ledger:
        problems = ledger.verify()
    assert len(problems) == 3
    assert problems[0] == "run 'r': its totals are not the sum of its attempts"
    assert REQUEST.key in problems[1]
    assert "reply of attempt 1" in problems[2]


@pytest.mark.parametrize("version", [0, 4, VERSION + 1])
def test_another_version_is_refused(tmp_path, version):
    Ledger(tmp_path / "l").close()
    connection = sqlite3.connect(tmp_path / "l")
    connection.execute(f"PRAGMA user_version = {version}")
    connection.close()
    with pytest.raises(RunError, match=f"ledger version {version}, this one reads {VERSION}"):
        Ledger(tmp_path / "l")


def test_values_are_bound_by_place():
    # Python 3.14 refuses numbered placeholders with a sequence of values, and 3.12 warns; older ones say nothing
    folder = Path(edgeelad.__file__).parent
    assert not [path for path in folder.rglob("*.py") if re.search(r"[=<>(,]\s?\?\d", path.read_text("utf-8"))]


def test_other_files_are_refused(tmp_path):
    (tmp_path / "text").write_text("not a database " * 100)
    with pytest.raises(RunError, match="not a ledger"):
        Ledger(tmp_path / "text")
    connection = sqlite3.connect(tmp_path / "other")
    connection.execute("CREATE TABLE t (x)")
    connection.close()
    with pytest.raises(RunError, match="not a ledger of edgeelad"):
        Ledger(tmp_path / "other")
    with pytest.raises(StorageError):
        Ledger(tmp_path / "no such folder" / "l")


def _begin_many(ledger):
    for index in range(200):
        begin(ledger, numbered(index))


def test_a_full_disk_stops_before_the_next_request_with_all_intact(tmp_path):
    path = tmp_path / "l"
    with Ledger(path) as ledger:
        answer(ledger, begin(ledger).attempt_id, content="x" * 10_000)
        pages = ledger._connection.execute("PRAGMA page_count").fetchone()[0]
        ledger._connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StorageError, match="full"):
            _begin_many(ledger)
        num_begun = ledger.totals().requests
    with Ledger(path) as ledger:
        assert ledger.verify() == []
        assert ledger.find(REQUEST.key).content == "x" * 10_000
        assert ledger.totals().requests == num_begun


@settings(max_examples=60, deadline=None)
@given(
    attempts=st.lists(
        st.tuples(
            st.sampled_from(["open", "answered", "priceless", "unbilled", "in_doubt"]),
            st.integers(0, 2),  # the run
            st.integers(0, 3),  # the question
            st.integers(0, 1000),
            st.integers(0, 500),
            st.integers(0, 100),
        ),
        max_size=12,
    )
)
def test_what_is_spent_is_the_sum_of_the_attempts(attempts):
    """The running totals against the naive sum, whatever became of the attempts."""
    with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder) / "l") as ledger:
        for index, (outcome, run, question, prompt, completion, cached) in enumerate(attempts):
            request = numbered(index)
            begun = begin(ledger, request, run=str(run), question=str(question))
            if outcome in ("answered", "priceless"):
                billing = Billing(prompt, completion, min(cached, prompt))
                reply = StoredReply(request.key, "7", "stop", "", 50, billing)
                cost = PRICES.cost(billing) if outcome == "answered" else None
                ledger.answer(begun.attempt_id, reply, cost, model="m")
            elif outcome != "open":
                ledger.fail(begun.attempt_id, outcome, "x")
        for run in range(3):
            own = [attempt for attempt in attempts if attempt[1] == run]
            held = [attempt for attempt in own if attempt[0] in ("open", "in_doubt")]
            paid = [attempt for attempt in own if attempt[0] in ("answered", "priceless")]
            cost = sum(PRICES.cost(Billing(a[3], a[4], min(a[5], a[3]))) for a in paid) + 60_000 * len(held)
            assert ledger.spent(str(run), PRICES) == Spent(
                requests=len(own),
                prompt_tokens=100 * len(held) + sum(attempt[3] for attempt in paid),
                completion_tokens=50 * len(held) + sum(attempt[4] for attempt in paid),
                cost_pico=cost,
                questions=len({attempt[2] for attempt in own}),
            )
            is_known = not any(a[0] == "priceless" and (a[3] or a[4]) for a in own)
            assert (ledger.spent(str(run), Prices()).cost_pico is None) == (not is_known)
        assert ledger.verify() == []


def test_totals_are_the_sum_of_the_attempts_however_they_change(tmp_path):
    """The totals that triggers keep against those of every request, and against a count from nothing."""
    keys = {"r": [], "s": []}
    with Ledger(tmp_path / "l") as ledger:
        for index in range(24):
            run, prompt = ("r", "s")[index % 2], ("answer", "check")[index % 3 == 0]
            request = replace(numbered(index), prompt_id=prompt)
            attempt_id = begin(ledger, request, run=run, question=f"q{index // 3}").attempt_id
            keys[run].append(request.key)
            billing = Billing(10 + index, 5, 3, 2, is_estimated=index % 5 == 0)
            if index % 4 < 2:
                reply = StoredReply(request.key, "7", "stop", "cut off" if index % 7 == 0 else "", 50, billing)
                ledger.answer(attempt_id, reply, None if index % 6 == 0 else PRICES.cost(billing), model="m")
                if index % 8 == 1:
                    ledger.note_problem(request.key, "nonsense")
            elif index % 4 == 2:
                ledger.fail(attempt_id, ("unbilled", "in_doubt")[index % 3 == 0], "x")
        for run in keys:
            found = ledger.totals(run, PRICES)
            assert found == ledger_counts.totals(ledger._connection, PRICES, keys=keys[run])
            assert found.num_doubtful > 0
            assert found.num_unusable > 0
        kept = ledger.rows("SELECT * FROM totals ORDER BY run, model, prompt_id", ())
        with ledger.transaction() as connection:
            connection.execute("DELETE FROM totals")
            for statement in COUNT_ALL:
                connection.execute(statement)
        assert ledger.rows("SELECT * FROM totals ORDER BY run, model, prompt_id", ()) == kept
        assert ledger.verify() == []


def test_a_ledger_of_the_version_before_is_changed_to_this_one(tmp_path):
    path = tmp_path / "l"
    with Ledger(path) as ledger:
        for index in range(4):
            answer(ledger, begin(ledger, numbered(index), question=f"q{index // 2}").attempt_id, numbered(index))
        begin(ledger, numbered(9))
        spent, totals = ledger.spent("r", PRICES), ledger.totals("r", PRICES)
    connection = sqlite3.connect(path)
    for name in TRIGGERS:
        connection.execute(f"DROP TRIGGER {name}")
    for statement in (
        "DROP VIEW counted",
        "DROP TABLE totals",
        "CREATE TABLE run_totals (run TEXT PRIMARY KEY, requests INTEGER)",
        "CREATE VIEW counted AS SELECT id, run FROM attempts",
        "CREATE TRIGGER question_begun AFTER INSERT ON attempts BEGIN DELETE FROM run_totals; END",
        "CREATE TRIGGER attempt_settled AFTER UPDATE OF outcome ON attempts BEGIN DELETE FROM run_totals; END",
        "PRAGMA user_version = 5",
    ):
        connection.execute(statement)
    connection.close()
    with Ledger(path) as ledger:
        assert (ledger.spent("r", PRICES), ledger.totals("r", PRICES)) == (spent, totals)
        answer(ledger, begin(ledger, numbered(10)).attempt_id, numbered(10))
        assert ledger.totals("r", PRICES).replies == 5
        assert ledger.verify() == []


def test_of_a_large_ledger_a_sample_is_checked_when_it_is_opened(tmp_path, monkeypatch):
    path = tmp_path / "l"
    with Ledger(path) as ledger:
        for index in range(40):
            answer(ledger, begin(ledger, numbered(index)).attempt_id, numbered(index))
    monkeypatch.setattr("edgeelad.teacher.ledger.ledger.LARGE_BYTES", 0)
    Ledger(path).close()
    connection = sqlite3.connect(path)
    connection.execute("DELETE FROM replies WHERE attempt_id = 7")
    connection.commit()
    with pytest.raises(RunError, match="the reply of attempt 7 is missing"):
        Ledger(path)
    monkeypatch.setattr("edgeelad.teacher.ledger.schema.NUM_SAMPLED", 0)
    Ledger(path).close()
    connection.close()
    assert verify_ledger(path) == ["the reply of attempt 7 is missing"]
