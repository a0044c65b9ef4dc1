import json
import sqlite3

import pytest
from fixtures.batch_server import BatchServer
from fixtures.planted import make_questions, solver, student_of

from edgeelad.config import TeacherConfig
from edgeelad.errors import BudgetError, RunError, TeacherRefusedError, TeacherUnavailableError
from edgeelad.teacher import open_teacher
from edgeelad.teacher.client.batch_client import BatchClient
from edgeelad.teacher.ledger.ledger import Ledger
from edgeelad.teacher.openai_teacher import OpenAITeacher
from edgeelad.teacher.revision.annotate import annotate, answer_all

QUESTIONS, TRUTH, TREES = make_questions(30, seed=3)
PRICES = {"usd_per_million_prompt": 1.0, "usd_per_million_completion": 2.0}


class Interrupted(BaseException):
    """What kills the process, in effect: nothing may be written after it."""


def run(server, path, *, sleep=None, **settings):
    """Annotate in batches; gives the annotations and the usage."""
    config = TeacherConfig(url=server.url, model="m", batch=True, **{"api_key_env": "", **PRICES, **settings})
    with Ledger(path) as ledger:
        client = BatchClient(config, ledger, run="r", sleep=sleep or (lambda seconds: None))
        teacher = OpenAITeacher(client, config)
        try:
            made = list(annotate(QUESTIONS, TREES, teacher, student_of(TRUTH), config))
        finally:
            client.close()
        return made, teacher.usage()


def check_books(server, path):
    """The server's bill equals the ledger's, line by line."""
    connection = sqlite3.connect(path)
    rows = connection.execute(
        "SELECT substr(key, -16) || '-' || id, outcome, prompt_tokens, completion_tokens FROM attempts"
    ).fetchall()
    connection.close()
    assert {row[0]: row[2:] for row in rows if row[1] == "answered"} == server.billed
    assert {row[1] for row in rows} <= {"answered", "unbilled"}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger"


def test_all_questions_wait_for_one_batch_at_a_time(path):
    with BatchServer(solver) as server:
        made, usage = run(server, path)
        assert [annotation.question_id for annotation in made] == list(TRUTH)
        assert all(annotation.answer == TRUTH[annotation.question_id][1] for annotation in made)
        # both answers of all questions, then the errors of those that are wrong
        assert len(server.batches) == 3
        check_books(server, path)
        bill = [sum(tokens) for tokens in zip(*server.billed.values(), strict=True)]
        assert (usage.requests, usage.prompt_tokens, usage.completion_tokens) == (len(server.billed), *bill)
        # at half the price
        assert usage.cost_usd == pytest.approx((bill[0] + 2 * bill[1]) / 1e6 / 2)
        again, _ = run(server, path)
        assert again == made
        assert len(server.batches) == 3


def test_the_same_annotations_as_without_batches(path, tmp_path):
    from fixtures.chaos_server import ChaosServer

    with BatchServer(solver) as server:
        batched, _ = run(server, path)
    with ChaosServer(respond=solver) as server:
        config = TeacherConfig(url=server.url, model="m", api_key_env="")
        with open_teacher(config, tmp_path / "other", {}) as teacher:
            alone = list(annotate(QUESTIONS, TREES, teacher, student_of(TRUTH), config))
    assert [(item.rung, item.steps) for item in batched] == [(item.rung, item.steps) for item in alone]


@pytest.mark.parametrize("kind", ["POST /v1/files", "POST /v1/batches", "GET /v1/batches/", "GET /v1/files"])
@pytest.mark.parametrize("fault", ["500", "reset"])
def test_failing_calls_are_made_again(path, kind, fault):
    with BatchServer(
        solver, fault=lambda path, number: fault if path.startswith(kind) and number == 0 else None
    ) as server:
        made, _ = run(server, path)
        assert all(annotation.is_usable for annotation in made)
        assert len(server.batches) == 3
        check_books(server, path)


@pytest.mark.parametrize("kind", ["POST /v1/files", "POST /v1/batches", "GET /v1/batches/", "GET /v1/files"])
def test_a_process_that_dies_at_any_step_pays_for_nothing_again(path, kind):
    """The request reaches the server, and the process is gone before it knows."""
    with BatchServer(solver) as server:
        dead = []

        def fault(path, number):
            return "reset" if not dead and path.startswith(kind) else None

        def sleep(seconds):
            # after the broken connection the client would wait and try again: here it dies
            dead.append(True)
            raise Interrupted

        server.num_polls = 0
        server.fault = fault
        with pytest.raises(Interrupted):
            run(server, path, sleep=sleep)
        made, _ = run(server, path)
        assert all(annotation.is_usable for annotation in made)
        assert len(server.batches) == 3
        check_books(server, path)


def test_lines_that_fail_come_into_the_next_batch(path):
    def line(number, body):
        return {0: 500, 1: 429, 2: "missing"}.get(number)

    with BatchServer(solver, line=line) as server:
        made, _ = run(server, path)
        assert all(annotation.is_usable for annotation in made)
        assert len(server.batches) == 4
        check_books(server, path)


def test_lines_that_always_fail_set_their_question_aside(path):
    bad = QUESTIONS[7].text

    def line(number, body):
        return 500 if bad in body["messages"][1]["content"] else None

    with BatchServer(solver, line=line) as server:
        made, _ = run(server, path)
    assert [item.question_id for item in made if not item.is_usable] == [QUESTIONS[7].id]
    assert "no reply in 3 batches; the last: status 500: no such luck" in made[7].reason


def test_an_expired_batch_keeps_what_it_brought(path):
    with BatchServer(
        solver, line=lambda number, body: "missing" if number % 2 and number < 30 else None, final_state="expired"
    ) as server:
        made, _ = run(server, path)
        assert all(annotation.is_usable for annotation in made)
        check_books(server, path)


def test_a_failed_batch_ends_the_run_with_the_reason(path):
    with BatchServer(solver, final_state="failed") as server:
        with pytest.raises(TeacherRefusedError, match="Enqueued token limit reached"):
            run(server, path)
        server.final_state = "completed"
        made, _ = run(server, path)
        assert all(annotation.is_usable for annotation in made)


def test_a_refusal_ends_the_run(path):
    with BatchServer(solver, line=lambda number, body: 401) as server:
        with pytest.raises(TeacherRefusedError, match="status 401"):
            run(server, path)
        assert len(server.batches) == 1


def test_the_key_stays_out_of_the_ledger_even_where_the_provider_repeats_it(path, monkeypatch):
    key = "sk-very-secret-0123456789"
    monkeypatch.setenv("TEACHER_KEY", key)

    def respond(messages):
        return json.dumps({**json.loads(solver(messages)), "note": key})

    def line(number, body):
        return 500 if number % 3 == 0 else None

    with BatchServer(respond, line=line) as server:
        server.refusal = f"no such luck with {key}"
        made, _ = run(server, path, api_key_env="TEACHER_KEY")
        assert [item for item in made if item.is_usable]
        assert "with [key]" in problems(path)
        server.line = lambda number, body: 401
        with pytest.raises(TeacherRefusedError, match=r"with \[key\]"):
            run(server, path.with_name("other"), api_key_env="TEACHER_KEY")
    assert not [file for file in path.parent.iterdir() if key.encode() in file.read_bytes()]


def problems(path):
    """Every reason that the ledger gives for an attempt without a reply."""
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT problem FROM attempts").fetchall()
    connection.close()
    return " ".join(row[0] for row in rows)


def test_an_endpoint_without_structured_output(path):
    def line(number, body):
        return None if "response_format" not in body else 400

    with BatchServer(solver, line=line) as server:
        original = server._end

        def end(batch):
            original(batch)
            if "error_file_id" in batch:
                file_id = batch["error_file_id"]
                server.files[file_id] = server.files[file_id].replace(b"no such luck", b"response_format is unknown")

        server._end = end
        made, _ = run(server, path)
        assert all(annotation.is_usable for annotation in made)
        assert len(server.batches) == 5


def test_caps_hold_for_batches(path):
    with BatchServer(solver) as server:
        with pytest.raises(BudgetError, match="max_requests = 40"):
            run(server, path, max_requests=40)
        assert len(server.billed) == 40
        check_books(server, path)


def test_a_budget_that_a_batch_holds_is_spent_by_the_next(path):
    """Reservations are far above what replies cost, so a cap makes batches smaller before it ends the run."""
    with BatchServer(solver) as server:
        made, usage = run(server, path, max_completion_tokens_total=6_000)
        assert len(made) == 30
        assert len(server.batches) > 3
        assert usage.completion_tokens <= 6_000


def test_a_batch_under_way_is_not_paid_for_online(path):
    with BatchServer(solver, num_polls=10**9) as server:
        with pytest.raises(Interrupted):
            run(server, path, sleep=_interrupt)
        config = TeacherConfig(url=server.url, model="m", api_key_env="")
        with pytest.raises(RunError, match=r"set teacher\.batch = true"), open_teacher(config, path, {}, run="r"):
            pass
        # another run of the same ledger is not concerned
        with open_teacher(config, path, {}, run="s") as teacher:
            assert teacher.fetch is None


def _interrupt(seconds):
    raise Interrupted


def test_an_interrupt_ends_the_waiting(path):
    with BatchServer(solver, num_polls=10**9) as server:
        config = TeacherConfig(url=server.url, model="m", api_key_env="", batch=True)
        with open_teacher(config, path, {}) as teacher:
            teacher.interrupt()
            with pytest.raises(TeacherUnavailableError, match="goes on at the provider"):
                list(answer_all([(question, 0) for question in QUESTIONS], teacher, config))


def test_the_audit_is_answered_in_one_batch(path):
    with BatchServer(solver, num_polls=0) as server:
        config = TeacherConfig(url=server.url, model="m", api_key_env="", batch=True, batch_poll_s=0.01)
        with open_teacher(config, path, {}) as teacher:
            given = list(answer_all([(item, sample) for item in QUESTIONS for sample in (0, 1)], teacher, config))
        assert [(item.question_id, item.sample) for item in given] == [(q.id, s) for q in QUESTIONS for s in (0, 1)]
        assert all(item.answer == TRUTH[item.question_id][1] for item in given)
        assert len(server.batches) == 1
