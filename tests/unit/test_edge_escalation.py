import json
import threading

import pytest
from fixtures.chaos_server import ChaosServer, Raw
from fixtures.fake_teacher import FakeTeacher, make_tree
from fixtures.served import TEXT, events, serving

from edgeelad.config import TeacherConfig
from edgeelad.edge.escalation import COOL_OFF_S, EscalatedLog, Escalation
from edgeelad.errors import BudgetError, TeacherRefusedError, TeacherReplyError, TeacherUnavailableError, UsageError
from edgeelad.pool import read_pool
from edgeelad.records import Question
from edgeelad.teacher import open_teacher
from edgeelad.teacher.protocol import ChainReply

REPLY = ChainReply(("2 and 2 are 4.", "4 + 1 = 5."), "5")
TAUGHT = "2 and 2 are 4.\n4 + 1 = 5.\nThe answer is 5"


@pytest.fixture
def log(tmp_path):
    opened = EscalatedLog(tmp_path / "logs" / "escalated.jsonl")
    yield opened
    opened.close()


def rows(log):
    return [json.loads(line) for line in log.path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("stream", [False, True])
def test_the_teacher_answers_what_the_student_does_not_know(log, stream):
    teacher = FakeTeacher(rationale=lambda question, reference, sample: REPLY)
    with serving(escalation=Escalation(teacher, 1.0, log)) as server:
        _, text, _ = server.call(messages=[{"role": "user", "content": "q"}], stream=stream, logprobs=True)
        if stream:
            choices = [event["choices"][0] for event in events(text)]
            assert "".join(choice["delta"].get("content", "") for choice in choices) == TAUGHT
            choice = choices[-1]
        else:
            (choice,) = json.loads(text)["choices"]
            assert choice["message"]["content"] == TAUGHT
            assert choice["logprobs"] is None
        assert choice["edgeelad"]["source"] == "teacher"
        assert choice["edgeelad"]["steps"] == list(REPLY.steps)
        assert choice["edgeelad"]["answer"] == "5"
        assert choice["edgeelad"]["student"]["answer"] == "4"
        assert server.ask("q")[1]["choices"][0]["message"]["content"] == TAUGHT
        message = server.ask("q", response_format={"type": "json_object"})[1]["choices"][0]["message"]
        assert json.loads(message["content"]) == {"steps": list(REPLY.steps), "answer": "5"}
        cut = server.ask("q", stop=" 5.")[1]["choices"][0]["message"]["content"]
        assert cut == TAUGHT.partition(" 5.")[0]
        assert 'edgeelad_escalated_total{outcome="answered"}' in server.call("/metrics")[1]
    assert rows(log) == [{"question": "q", "answer": "5", "explanation": TAUGHT}]


def test_what_the_student_knows_or_the_client_cut_off_stays_with_the_student(log):
    teacher = FakeTeacher(rationale=lambda question, reference, sample: REPLY)
    with serving(escalation=Escalation(teacher, 1e-9, log)) as server:
        assert server.ask("q")[1]["choices"][0]["edgeelad"]["source"] == "student"
        _, text, _ = server.call("/v1/completions", prompt="q", stream=True, logprobs=1)
        assert "".join(event["choices"][0]["text"] for event in events(text)) == TEXT
    with serving(escalation=Escalation(teacher, 1.0, log)) as server:
        for limit in ({"max_tokens": 3}, {"stop": " 4"}):
            assert server.ask("q", **limit)[1]["choices"][0]["edgeelad"]["source"] == "student"
    assert teacher.calls == []
    assert rows(log) == []


def test_each_question_counts_against_the_cap_on_questions(tmp_path):
    """Two spellings of one question are one."""
    config = TeacherConfig(max_questions=2)
    own = FakeTeacher(rationale=lambda question, reference, sample: REPLY)
    with (
        open_teacher(config, tmp_path / "serve.sqlite", {}, run="serve", own=own) as teacher,
        serving(escalation=Escalation(teacher, 1.0)) as server,
    ):
        asked = ["What is 1 + 1?", "What  is 1 + 1?", "What is 2 + 1?", "What is 3 + 1?"]
        found = [server.ask(question)[1]["choices"][0]["edgeelad"] for question in asked]
    assert [extension["source"] for extension in found] == ["teacher"] * 3 + ["student"]
    assert "max_questions" in found[3]["escalation"]


@pytest.mark.parametrize(
    ("limit", "asked", "source"),
    [
        (None, None, "teacher"),
        (None, 39, "student"),
        (None, 40, "teacher"),  # the package's own limit
        (None, 60, "teacher"),
        (None, 10_000, "teacher"),  # more than the context
        (20, None, "teacher"),
        (20, 30, "teacher"),  # cut by --max-tokens
        (20, 10, "student"),
    ],
)
def test_only_a_client_that_asks_for_less_cuts_an_explanation_off(limit, asked, source):
    teacher = FakeTeacher(rationale=lambda question, reference, sample: REPLY)
    with serving(escalation=Escalation(teacher, 1.0), max_tokens=limit) as server:
        (choice,) = server.ask("endless", max_tokens=asked)[1]["choices"]
    assert choice["edgeelad"]["source"] == source
    assert choice["finish_reason"] == ("length" if source == "student" else "stop")


def test_no_teacher_is_paid_for_an_object_that_only_the_student_can_fill():
    def ask(number):
        properties = {"answer": {"type": "string"}, "confidence": number}
        schema = {"type": "object", "properties": properties, "required": ["answer", "confidence"]}
        wanted = {"type": "json_schema", "json_schema": {"name": "solution", "schema": schema}}
        message = server.ask("q", response_format=wanted)[1]["choices"][0]["message"]
        return json.loads(message["content"])

    teacher = FakeTeacher(rationale=lambda question, reference, sample: REPLY)
    with serving(escalation=Escalation(teacher, 1.0)) as server:
        own = ask({"type": "number"})
        assert own["answer"] == "4"
        assert 0 < own["confidence"] < 1
        assert teacher.calls == []
        assert ask({"type": ["number", "null"]}) == {"answer": "5", "confidence": None}


@pytest.mark.parametrize(
    ("error", "outcome", "num_handed", "num_calls"),
    [
        (TeacherReplyError("nonsense"), "unusable", 2, 2),
        (TeacherUnavailableError("no connection"), "failed", 2, 1),
        (BudgetError("the cap would be exceeded"), "budget", 1, 1),
        (RuntimeError("secret detail"), "failed", 2, 2),
    ],
)
def test_the_students_answer_stands_if_the_teacher_fails(log, error, outcome, num_handed, num_calls):
    def fail(*_):
        raise error

    teacher = FakeTeacher(rationale=fail)
    with serving(escalation=Escalation(teacher, 1.0, log)) as server:
        for question in ("q", "r"):
            (choice,) = server.ask(question)[1]["choices"]
            assert choice["message"]["content"] == TEXT
            assert choice["edgeelad"]["source"] == "student"
            assert "secret" not in str(choice["edgeelad"])
        assert f'edgeelad_escalated_total{{outcome="{outcome}"}} {num_handed}' in server.call("/metrics")[1]
    assert len(teacher.calls) == num_calls
    assert rows(log) == [{"question": "q"}, {"question": "r"}][:num_handed]


@pytest.mark.parametrize("error", [TeacherUnavailableError("no connection"), TeacherRefusedError("wrong key")])
def test_a_teacher_that_failed_is_tried_again_after_a_while(log, error):
    """By one question at a time; the questions that it does not get are logged, too."""
    now, is_up, asked = [0.0], [], []

    def reply(question, reference, sample):
        asked.append(question.text)
        if is_up:
            return REPLY
        if now[0]:
            assert hand("meanwhile") == "failed"
        raise error

    def hand(text):
        tree = make_tree(["1 + 1 = 2"], "2", question=Question(text, text, "number"))
        return escalation._ask(tree.question, tree).outcome

    teacher = FakeTeacher(rationale=reply)
    escalation = Escalation(teacher, 1.0, log, clock=lambda: now[0])
    assert [hand("a"), hand("b")] == ["failed", "failed"]
    now[0] = COOL_OFF_S - 1
    assert hand("c") == "failed"
    now[0] = COOL_OFF_S  # the trial fails; what comes meanwhile is not sent
    assert hand("d") == "failed"
    is_up.append(True)
    now[0] = 2 * COOL_OFF_S - 1
    assert hand("e") == "failed"
    now[0] = 2 * COOL_OFF_S
    assert [hand("f"), hand("g")] == ["answered", "answered"]
    assert asked == ["a", "d", "f", "g"]
    assert [row["question"] for row in rows(log)] == ["a", "b", "c", "meanwhile", "d", "e", "f", "g"]


def test_nothing_is_tried_again_after_an_interrupt():
    now = [0.0]
    tree = make_tree(["1 + 1 = 2"], "2", question=Question("q", "q", "number"))
    teacher = FakeTeacher(rationale=[TeacherUnavailableError("no connection")])
    teacher.reopen = lambda: pytest.fail("it was interrupted")
    escalation = Escalation(teacher, 1.0, clock=lambda: now[0])
    assert escalation._ask(tree.question, tree).outcome == "failed"
    escalation.interrupt()
    now[0] = COOL_OFF_S
    assert escalation._ask(tree.question, tree).outcome == "failed"
    assert teacher.is_interrupted


@pytest.mark.parametrize("fault", ["refuse", Raw(503), Raw(401)])
@pytest.mark.parametrize("has_fallback", [False, True])
def test_escalation_outlives_an_outage_of_the_endpoint(tmp_path, fault, has_fallback):
    now, action = [0.0], ["ok"]

    def hand(number):
        tree = make_tree(["1 + 1 = 2"], "2", question=Question(str(number), f"What is {number} + 1?", "number"))
        return escalation._ask(tree.question, tree).outcome

    def server():
        reply = json.dumps({"steps": ["1 + 1 = 2"], "answer": "2"})
        return ChaosServer(lambda number, body: action[0], lambda messages: reply)

    with server() as first, server() as second:
        settings = {"fallback_url": second.url} if has_fallback else {}
        config = TeacherConfig(url=first.url, model="m", api_key_env="", max_retry_s=0.0, **settings)
        with open_teacher(config, tmp_path / "serve.sqlite", {}, run="serve") as teacher:
            escalation = Escalation(teacher, 1.0, clock=lambda: now[0])
            assert hand(0) == "answered"
            action[0] = fault
            # an endpoint that has answered is thought to be down when several questions get nothing
            assert [hand(number) for number in range(1, 6)][-1] == "failed"
            num_requests = len(first.requests) + len(second.requests)
            assert [hand(6), hand(0)] == ["failed", "answered"]  # the ledger has the reply to the latter
            assert len(first.requests) + len(second.requests) == num_requests
            now[0] += COOL_OFF_S
            assert hand(7) != "answered"
            action[0] = "ok"
            assert [hand(8), hand(0)] == ["failed", "answered"]
            now[0] += COOL_OFF_S
            assert [hand(9), hand(10)] == ["answered", "answered"]


def test_the_log_is_a_pool(log):
    for number in range(3):
        log.add(
            Question(str(number), f"What is {number} + 1?\n“Tell” me."),
            str(number + 1),
            f"Add.\nThe answer is {number + 1}",
        )
    log.add(Question("x", "What is 0 + 1?\n“Tell” me."), "7", None)  # known
    log.add(Question("x", "And that?"), None, None)
    pool = list(read_pool(str(log.path)))
    assert [question.answer for question in pool] == ["1", "2", "3", None]
    assert pool[1].text == "What is 1 + 1?\n“Tell” me."
    assert pool[1].explanation == ("Add.",)
    assert len({question.id for question in pool}) == 4


def test_no_question_makes_the_log_unreadable(log):
    teacher = FakeTeacher(rationale=lambda question, reference, sample: REPLY)
    with serving(escalation=Escalation(teacher, 1.0, log)) as server:
        statuses = [server.ask(question)[0] for question in ("q", "What is\0 1 + 1?", "\u200b", "\x01", "\ufeff q")]
    assert statuses == [200, 400, 400, 400, 200]
    assert len(list(read_pool(str(log.path)))) == 2


def test_a_log_continues_after_a_crash(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"question": "a", "answer": "1"}\n{"question": "b", "ans')
    first = EscalatedLog(path)
    with pytest.raises(UsageError, match="another server writes it"):
        EscalatedLog(path)
    first.close()
    log = EscalatedLog(path)
    for text in ("a", "b"):
        log.add(Question("x", text), "2", None)
    log.close()
    assert rows(log) == [{"question": "a", "answer": "1"}, {"question": "b", "answer": "2"}]


@pytest.mark.parametrize("content", [b"x\n", b"[1]\n", b'{"id": 1}\n', b"\xff\n"])
def test_files_that_are_no_log(tmp_path, content):
    path = tmp_path / "log.jsonl"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="name another file"):
        EscalatedLog(path)
    assert path.read_bytes() == content


def test_a_full_disk_loses_no_answer(log, monkeypatch, caplog):
    log.add(Question("x", "a"), "1", None)
    monkeypatch.setattr("edgeelad.edge.escalation.os.write", lambda file, data: 3)
    log.add(Question("x", "b"), "1", None)
    monkeypatch.undo()
    log.add(Question("x", "b"), "1", None)
    assert "No space left" in caplog.text
    assert [row["question"] for row in rows(log)] == ["a", "b"]


def test_many_threads_log_whole_lines(log):
    threads = [
        threading.Thread(target=lambda n=n: [log.add(Question("x", f"{n} {i}"), "1", None) for i in range(50)])
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len({row["question"] for row in rows(log)}) == 200
