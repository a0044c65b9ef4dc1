"""A batch of 200 questions at a server that misbehaves in every way, with kill -9 in between."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from fixtures.chaos_server import FAULTS, ChaosServer
from fixtures.planted import make_questions, solver

from edgeelad.teacher.ledger.ledger import Ledger

CHILD = Path(__file__).parents[1] / "fixtures" / "annotate_child.py"
NUM_QUESTIONS = 200
SETTINGS = {"max_concurrency": 16, "read_timeout_s": 0.5, "connect_timeout_s": 0.5, "max_retry_s": 120.0}


class Mix:
    """A seeded mix of faults; counts requests, and kills a process when it has seen as many as were set."""

    def __init__(self, seed, fault_share):
        self.rng = random.Random(seed)
        self.fault_share = fault_share
        self.kill_at = None
        self.process = None
        self.signal = signal.SIGKILL

    def __call__(self, number, body):
        if self.kill_at is not None and number >= self.kill_at and self.process is not None:
            self.process.send_signal(self.signal)
            self.kill_at = None
        return self.rng.choice(FAULTS) if self.rng.random() < self.fault_share else "ok"


def start(server, folder, **settings):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, CHILD, server.url, folder / "ledger", folder / "out", NUM_QUESTIONS]
    command.append(json.dumps({**SETTINGS, **settings}))
    return subprocess.Popen([str(part) for part in command], env=environment, stderr=subprocess.PIPE, text=True)


def read_annotations(folder):
    return [json.loads(line) for line in (folder / "out").read_text(encoding="utf-8").splitlines()]


def attempts(folder):
    connection = sqlite3.connect(folder / "ledger")
    connection.row_factory = sqlite3.Row
    try:
        return [dict(row) for row in connection.execute("SELECT * FROM attempts")]
    finally:
        connection.close()


def check_books(server, rows):
    """The server's own count equals the ledger's, in-doubt rows aside, and nothing was answered twice for nothing."""
    by_id = {f"{row['key'][-16:]}-{row['id']}": row for row in rows}
    assert set(server.billed_by_id) <= set(by_id)
    doubtful = Counter(row["key"] for row in rows if row["outcome"] in ("open", "in_doubt"))
    answered = Counter()
    for request_id, tokens in server.billed_by_id.items():
        row = by_id[request_id]
        assert row["outcome"] != "unbilled"
        answered[row["key"]] += 1
        if row["outcome"] == "answered" and not row["is_estimated"]:
            assert tokens == (row["prompt_tokens"], row["completion_tokens"])
        if row["outcome"] == "answered" and row["is_estimated"]:
            assert tokens <= (row["prompt_tokens"], row["completion_tokens"])
    kept = [row for row in rows if row["outcome"] == "answered" and row["key"]]
    assert all(f"{row['key'][-16:]}-{row['id']}" in server.billed_by_id for row in kept)
    assert all(number <= 1 + doubtful[key] for key, number in answered.items())
    assert max(Counter(row["key"] for row in kept).values()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_two_hundred_questions_through_everything(tmp_path, seed):
    mix = Mix(seed, fault_share=0.4)
    kills = random.Random(seed)
    with ChaosServer(mix, solver) as server:
        for _ in range(4):
            mix.kill_at = len(server.requests) + kills.randrange(20, 70)
            process = mix.process = start(server, tmp_path)
            process.communicate(timeout=240)
            assert process.returncode == -signal.SIGKILL
        mix.process = None
        process = start(server, tmp_path)
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
        assert set(FAULTS) <= set(server.actions)
        made = read_annotations(tmp_path)
        _, truth, _ = make_questions(NUM_QUESTIONS)
        assert [item["question_id"] for item in made] == list(truth)
        for item in made:
            assert item["reason"] if item["status"] == "set_aside" else item["steps"]
        usable = [item for item in made if item["status"] != "set_aside"]
        # another question's answer can be settled by chance only if it comes twice; a chain cannot reach it
        assert all(item["answer"] == truth[item["question_id"]][1] for item in usable)
        assert len(usable) > 120
        rows = attempts(tmp_path)
        # a row is there before its request: those that were killed in between were never sent
        num_open = sum(row["outcome"] == "open" for row in rows)
        assert len(server.requests) <= len(rows) <= len(server.requests) + num_open
        assert len(rows) < 12 * NUM_QUESTIONS
        check_books(server, rows)
        num_requests = len(server.requests)
        # all of it is in the ledger: once more costs nothing and says the same
        process = start(server, tmp_path)
        process.communicate(timeout=240)
        assert len(server.requests) - num_requests <= _num_without_reply(rows)
    with Ledger(tmp_path / "ledger") as ledger:
        assert ledger.verify() == []


def _num_without_reply(rows):
    """Requests that were given up; they may be tried again, a few attempts each."""
    answered = {row["key"] for row in rows if row["outcome"] == "answered"}
    return 40 * len({row["key"] for row in rows} - answered)


@pytest.mark.slow
def test_a_tight_cap_is_not_passed_among_faults_and_kills(tmp_path):
    mix = Mix(5, fault_share=0.4)
    with ChaosServer(mix, solver) as server:
        caps = {"max_requests": 150, "max_completion_tokens_total": 20_000}
        mix.kill_at = 60
        mix.process = start(server, tmp_path, **caps)
        mix.process.communicate(timeout=240)
        mix.process = None
        process = start(server, tmp_path, **caps)
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 3, errors
        assert "everything is kept" in errors
        assert len(server.requests) <= 150
        bill = server.delivered.completion_tokens + server.broken_off.completion_tokens
        assert bill <= 20_000
        assert all(item["status"] == "set_aside" or item["steps"] for item in read_annotations(tmp_path))
        check_books(server, attempts(tmp_path))


@pytest.mark.slow
def test_an_interrupt_loses_nothing_that_was_paid_for(tmp_path):
    """Ctrl-C: what is under way is still read and written down, and nothing more is sent."""
    mix = Mix(7, fault_share=0.0)
    mix.signal = signal.SIGINT
    with ChaosServer(mix, solver) as server:
        mix.kill_at = 90
        mix.process = start(server, tmp_path)
        mix.process.communicate(timeout=240)
        assert mix.process.returncode not in (0, None)
        assert len(server.requests) < 200
        rows = attempts(tmp_path)
        assert {row["outcome"] for row in rows} == {"answered"}
        assert len(rows) == len(server.requests) == len(server.billed_by_id)
        check_books(server, rows)


def test_two_runs_on_one_ledger_pay_once_and_each_for_its_own(tmp_path):
    """Two processes ask the same questions at once; whatever one has sent, the other waits for."""
    with ChaosServer(respond=solver) as server:
        children = []
        for run in ("r", "s"):
            command = [sys.executable, CHILD, server.url, tmp_path / "ledger", tmp_path / run, 60, "{}", run]
            children.append(subprocess.Popen([str(part) for part in command], stderr=subprocess.PIPE, text=True))
        for child in children:
            _, told = child.communicate(timeout=300)
            assert child.returncode == 0, told
        check_books(server, attempts(tmp_path))
        billed = list(server.billed_by_id.values())
    assert (tmp_path / "r").read_text() == (tmp_path / "s").read_text()
    with Ledger(tmp_path / "ledger") as ledger:
        runs = [ledger.totals(run) for run in ("r", "s")]
        assert len({row["key"] for row in attempts(tmp_path)}) == len(billed)
        assert sum(run.replies for run in runs) == len(billed)
        assert sum(run.billing.prompt_tokens for run in runs) == sum(prompt for prompt, _ in billed)
        assert ledger.verify() == []
