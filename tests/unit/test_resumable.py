"""What a run may be told anew on --resume: each such setting leaves what is asked, so what was paid for stays paid."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgeelad.config import RESUMABLE, RESUMABLE_UNTIL_REPLY, RunConfig, StoppingConfig, TeacherConfig, load_config
from edgeelad.config_toml import dump_toml
from edgeelad.errors import ConfigError
from edgeelad.launch import plan_resume
from edgeelad.records import Question, TeacherUsage
from edgeelad.run.folder import RunFolder
from edgeelad.run.records import PoolSplit
from edgeelad.teacher.ledger.budget import Caps, Prices, Reservation
from edgeelad.teacher.ledger.exchange import StoredReply, TeacherRequest
from edgeelad.teacher.ledger.ledger import Ledger
from edgeelad.teacher.openai_teacher import OpenAITeacher
from edgeelad.teacher.prompts.messages import Message

ASKED = {"url": "http://127.0.0.1:9/v1", "model": "m", "api_key_env": ""}
PRICES = ("teacher.usd_per_million_prompt=1", "teacher.usd_per_million_completion=2")
# each resumable setting of the teacher with another value than its default
CHANGES: dict[str, Any] = {
    "max_usd": 3.0,
    "max_requests": 7,
    "max_prompt_tokens": 7,
    "max_completion_tokens_total": 7,
    "max_questions": 7,
    "max_completion_tokens": 64,
    "usd_per_million_prompt": 1.0,
    "usd_per_million_cached_prompt": 1.0,
    "usd_per_million_completion": 1.0,
    "batch_discount": 0.6,
    "max_concurrency": 3,
    "requests_per_minute": 5.0,
    "tokens_per_minute": 5.0,
    "prompt_tokens_per_minute": 5.0,
    "completion_tokens_per_minute": 5.0,
    "connect_timeout_s": 1.0,
    "read_timeout_s": 1.0,
    "max_retry_s": 1.0,
    "batch": True,
    "batch_poll_s": 1.0,
    "batch_resubmit": True,
    "api_key_env": "ANOTHER_KEY",
    "extra_headers": {"X-Team": "a"},
    "token_parameter": "max_completion_tokens",
    "structured": "text",
    "max_reasoning_tokens": 1000,
    "extra_headers_env": {"api-key": "AZURE_KEY"},
    "allow_http": True,
    "prices_from": "a table",
    "fallback_url": "https://other/v1",
    "fallback_model": "n",
    "fallback_api_key_env": "OTHER_KEY",
    "fallback_usd_per_million_prompt": 1.0,
    "fallback_usd_per_million_cached_prompt": 1.0,
    "fallback_usd_per_million_completion": 1.0,
    "reasoning_effort": "low",
}
# what the teacher is asked, how its replies are used, or whom: another run
FIXED = {
    "kind", "options", "url", "model", "mode", "walk", "max_depth", "max_calls", "max_tokens_per_question", "style",
    "style_examples", "temperature", "resample_temperature", "extra_body",
}  # fmt: skip


class Recorder:
    """A client that keeps the requests' addresses instead of sending them."""

    def __init__(self, config: TeacherConfig) -> None:
        from edgeelad.teacher.client.endpoint import endpoint_url

        self.keys: list[str] = []
        self.accounts = self
        self.ledger = self
        self.prices = None
        self.endpoint = self
        self.url = endpoint_url(config.url)
        self.model = config.model

    def complete(self, request: TeacherRequest, question_id: str, completion_cap: int) -> StoredReply:
        self.keys.append(request.key)
        return StoredReply(request.key, '{"answer": "7", "first_error": null, "steps": ["3 + 4 = 7"]}', "stop")

    def usage_of(self, keys: list[str], prices: None) -> TeacherUsage:
        return TeacherUsage()


def requests_under(**settings: Any) -> list[str]:
    """The addresses of one request of each kind."""
    config = TeacherConfig(**{**ASKED, **settings})
    recorder = Recorder(config)
    teacher = OpenAITeacher(recorder, config)  # type: ignore[arg-type]
    question = Question("q", "What is 3 + 4?")
    teacher.answer(question)
    teacher.answer(question, 1)
    teacher.check(question, ["3 + 4 = 8"], "8")
    teacher.find_first_error(question, ["3 + 4 = 8"], "7", "8")
    teacher.complete(question, ["3 + 4 = 7"], "7")
    teacher.rationale(question, None)
    return recorder.keys


def test_every_setting_of_the_teacher_is_decided() -> None:
    assert RESUMABLE["teacher"] == set(CHANGES)
    assert RESUMABLE["teacher"] | FIXED == set(TeacherConfig.model_fields)
    assert not RESUMABLE["teacher"] & FIXED
    assert RESUMABLE_UNTIL_REPLY["teacher"] <= FIXED
    for section, keys in RESUMABLE.items():
        assert keys <= set(type(getattr(RunConfig(), section)).model_fields)


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_a_resumable_setting_changes_no_request(name: str) -> None:
    assert getattr(TeacherConfig(**ASKED), name) != CHANGES[name]
    settings = {name: CHANGES[name]}
    if name == "max_usd":
        settings |= {"usd_per_million_prompt": 1.0, "usd_per_million_completion": 2.0}
    assert requests_under(**settings) == requests_under()


@pytest.mark.parametrize(
    "settings",
    [
        {"url": "http://127.0.0.1:8/v1"},
        {"model": "n"},
        {"temperature": 0.5},
        {"resample_temperature": 0.5},
        {"extra_body": {"seed": 1}},
        {"style": "x"},
    ],
)
def test_what_is_fixed_would_be_paid_for_again(settings: dict[str, Any]) -> None:
    assert requests_under(**settings) != requests_under()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "run"
    path.mkdir()
    (path / "config.toml").write_text(dump_toml(RunConfig()), encoding="utf-8")
    return path


def resumed(folder: Path, *overrides: str) -> RunConfig:
    config = plan_resume(folder, overrides).config
    assert config is not None
    return config


def test_what_is_told_anew_is_kept_in_the_run_folder(folder: Path) -> None:
    changes = (
        "teacher.completion_tokens_per_minute=500",
        "teacher.prompt_tokens_per_minute=900",
        "teacher.batch=true",
        "teacher.batch_poll_s=5",
        'teacher.token_parameter="max_completion_tokens"',
        "selection.num_rounds=9",
    )
    config = resumed(folder, *PRICES, *changes, "teacher.max_usd=4")
    teacher = config.teacher
    assert (teacher.completion_tokens_per_minute, teacher.prompt_tokens_per_minute) == (500, 900)
    assert (teacher.batch, teacher.batch_poll_s, teacher.max_usd) == (True, 5, 4)
    assert config.selection.num_rounds == 9
    assert load_config(folder / "config.toml").teacher == teacher
    assert resumed(folder).teacher == teacher


@pytest.mark.parametrize("change", ["teacher.walk=per_step", "stopping.epsilon=0.2", "training.epochs=9", "run.seed=4"])
def test_what_would_make_it_another_run_is_refused_and_nothing_is_written(folder: Path, change: str) -> None:
    before = (folder / "config.toml").read_bytes()
    with pytest.raises(ConfigError, match=r"cannot be changed on --resume; start a new run"):
        resumed(folder, change)
    assert (folder / "config.toml").read_bytes() == before


def test_a_cap_in_money_still_needs_prices(folder: Path) -> None:
    with pytest.raises(ConfigError, match="max_usd needs usd_per_million_prompt"):
        resumed(folder, "teacher.max_usd=4")


def test_the_certificate_cannot_be_loosened_after_looking() -> None:
    assert RESUMABLE["stopping"] & set(StoppingConfig.model_fields) == {"stop_when_certified"}


@pytest.mark.parametrize("has_replied", [False, True])
def test_whom_to_ask_can_be_changed_until_the_first_reply(folder: Path, has_replied: bool) -> None:
    split = PoolSplit("r", {}, (), (), ())
    RunFolder(folder).pool.write(split)
    with Ledger(folder / "ledger.sqlite") as ledger:
        request = TeacherRequest("http://t/v1", "m", (Message("user", "What?"),), 0.0, "answer", "0" * 64)
        begun = ledger.begin(request, Reservation(1, 1), Caps(), Prices(), run="r", question_id="q", completion_cap=1)
        assert begun.attempt_id is not None
        if has_replied:
            ledger.answer(begun.attempt_id, StoredReply(request.key, "7", "stop"), None, model="m")
        else:
            ledger.fail(begun.attempt_id, "unbilled", "status 404")
    changes = ("teacher.model=4.1", "teacher.url=http://127.0.0.1:8/v1")
    if has_replied:
        with pytest.raises(ConfigError, match="because the teacher has replied already"):
            resumed(folder, *changes)
    else:
        assert (resumed(folder, *changes).teacher.model, resumed(folder).teacher.url) == (
            "4.1",
            "http://127.0.0.1:8/v1",
        )


def test_the_command_line_says_what_cannot_be_changed(folder: Path) -> None:
    command = [sys.executable, "-m", "edgeelad", "distill", str(folder), "--resume", "--set", "teacher.walk=per_step"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "edgeelad: --set teacher.walk=per_step: teacher.walk cannot be changed on --resume; start a new run"
    ]
