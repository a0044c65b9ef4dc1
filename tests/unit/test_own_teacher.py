"""A teacher object behind the ledger: asked once, checked, its failures kept, replayed without being asked."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from edgeelad.config import TeacherConfig
from edgeelad.errors import BudgetError, ConfigError, TeacherRefusedError, TeacherReplyError
from edgeelad.records import Question, TeacherUsage
from edgeelad.teacher import open_teacher
from edgeelad.teacher.ledger.totals import run_totals
from edgeelad.teacher.prompts.messages import Turn
from edgeelad.teacher.protocol import (
    AnswerReply,
    ChainReply,
    JudgeReply,
    UnusableReplyError,
    abilities_of,
)

QUESTION = Question("q", "What is 3 + 4?", "number")
COST = TeacherUsage(1, 10, 5, 0.001)


class Scripted:
    """Replies with what it was given, and raises what is an error."""

    def __init__(self, **replies: Any) -> None:
        self.replies = replies
        self.calls: list[tuple[Any, ...]] = []

    def answer(self, question: Question, sample: int = 0) -> AnswerReply:
        return self._reply("answer", question, sample)

    def rationale(self, question: Question, reference: str | None, sample: int = 0) -> ChainReply:
        return self._reply("rationale", question, reference, sample)

    def _reply(self, method: str, *arguments: Any) -> Any:
        self.calls.append((method, *arguments))
        reply = self.replies[method]
        if isinstance(reply, BaseException):
            raise reply
        return reply


class Judge(Scripted):
    def judge_step(self, *arguments: Any) -> JudgeReply:
        return self._reply("judge_step", *arguments)


def ask(teacher: Any, ledger: Path, method: str = "answer", *arguments: Any, **options: Any) -> Any:
    config = TeacherConfig(**options.pop("config", {}))
    with open_teacher(config, ledger, {}, run="r", own=teacher, **options) as opened:
        return getattr(opened, method)(QUESTION, *arguments)


@pytest.mark.parametrize(
    ("given", "expected"), [("7", "7"), ("$7.00", "7"), ("14/2", "7"), (" 1,000 ", "1000"), (7, "7")]
)
def test_answers_become_canonical(given: Any, expected: str, tmp_path: Path) -> None:
    teacher = Scripted(answer=AnswerReply(given, COST))
    assert ask(teacher, tmp_path / "l").answer == expected


def test_each_request_is_made_once(tmp_path: Path) -> None:
    teacher = Judge(
        answer=AnswerReply("7"),
        rationale=ChainReply(["3 + 4\n= 7"], "7", COST),  # type: ignore[arg-type]
        judge_step=JudgeReply(False, "3 + 4 = 7", "no"),
    )
    assert abilities_of(teacher).judges_steps
    for _ in range(2):
        assert ask(teacher, tmp_path / "l", "answer", 1).answer == "7"
        chain = ask(teacher, tmp_path / "l", "rationale", None, 0)
        assert (chain.steps, chain.usage.prompt_tokens) == (("3 + 4 = 7",), 10)
        turns = [Turn("3 + 4 = 8", "no")]
        assert ask(teacher, tmp_path / "l", "judge_step", ["a"], turns, "b", None).corrected == "3 + 4 = 7"
    assert [call[0] for call in teacher.calls] == ["answer", "rationale", "judge_step"]
    ask(teacher, tmp_path / "l", "answer", 2)
    ask(teacher, tmp_path / "l", "judge_step", ["a"], turns, "c", None)
    assert [call[0] for call in teacher.calls[3:]] == ["answer", "judge_step"]


@pytest.mark.parametrize(
    ("error", "cost"), [(TeacherReplyError("no idea"), None), (UnusableReplyError("cut off", COST), 0.001)]
)
def test_an_unusable_reply_is_kept_and_counted(error: TeacherReplyError, cost: float | None, tmp_path: Path) -> None:
    teacher = Scripted(answer=error)
    for _ in range(2):
        with pytest.raises(UnusableReplyError, match=str(error)):
            ask(teacher, tmp_path / "l")
    assert len(teacher.calls) == 1
    totals = run_totals(tmp_path / "l", "r", TeacherConfig())
    assert (totals.usage.requests, totals.num_unusable, totals.usage.cost_usd) == (1, 1, pytest.approx(cost))


@pytest.mark.parametrize(
    ("reply", "error", "said"),
    [
        ("7", ConfigError, r"answer\(\) returned str; expected AnswerReply"),
        (None, ConfigError, r"answer\(\) returned NoneType; expected AnswerReply"),
        (AnswerReply("seven or eight"), UnusableReplyError, "the answer 'seven or eight' is not a number"),
    ],
)
def test_replies_are_checked(reply: Any, error: type[Exception], said: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=said):
        ask(Scripted(answer=reply), tmp_path / "l")


@pytest.mark.parametrize(("error", "in_doubt"), [(TeacherRefusedError("no credit"), 0), (OSError("gone"), 1)])
def test_an_error_ends_the_call_and_is_asked_again(error: Exception, in_doubt: int, tmp_path: Path) -> None:
    with pytest.raises(type(error), match=str(error)):
        ask(Scripted(answer=error), tmp_path / "l")
    assert run_totals(tmp_path / "l", "r", TeacherConfig()).num_in_doubt == in_doubt
    assert ask(Scripted(answer=AnswerReply("7")), tmp_path / "l").answer == "7"


def test_a_replay_asks_nothing(tmp_path: Path) -> None:
    ask(Scripted(answer=AnswerReply("7")), tmp_path / "l")
    silent = Scripted()
    assert ask(silent, tmp_path / "l", is_replay=True).answer == "7"
    with pytest.raises(TeacherReplyError, match=r"holds no reply to rationale\(\), and the teacher is not asked"):
        ask(silent, tmp_path / "l", "rationale", None, is_replay=True)
    assert silent.calls == []


def test_a_cap_is_checked_before_each_call(tmp_path: Path) -> None:
    teacher = Scripted(answer=AnswerReply("7", COST))
    caps = {"max_usd": 0.0015, "kind": "python"}
    ask(teacher, tmp_path / "l", "answer", 0, config=caps)
    ask(teacher, tmp_path / "l", "answer", 1, config=caps)
    with pytest.raises(BudgetError, match=r"teacher\.max_usd"):
        ask(teacher, tmp_path / "l", "answer", 2, config=caps)
    assert len(teacher.calls) == 2


def test_two_questions_of_one_text_are_asked_once_by_several_threads(tmp_path: Path) -> None:
    teacher, start = Scripted(answer=AnswerReply("7")), Barrier(4)

    def call(opened: Any) -> str:
        start.wait()
        return opened.answer(QUESTION).answer

    with open_teacher(TeacherConfig(), tmp_path / "l", {}, own=teacher) as opened, ThreadPoolExecutor(4) as threads:
        assert list(threads.map(call, [opened] * 4)) == ["7"] * 4
    assert len(teacher.calls) == 1


def test_an_object_that_is_no_teacher_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"object has no method answer\(\), which a teacher needs"):
        ask(object(), tmp_path / "l")
