"""Replies as endpoints send them, bought over loopback: what can be read is read, and bought once."""

import json
import random

import pytest
from fixtures.chaos_server import ChaosServer, Raw
from fixtures.fake_teacher import make_tree

from edgeelad.config import TeacherConfig
from edgeelad.errors import CompletionCapError
from edgeelad.records import Question
from edgeelad.teacher.client.chat_client import ChatClient
from edgeelad.teacher.ledger.ledger import Ledger
from edgeelad.teacher.ledger.totals import run_totals
from edgeelad.teacher.openai_teacher import MAX_CUT, OpenAITeacher
from edgeelad.teacher.protocol import UnusableReplyError
from edgeelad.teacher.revision.annotate import annotate, answer_all

QUESTION = Question("q", "What is 6 times 7?")
STEPS = '{"steps": ["6 * 7 = 42"], "answer": "42"}'


class Opened:
    """A teacher on a server and a ledger."""

    def __init__(self, server, path, **config):
        settings = {"url": server.url, "model": "m", "api_key_env": "", "max_concurrency": 1}
        self.config = TeacherConfig(**{**settings, **config})
        self._path = path

    def __enter__(self):
        self.ledger = Ledger(self._path).__enter__()
        self._client = ChatClient(self.config, self.ledger, run="r", sleep=lambda s: None, rng=random.Random(0))
        return OpenAITeacher(self._client, self.config)

    def __exit__(self, *error):
        self._client.close()
        self.ledger.close()


def body(message, end="stop", **usage):
    usage = {"prompt_tokens": 150, "completion_tokens": 20, **usage}
    data = {"model": "m", "choices": [{"index": 0, "message": message, "finish_reason": end}], "usage": usage}
    return Raw(200, json.dumps(data).encode())


@pytest.mark.parametrize(
    ("reply", "steps"),
    [
        (body({"content": STEPS + "\nLet me double-check that: 6"}, "length"), "6 * 7 = 42"),
        (body({"content": f"```json\n{STEPS}\n```\nSo"}, "max_tokens"), "6 * 7 = 42"),
        (body({"content": None, "reasoning_content": f"Six times seven.\n{STEPS}"}), "6 * 7 = 42"),
        (body({"content": None, "tool_calls": [{"function": {"name": "f", "arguments": STEPS}}]}), "6 * 7 = 42"),
        (body({"content": json.dumps(STEPS)}), "6 * 7 = 42"),
        (body({"content": [{"type": "text", "text": STEPS}]}), "6 * 7 = 42"),
        (body({"content": f"<think>{STEPS.replace('42', '41')}</think>\n{STEPS}"}), "6 * 7 = 42"),
        (body({"content": r'{"steps": ["6 \times 7 = 42"], "answer": "42"}'}), r"6 \times 7 = 42"),
        (body({"content": r'{"steps": ["\( 6 \cdot 7 = 42 \)"], "answer": "42"}'}), r"\( 6 \cdot 7 = 42 \)"),
        (body({"content": "{'steps': ['6 * 7 = 42'], 'answer': '42',}"}), "6 * 7 = 42"),
    ],
)
def test_what_can_be_read_is_bought_once(tmp_path, reply, steps):
    with ChaosServer(lambda number, body: reply) as server:
        with Opened(server, tmp_path / "l") as teacher:
            assert teacher.rationale(QUESTION, "42").steps == (steps,)
        # a higher cap is no reason to buy it again
        with Opened(server, tmp_path / "l", max_completion_tokens=4096) as teacher:
            assert teacher.rationale(QUESTION, "42").steps == (steps,)
    assert len(server.requests) == 1
    assert run_totals(tmp_path / "l", "r", TeacherConfig()).num_unusable == 0


def test_no_error_as_minus_one(tmp_path):
    reply = body({"content": '{"first_error": -1, "corrected_step": null, "answer": null}'})
    with ChaosServer(lambda number, body: reply) as server, Opened(server, tmp_path / "l") as teacher:
        assert teacher.find_first_error(QUESTION, ["6 * 7 = 42"], "42", "42").step is None
    assert len(server.requests) == 1


def test_latex_that_json_ate_is_never_trained_on(tmp_path):
    """Restored in a correction and in an explanation; what cannot be restored is refused, and paid for."""
    right, wrong = Question("p", "What is 6 times 7?", answer="42"), Question("q", "What is half of 42?", answer="21")
    trees = {"p": make_tree(("6 * 7 = 43",), "42", question=right), "q": make_tree((), "20", question=wrong)}

    def act(number, sent):
        name = sent["response_format"]["json_schema"]["name"]
        texts = {
            "find_first_error": r'{"first_error": 1, "corrected_step": "6 \times 7 = 42", "answer": null}',
            "rationale": r'{"steps": ["\frac{42}{2} = 21"], "answer": "21"}',
        }
        return body({"content": texts[name]})

    with ChaosServer(act) as server, Opened(server, tmp_path / "l") as teacher:
        made = list(
            annotate([right, wrong], trees, teacher, lambda items: ["Hm."] * len(items), TeacherConfig(mode="revise"))
        )
    assert [item.steps for item in made] == [(r"6 \times 7 = 42",), (r"\frac{42}{2} = 21",)]
    reply = body({"content": r'{"steps": ["So k = 6.\nu = 7 * 6 = 42"], "answer": "42"}'})
    with (
        ChaosServer(lambda number, body: reply) as server,
        Opened(server, tmp_path / "m") as teacher,
        pytest.raises(UnusableReplyError, match="LaTeX"),
    ):
        teacher.rationale(QUESTION, "42")
    assert run_totals(tmp_path / "m", "r", TeacherConfig()).num_unusable == 2


def thinking(cap):
    """A teacher whose reasoning takes 2,000 tokens before it says anything."""

    def act(number, sent):
        if sent["max_tokens"] < cap:
            details = {"completion_tokens_details": {"reasoning_tokens": sent["max_tokens"]}}
            return body(
                {"content": "", "reasoning_content": "Hm"}, "length", completion_tokens=sent["max_tokens"], **details
            )
        return body({"content": '{"answer": "42"}'})

    return act


ASKED = [(Question(f"q{index}", f"What is {index}?"), 0) for index in range(40)]


@pytest.mark.parametrize("concurrency", [1, 8])
def test_reasoning_that_eats_the_cap_ends_the_run_soon(tmp_path, concurrency):
    with ChaosServer(thinking(2_000)) as server:
        with (
            Opened(server, tmp_path / "l", max_concurrency=concurrency) as teacher,
            pytest.raises(CompletionCapError) as raised,
        ):
            list(answer_all(ASKED, teacher, teacher._config))
        assert MAX_CUT <= len(server.requests) <= MAX_CUT + 2 * concurrency
        message = str(raised.value)
        assert "teacher.max_completion_tokens = 512" in message
        assert "teacher.reasoning_effort" in message
        assert "512 reasoning tokens billed" in message or "1024 reasoning tokens billed" in message
        assert raised.value.exit_code == 1
        # the same cap again: what was bought says so already
        num_sent = len(server.requests)
        if concurrency == 1:
            with Opened(server, tmp_path / "l") as teacher, pytest.raises(CompletionCapError):
                list(answer_all(ASKED, teacher, teacher._config))
            assert len(server.requests) == num_sent
        # a higher one is sent, each question once
        with Opened(server, tmp_path / "l", max_completion_tokens=2_000) as teacher:
            given = list(answer_all(ASKED, teacher, teacher._config))
        assert {item.answer for item in given} == {"42"}
        assert len(server.requests) == num_sent + len(ASKED)


@pytest.mark.parametrize(
    "change", [{"max_completion_tokens": 700}, {"reasoning_effort": "low"}, {"structured": "text"}], ids=str
)
def test_what_could_not_be_used_is_asked_again_under_other_settings(tmp_path, change):
    """And nothing that could."""
    asked, first = ASKED[1:4], 1 + 2 * 2
    later = first + 2 * (2 if "max_completion_tokens" in change else 1)

    def act(number, sent):
        is_good = "What is 3?" in sent["messages"][1]["content"]
        is_same = sent["max_tokens"] < 1_200 and "reasoning_effort" not in sent and "response_format" in sent
        return thinking(1 if is_good or not is_same else 10**6)(number, sent)

    with ChaosServer(act) as server:
        for settings, num in (({}, first), ({}, first), (change, later)):
            with Opened(server, tmp_path / "l", **settings) as teacher:
                given = list(answer_all(asked, teacher, teacher._config))
            assert len(server.requests) == num
        assert {item.answer for item in given} == {"42"}
        # under the first settings again: what is there now is usable
        with Opened(server, tmp_path / "l") as teacher:
            assert {item.answer for item in answer_all(asked, teacher, teacher._config)} == {"42"}
        assert len(server.requests) == later


def test_a_reply_that_is_no_json_is_asked_again_at_another_effort_only(tmp_path):
    def act(number, sent):
        return body({"content": '{"answer": "42"}' if sent.get("reasoning_effort") == "high" else "I cannot say."})

    with ChaosServer(act) as server:
        for settings, num in (
            ({}, 2), ({"max_completion_tokens": 4_000}, 2), ({"reasoning_effort": "low"}, 4), ({}, 4),
            ({"reasoning_effort": "high"}, 5),
        ):  # fmt: skip
            with Opened(server, tmp_path / "l", **settings) as teacher:
                (given,) = answer_all(ASKED[:1], teacher, teacher._config)
            assert (len(server.requests), given.answer) == (num, "42" if num == 5 else None)


def test_one_question_that_needs_more_than_the_cap_ends_no_run(tmp_path):
    def act(number, sent):
        is_hard = "What is 7?" in sent["messages"][1]["content"]
        return thinking(10**6 if is_hard else 1)(number, sent)

    with ChaosServer(act) as server, Opened(server, tmp_path / "l") as teacher:
        given = list(answer_all([*ASKED, *((q, 1) for q, _ in ASKED)], teacher, teacher._config))
    assert [item.question_id for item in given if item.answer is None] == ["q7", "q7"]


def test_a_reply_that_is_cut_off_is_asked_for_with_twice_the_cap(tmp_path):
    def act(number, sent):
        whole = '{"work": "6 * 7 = 42", "answer": "42"}'
        return body({"content": whole[:20]}, "length") if sent["max_tokens"] < 1024 else body({"content": whole})

    with ChaosServer(act) as server, Opened(server, tmp_path / "l") as teacher:
        assert teacher.answer(QUESTION).answer == "42"
    assert [sent["max_tokens"] for _, _, sent in server.requests] == [512, 1024]
