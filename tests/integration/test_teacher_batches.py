import json
import sqlite3
from itertools import pairwise

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


class AnswersFirst(OpenAITeacher):
    """Answers twice before it corrects, so that a question needs three batches."""

    check = None


def run(server, path, *, sleep=None, kind=AnswersFirst, run="r", **settings):
    """Annotate in batches; gives the annotations and the usage."""
    defaults = {"api_key_env": "", "mode": "revise", **PRICES}
    config = TeacherConfig(url=server.url, model="m", batch=True, **{**defaults, **settings})
    with Ledger(path) as ledger:
        client = BatchClient(config, ledger, run=run, sleep=sleep or (lambda seconds: None))
        teacher = kind(client, config)
        try:
            made = list(annotate(QUESTIONS, TREES, teacher, student_of(TRUTH), config))
        finally:
            client.close()
        return made, teacher.usage()


def check_books(server, path, allowed=frozenset({"answered", "unbilled"})):
    """The server's bill equals the ledger's, line by line."""
    connection = sqlite3.connect(path)
    rows = connection.execute(
        "SELECT substr(key, -16) || '-' || id, outcome, prompt_tokens, completion_tokens FROM attempts"
    ).fetchall()
    connection.close()
    assert {row[0]: row[2:] for row in rows if row[1] == "answered"} == server.billed
    assert {row[1] for row in rows} <= allowed


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
        batched, _ = run(server, path, kind=OpenAITeacher)
        assert len(server.batches) == 1, "one call answers and corrects"
    with ChaosServer(respond=solver) as server:
        config = TeacherConfig(url=server.url, model="m", api_key_env="", mode="revise")
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


@pytest.fixture
def small(monkeypatch):
    """Batches of at most four lines."""
    monkeypatch.setattr("edgeelad.teacher.client.batch_client.MAX_LINES", 4)


def test_batches_are_in_progress_at_once_and_end_in_any_order(path, small):
    """Thirty answers are eight files of four lines; the first to be submitted is the last to end."""
    with BatchServer(solver, num_polls=1) as server:
        server.held.add("batch-0")

        def sleep(seconds):
            if all(batch["status"] == "completed" or id_ == "batch-0" for id_, batch in server.batches.items()):
                server.held.clear()

        made, _ = run(server, path, sleep=sleep)
        assert [annotation.answer for annotation in made] == [answer for _, answer in TRUTH.values()]
        first_poll = next(index for index, request in enumerate(server.requests) if "/batches/" in request)
        assert server.requests[:first_poll] == ["POST /v1/files", "POST /v1/batches"] * 8
        check_books(server, path)


def test_the_providers_queue_is_kept_full_and_never_refused_for_good(path, small):
    with BatchServer(solver, num_polls=1) as server:
        server.max_queued = 11  # two batches of four lines, not three
        made, _ = run(server, path)
        assert all(annotation.is_usable for annotation in made)
        assert 8 <= server.most_queued <= 11
        # what was refused is neither uploaded nor written to the ledger again
        assert server.requests.count("POST /v1/files") == len(server.batches)
        check_books(server, path, {"answered"})


def test_a_batch_that_fails_because_the_queue_is_full_is_submitted_again(path, small):
    """OpenAI takes the batch, and says so when it has looked at it."""
    with BatchServer(solver, num_polls=1) as server:
        original = server._end

        def end(batch):
            if int(batch["id"].partition("-")[2]) in (2, 3, 5):
                batch.update(status="failed", errors={"data": [server.problem]})
            else:
                original(batch)

        server._end = end
        made, _ = run(server, path)
        assert all(annotation.is_usable for annotation in made)
        assert len(server.batches) == 3 + server.requests.count("POST /v1/files")
        check_books(server, path, {"answered"})


@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_run_that_dies_among_several_batches_buys_nothing_again(path, small, after):
    with BatchServer(solver, num_polls=1) as server:
        server.held.update(f"batch-{number}" for number in range(1, 8, 2))
        polls = []

        def sleep(seconds):
            polls.append(seconds)
            if len(polls) == after:
                raise Interrupted

        with pytest.raises(Interrupted):
            run(server, path, sleep=sleep)
        assert len(server.batches) == 8
        server.held.clear()
        made, _ = run(server, path)
        assert all(annotation.is_usable for annotation in made)
        assert len(set(server.billed)) == server.num_lines
        check_books(server, path)


def test_what_a_run_left_at_the_provider_serves_another_run_of_the_ledger(path):
    with BatchServer(solver, num_polls=1) as server:
        with pytest.raises(Interrupted):
            run(server, path, sleep=_interrupt)
        made, usage = run(server, path, run="s")
        assert all(annotation.is_usable for annotation in made)
        assert len(server.batches) == 3  # as for one run
        check_books(server, path)
        with Ledger(path) as ledger:
            first = ledger.totals("r").usage
        assert (first.requests, usage.requests) == (30, len(server.billed) - 30)


def test_lines_that_fail_come_into_the_next_batch(path):
    def line(number, body):
        return {0: 500, 1: 429, 2: "missing"}.get(number)

    with BatchServer(solver, line=line) as server:
        made, _ = run(server, path)
        assert all(annotation.is_usable for annotation in made)
        assert len(server.batches) == 4
        check_books(server, path, {"answered", "unbilled", "in_doubt"})  # one line was lost


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
        server.problem = {"code": "model_not_found", "message": "The provided model is not supported"}
        with pytest.raises(TeacherRefusedError, match="The provided model is not supported"):
            run(server, path)
        server.final_state = "completed"
        made, _ = run(server, path)
        assert all(annotation.is_usable for annotation in made)


def test_a_refusal_ends_the_run(path):
    with BatchServer(solver, line=lambda number, body: 401) as server:
        with pytest.raises(TeacherRefusedError, match="status 401"):
            run(server, path)
        assert len(server.batches) == 1


@pytest.mark.parametrize(
    ("kind", "headers", "body"),
    [
        ("POST /v1/files", {"Retry-After": "86400"}, {"error": {"message": "Slow down."}}),
        ("POST /v1/batches", {"Retry-After-Ms": "86400000"}, {}),
        ("GET /v1/batches/", {}, {"error": {"message": "Rate limit reached. Please try again in 23h59m."}}),
        ("GET /v1/files", {}, {"error": {"details": [{"@type": "RetryInfo", "retryDelay": "86399s"}]}}),
    ],
)
def test_a_wait_beyond_the_limit_is_not_begun(path, kind, headers, body):
    slept = []
    with BatchServer(
        solver, fault=lambda called, number: (429, headers, body) if called.startswith(kind) else None
    ) as server:
        with pytest.raises(
            TeacherUnavailableError, match=r"asks to wait until \d{4}-\d\d-\d\d \d\d:\d\d .*resume then"
        ):
            run(server, path, sleep=slept.append)
        assert max(slept, default=0.0) <= 600
        server.fault = lambda called, number: None
        made, _ = run(server, path)
        assert all(annotation.is_usable for annotation in made)
        assert len(server.batches) == 3
        check_books(server, path)


def test_a_wait_below_the_limit_is_kept(path):
    slept = []

    def fault(called, number):
        return (429, {"Retry-After": "37"}, {}) if called == "POST /v1/files" and number == 0 else None

    with BatchServer(solver, fault=fault) as server:
        made, _ = run(server, path, sleep=slept.append)
    assert 37 in slept
    assert all(annotation.is_usable for annotation in made)


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
        config = TeacherConfig(url=server.url, model="m", api_key_env="", mode="revise")
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
            with pytest.raises(TeacherUnavailableError, match="the provider continues it"):
                list(answer_all([(question, 0) for question in QUESTIONS], teacher, config))


def test_the_audit_is_answered_in_one_batch(path):
    with BatchServer(solver, num_polls=0) as server:
        config = TeacherConfig(url=server.url, model="m", api_key_env="", batch=True, batch_poll_s=0.01)
        with open_teacher(config, path, {}) as teacher:
            given = list(answer_all([(item, sample) for item in QUESTIONS for sample in (0, 1)], teacher, config))
        assert [(item.question_id, item.sample) for item in given] == [(q.id, s) for q in QUESTIONS for s in (0, 1)]
        assert all(item.answer == TRUTH[item.question_id][1] for item in given)
        assert len(server.batches) == 1


def wrapped(server, **changes):
    """Annotate at a server with other ways, without waiting; gives the annotations."""
    for name, value in changes.items():
        setattr(server, name, value)
    made, _ = run(server, server.ledger, sleep=server.sleep)
    assert all(annotation.is_usable for annotation in made)
    return made


@pytest.fixture
def server(path):
    with BatchServer(solver, num_polls=3) as server:
        server.ledger = path
        yield server


def assert_bought_once(server, num_batches=3, allowed=frozenset({"answered", "unbilled"})):
    check_books(server, server.ledger, allowed)
    assert len(server.batches) == num_batches
    # no batch is asked for sooner than `batch_poll_s` after the last time
    for times in server.polled_at.values():
        assert all(after - before >= 30.0 for before, after in pairwise(times))


NAMES = {
    "validating": "VALIDATING",
    "in_progress": "JOB_STATE_RUNNING",
    "completed": "COMPLETED",
    "cancelled": "CANCELED",
}


def together(batch):
    """Together's: an envelope, capitals, no metadata."""
    told = {name: value for name, value in batch.items() if name not in ("metadata", "polls")}
    return {"job": {**told, "status": NAMES[batch["status"]], "model_id": "m"}, "warning": ""}


def test_envelopes_and_capitals(server):
    wrapped(server, wrap=together)
    assert_bought_once(server)


@pytest.mark.parametrize("wrap", [lambda batch: batch, together])
@pytest.mark.parametrize("fault", ["500", "reset"])
def test_a_lost_answer_is_looked_for_by_the_file_where_metadata_is_not_kept(server, wrap, fault):
    """A 500 comes before the work is done, a reset after it."""
    lost = []

    def act(path, number):
        if path.endswith("POST /v1/batches") and not lost:
            lost.append(path)
            return fault
        return None

    wrapped(server, wrap=wrap, keeps_metadata=False, fault=act)
    assert_bought_once(server)


def test_an_unreadable_answer_is_looked_for(server):
    original, answered = server.create, []

    def create(body):
        found = original(body)
        answered.append(found)
        return b"<html>queued</html>" if len(answered) == 1 else found

    wrapped(server, create=create)
    assert_bought_once(server)


def test_no_list_is_needed_where_nothing_was_lost(server):
    wrapped(server, has_list=False)
    assert_bought_once(server)
    assert "GET /v1/batches" not in server.requests


def test_what_may_have_been_submitted_is_not_submitted_again_without_the_users_word(server):
    server.has_list = False
    server.fault = lambda path, number: "reset" if path == "POST /v1/batches" else None
    for _ in range(2):
        with pytest.raises(TeacherUnavailableError, match=r"batch of the file file-0.*teacher\.batch_resubmit=true"):
            run(server, server.ledger, sleep=server.sleep)
    assert len(server.batches) == 1
    server.fault = lambda path, number: None
    made, _ = run(server, server.ledger, sleep=server.sleep, batch_resubmit=True)
    assert all(annotation.is_usable for annotation in made)
    assert len(server.batches) == 4


def test_a_batch_that_the_list_shows_late_is_not_submitted_again(server):
    server.fault = lambda path, number: "reset" if path == "POST /v1/batches" and len(server.batches) == 0 else None
    original, looks = server.wrap, []

    def wrap(batch):
        looks.append(batch)
        return {} if len(looks) == 2 else original(batch)  # the first look; creating was the first call

    wrapped(server, wrap=wrap)
    assert_bought_once(server)


@pytest.mark.parametrize("keeps_counts", [False, True])
def test_completed_before_the_files_are_there(server, keeps_counts):
    def wrap(batch):
        counts = {"total": 1, "completed": 1, "failed": 0} if batch["status"] == "completed" else {}
        return {**batch, "request_counts": counts} if keeps_counts else batch

    wrapped(server, late_files=5, wrap=wrap)
    assert_bought_once(server)


def test_completed_and_files_never_come(server):
    server.late_files = 10**9
    with pytest.raises(TeacherUnavailableError, match="resume later to bring them in"):
        run(server, server.ledger, sleep=server.sleep)
    server.late_files = 0
    server.sleep(30.0)
    wrapped(server)
    assert_bought_once(server)


def test_a_result_file_that_is_not_there_yet(server):
    original, missing = server.files, []

    class Files(dict):
        def __getitem__(self, name):
            if name == "file-1" and len(missing) < 3:
                missing.append(name)
                return 404, {"error": {"message": "No such file"}}
            return super().__getitem__(name)

    wrapped(server, files=Files(original))
    assert len(missing) == 3
    assert_bought_once(server)


def test_a_result_file_that_grows(server):
    """The provider counts 30 lines, and the file has 10 of them at first."""
    original, read = server.files, []

    class Files(dict):
        def __getitem__(self, name):
            data = super().__getitem__(name)
            if name != "file-1":
                return data
            read.append(name)
            return b"".join(data.splitlines(keepends=True)[: 10 * len(read)])

    def wrap(batch):
        return {**batch, "request_counts": {"completed": 30}} if batch["id"] == "batch-0" else batch

    wrapped(server, files=Files(original), wrap=wrap)
    assert len(read) == 3
    assert_bought_once(server)


def test_a_result_line_that_is_not_json_costs_its_question_alone(server):
    original = server.files

    class Files(dict):
        def __getitem__(self, name):
            data = super().__getitem__(name)
            return data.replace(b"{", b"<", 1) if name == "file-1" else data

    wrapped(server, files=Files(original))
    assert len(server.batches) == 4


def test_unknown_states_are_waited_for_and_said(server):
    names = iter(["HOLDING"] * 10)

    def wrap(batch):
        return {**batch, "status": next(names, "COMPLETED")} if batch["status"] == "completed" else batch

    said = []
    config = TeacherConfig(url=server.url, model="m", batch=True, api_key_env="")
    server.wrap = wrap
    with Ledger(server.ledger, say=said.append) as ledger:
        teacher = OpenAITeacher(BatchClient(config, ledger, run="r", sleep=server.sleep), config)
        given = list(answer_all([(question, 0) for question in QUESTIONS], teacher, config))
    assert all(item.answer for item in given)
    assert len(said) == 1
    assert "'HOLDING'" in said[0]
    assert_bought_once(server, 1)


def test_an_unknown_state_with_its_files_is_taken_as_the_end_after_a_while(server):
    wrapped(server, wrap=lambda batch: {**batch, "status": "Zzz"} if batch["status"] == "completed" else batch)
    assert_bought_once(server)


@pytest.mark.parametrize("wrap", [lambda batch: batch, together])
def test_what_the_user_canceled_is_not_submitted_again(server, wrap):
    server.wrap, server.final_state = wrap, "cancelled"
    server.line = lambda number, body: None if number < 20 else "missing"
    with pytest.raises(TeacherRefusedError, match="batch-0 was canceled at the provider"):
        run(server, server.ledger, sleep=server.sleep)
    assert len(server.batches) == 1
    assert len(server.billed) == 20
    # what it brought is kept; the rest is bought when the user resumes
    server.final_state, server.line = "completed", lambda number, body: None
    wrapped(server)
    assert_bought_once(server, 4)


@pytest.mark.parametrize("is_late", [False, True])
def test_a_full_queue_is_waited_for_with_smaller_batches(server, is_late):
    """Refused at once, or as a batch that fails."""
    server.max_lines = 10
    if is_late:
        server.full = None
        original_create, original_end = server.create, server._end

        def end(batch):
            is_large = server.files[batch["input_file_id"]].count(b"\n") > 10
            server.final_state = batch["status"] = "failed" if is_large else "completed"
            original_end(batch)

        server.max_lines, server._end, server.create = 10**9, end, original_create
    wrapped(server)
    check_books(server, server.ledger)
    assert len(server.batches) > 3
    assert server.slept > 30.0


def test_a_queue_that_stays_full_ends_the_run_and_keeps_all(server):
    server.max_lines = 0
    with pytest.raises(TeacherUnavailableError, match="Enqueued token limit reached"):
        run(server, server.ledger, sleep=server.sleep)
    assert server.slept > 3600
    wrapped(server, max_lines=10**9)
    assert_bought_once(server)


def test_files_too_large_are_split(server):
    wrapped(server, max_bytes=20_000)
    check_books(server, server.ledger)
    assert len(server.batches) > 3


def test_a_line_too_large_for_any_file_sets_its_question_aside(server):
    server.max_bytes = 10
    with_answers = [(question, 0) for question in QUESTIONS[:3]]
    config = TeacherConfig(url=server.url, model="m", batch=True, api_key_env="")
    with Ledger(server.ledger) as ledger:
        teacher = OpenAITeacher(BatchClient(config, ledger, run="r", sleep=server.sleep), config)
        given = list(answer_all(with_answers, teacher, config))
    assert all("too large for a batch" in item.reason for item in given)


def test_azures_query_is_kept_behind_every_path(server):
    server.prefix, server.target = "/openai", "/chat/completions"
    deployment = f"{server.url}/deployments/gpt/chat/completions?api-version=2024-10-21"

    class Azure:
        url = deployment

    made, _ = run(Azure, server.ledger, sleep=server.sleep)
    assert all(annotation.is_usable for annotation in made)
    assert {path.partition("?")[2] for path in server.paths} == {"api-version=2024-10-21"}
    assert {"/".join(path.split("?")[0].split("/")[:3]) for path in server.paths} == {
        "/openai/files",
        "/openai/batches",
    }
    assert_bought_once(server)


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "0"}])
def test_a_failing_state_request_is_not_repeated_faster_than_polls(server, headers):
    """Nor where the server says "Retry-After: 0"."""
    times = []

    def fault(path, number):
        if path.startswith("GET /v1/batches/"):
            times.append(server.slept)
            return "500" if len(times) % 3 else None
        return None

    wrapped(server, fault=fault)
    assert all(after - before >= 30.0 for before, after in pairwise(times) if after != before)
