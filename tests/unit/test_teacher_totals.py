import dataclasses

import pytest
from fixtures.chaos_server import ChaosServer

from edgeelad.config import TeacherConfig
from edgeelad.records import Annotation, Question, TeacherUsage
from edgeelad.teacher import open_teacher
from edgeelad.teacher.ledger.totals import RunTotals, run_totals
from edgeelad.teacher.protocol import UnusableReplyError

PRICES = {"usd_per_million_prompt": 1.0, "usd_per_million_completion": 2.0}
ASIDE = Annotation("q", "set_aside", "", (), None, reason="no")
USED = dataclasses.replace(ASIDE, status="rationale", rung="L5", steps=("a",), answer="7", reason="")


def test_replies_that_could_not_be_used_are_counted(tmp_path):
    with ChaosServer(lambda number, body: ("cut_off", "cut_off", "no_usage")[number]) as server:
        config = TeacherConfig(url=server.url, model="m", api_key_env="", **PRICES)
        with open_teacher(config, tmp_path / "l", {}, run="r", count_tokens=len) as teacher:
            with pytest.raises(UnusableReplyError):
                teacher.answer(Question("q", "What?"))
            teacher.answer(Question("p", "Who?"))
    totals = run_totals(tmp_path / "l", "r", config)
    assert (totals.usage.requests, totals.num_replies, totals.num_unusable, totals.num_in_doubt) == (3, 3, 2, 0)
    assert totals.usage.is_estimated
    assert totals.usage.num_estimated == 1
    assert totals.usage.prompt_tokens > server.delivered.prompt_tokens
    tokens = totals.usage.prompt_tokens + 2 * totals.usage.completion_tokens
    assert totals.usage.cost_usd == pytest.approx(tokens / 1e6)


def test_a_question_is_set_aside_if_its_last_annotation_is(tmp_path):
    aside = [ASIDE, dataclasses.replace(USED, question_id="p"), dataclasses.replace(ASIDE, question_id="p"), USED]
    assert run_totals(tmp_path / "none", "r", TeacherConfig(), aside).num_set_aside == 1


def test_without_a_ledger_nothing_was_bought(tmp_path):
    assert run_totals(tmp_path / "none", "r", TeacherConfig()) == RunTotals(TeacherUsage())
    assert run_totals(tmp_path / "none", "r", TeacherConfig(kind="dataset")).usage.cost_usd == 0.0
    assert not (tmp_path / "none").exists()


def test_a_sum_with_an_unknown_cost_is_unknown():
    known, unknown = TeacherUsage(1, 2, 3, 0.5), TeacherUsage(1, 2, 3, None, 1)
    assert known + known == TeacherUsage(2, 4, 6, 1.0)
    assert known + unknown == TeacherUsage(2, 4, 6, None, 1)
    assert TeacherUsage() + known == known
