import json

import pytest
from fixtures.chaos_server import ChaosServer
from fixtures.fake_teacher import ONE_CALL, FakeTeacher

from edgeelad.config import TeacherConfig
from edgeelad.errors import ConfigError, InputError, TeacherReplyError
from edgeelad.quickstart.planted import planted_rows
from edgeelad.quickstart.replies import ChatMessage, Faults, reply
from edgeelad.quickstart.solver import find_first_error
from edgeelad.records import Question, TeacherUsage
from edgeelad.teacher import open_teacher
from edgeelad.teacher.check.measure import CheckRow, Share, check_teacher, read_check_rows
from edgeelad.teacher.protocol import AnswerReply, ChainReply, FirstErrorReply, UnusableReplyError

CONFIG = TeacherConfig(max_concurrency=1)


def row(index, mistake):
    return CheckRow(Question(f"r{index}", f"Question {index}?", answer="7"), ("a", "b", "c"), mistake, "8")


def test_what_is_counted():
    rows = [row(0, 1), row(1, 1), row(2, 1), row(3, None), row(4, None), row(5, 0)]
    named = {"r0": 1, "r1": 2, "r2": None, "r3": None, "r4": 0, "r5": 0}

    def find(question, steps, reference, student_answer):
        assert (reference, student_answer) == ("7", "8")
        return FirstErrorReply(named[question.id], None if named[question.id] is None else "corrected")

    def complete(question, steps, reference):
        assert reference is None
        assert steps[-1] == "corrected"
        return ChainReply(("x",), "7" if question.id == "r0" else "9")

    def answer(question, sample):
        return TeacherReplyError("no") if question.id == "r5" else AnswerReply("7" if question.id != "r1" else "6")

    result = check_teacher(rows, FakeTeacher(find_first_error=find, complete=complete, answer=answer), CONFIG)
    assert result.num_rows == 6
    assert result.found == Share(2, 4)
    assert result.near == Share(3, 4)
    assert result.cleared == Share(1, 2)
    assert result.fixed == Share(1, 2)
    assert result.answered == Share(4, 6)
    assert result.unusable == Share(1, 14)


def test_shares():
    low, high = Share(9, 10).interval
    assert low == pytest.approx(0.5550, abs=1e-4)
    assert high == pytest.approx(0.9975, abs=1e-4)
    assert Share(9, 10).value == 0.9
    assert (Share(0, 0).value, Share(0, 0).interval) == (0.0, (0.0, 1.0))


def test_planted_errors_are_where_they_are_said_to_be():
    rows = planted_rows(300, seed=1)
    assert planted_rows(300, seed=1) == rows
    assert 45 < sum(item.mistake is None for item in rows) < 110
    assert all(find_first_error(item.question.text, item.steps) == item.mistake for item in rows)
    later = [item for item in rows if item.mistake is not None and item.mistake + 1 < len(item.steps)]
    assert later


@pytest.mark.parametrize("finding_error", [0.0, 0.5])
def test_a_teacher_that_misses_errors_is_seen_through(tmp_path, finding_error):
    faults = Faults(answer_error=finding_error / 5, finding_error=finding_error)

    def respond(messages):
        return reply([ChatMessage(message["role"], message["content"]) for message in messages], faults, "")

    with ChaosServer(respond=respond) as server:
        config = TeacherConfig(url=server.url, model="m", api_key_env="")
        seen = []
        with open_teacher(config, tmp_path / "l", {}) as teacher:
            result = check_teacher(planted_rows(120), teacher, config, seen.append)
        assert result.usage.requests == len(server.requests)
        assert result.usage.completion_tokens == server.delivered.completion_tokens
    low, high = result.found.interval
    assert low <= 1.0 - finding_error <= high
    low, high = result.answered.interval
    assert low <= 1.0 - finding_error / 5 <= high
    assert result.cleared.value == 1.0
    assert seen == list(range(1, 121))


def test_rows_as_published(tmp_path):
    lines = [
        {"input": "What is 3 + 4?", "steps": ["3 + 4 = 8", " So\n8. "], "mistake_index": 0, "target": "7", "answer": 8},
        {"input": "Which? Options:\n(A) a\n(B) b", "steps": ["x"], "mistake_index": None, "target": "(B)", "id": 9},
        {"input": "not True is", "steps": ["x"], "mistake_index": 0, "target": "False"},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n\n".join(map(json.dumps, lines)))
    rows = list(read_check_rows(path))
    assert rows[0].steps == ("3 + 4 = 8", "So 8.")
    assert (rows[0].question.kind, rows[0].question.answer, rows[0].answer) == ("number", "7", "8")
    assert (rows[1].question.id, rows[1].question.kind, rows[1].question.answer) == ("row 9", "choice", "B")
    assert (rows[2].question.kind, rows[2].question.answer, rows[2].mistake) == ("boolean", "no", 0)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ("[]", "expected an object"),
        ('{"input": ""}', "the field input"),
        ('{"input": "q", "steps": []}', "the field steps"),
        ('{"input": "q", "steps": [1]}', "the field steps"),
        ('{"input": "q", "steps": ["a"], "mistake_index": 1}', "from 0 to 0"),
        ('{"input": "q", "steps": ["a"], "mistake_index": true}', "from 0 to 0"),
        ('{"input": "q", "steps": ["a"], "mistake_index": null}', "the field target"),
        ('{"input": "q", "steps": ["a"], "target": " "}', "the field target"),
    ],
)
def test_bad_rows_are_named(tmp_path, line, message):
    path = tmp_path / "rows.jsonl"
    path.write_text(f"\n{line}\n")
    with pytest.raises(InputError, match=f"rows.jsonl:2: .*{message}"):
        list(read_check_rows(path))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        list(read_check_rows(tmp_path / "none"))


def test_the_cost_is_what_the_replies_cost():
    unusable = UnusableReplyError("cut off", TeacherUsage(2, 20, 10, 0.002))
    teacher = FakeTeacher(
        find_first_error=lambda *_: FirstErrorReply(None, usage=ONE_CALL), answer=lambda question, sample: unusable
    )
    assert check_teacher([row(0, None)], teacher, CONFIG).usage == TeacherUsage(3, 30, 15, 0.003)


def test_a_teacher_that_finds_no_errors_cannot_be_checked():
    with pytest.raises(ConfigError, match="finds errors"):
        check_teacher([row(0, None)], FakeTeacher(["find_first_error"]), CONFIG)


def test_rows_may_have_a_byte_order_mark_and_unusual_line_separators(tmp_path):
    path = tmp_path / "rows.jsonl"
    row = '{"input": "1 + 1\u2028= ?", "steps": ["1 + 1 = 2\u0085"], "mistake_index": null, "target": "2"}'
    path.write_text(f"\ufeff{row}\n{row}\n", encoding="utf-8")
    assert [read.question.answer for read in read_check_rows(path)] == ["2", "2"]
