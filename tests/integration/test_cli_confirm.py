"""A file from a stranger sends nothing to a host, and no secret, that the user has not seen."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgeelad.cli.confirm import confirm_sending
from edgeelad.config import TeacherConfig
from edgeelad.errors import UsageError

STRANGERS = """
[pool]
path = "{pool}"
[student]
model = "student"
[teacher]
url = "{url}"
model = "m"
api_key_env = "AWS_SECRET_ACCESS_KEY"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    pool = tmp_path / "id_rsa"
    pool.write_text("-----BEGIN PRIVATE KEY-----\n", encoding="utf-8")
    path = tmp_path / "run.toml"
    path.write_text(STRANGERS.format(pool=pool, url="http://teacher.invalid/v1"), encoding="utf-8")
    return path


def refused(*arguments: object) -> str:
    command = [sys.executable, "-m", "edgeelad", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize("is_resumed", [False, True])
def test_host_variable_and_pool_are_named_and_nothing_is_sent(tmp_path: Path, config: Path, is_resumed: bool) -> None:
    target: tuple[object, ...] = (config, "--out", tmp_path / "run")
    if is_resumed:
        (tmp_path / "run").mkdir()
        config.rename(tmp_path / "run" / "config.toml")
        target = (tmp_path / "run", "--resume")
    line = refused("distill", *target)
    for named in ("teacher.invalid", "unencrypted", "AWS_SECRET_ACCESS_KEY", "id_rsa", "--yes"):
        assert named in line
    assert is_resumed or not (tmp_path / "run").exists()


def test_even_a_confirmed_run_is_encrypted(tmp_path: Path, config: Path) -> None:
    line = refused("distill", config, "--yes", "--out", tmp_path / "run")
    assert "teacher.invalid would get questions and key without encryption" in line
    assert not (tmp_path / "run").exists()


def test_a_check_of_the_teacher_asks_too(tmp_path: Path, config: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"input": "a?", "steps": ["b"], "mistake_index": 0, "target": "c"}), encoding="utf-8")
    line = refused("teacher", "check", "--config", config, "--data", rows, "--ledger", tmp_path / "ledger")
    assert "rows.jsonl" in line
    assert "AWS_SECRET_ACCESS_KEY" in line
    assert not (tmp_path / "ledger").exists()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


REMOTE: dict[str, Any] = {"url": "https://teacher.example/v1", "model": "m", "api_key_env": "SOME_KEY"}


@pytest.mark.parametrize(("reply", "is_sent"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_at_a_terminal_it_is_asked(monkeypatch: pytest.MonkeyPatch, reply: str, is_sent: bool) -> None:
    shown = Terminal()
    monkeypatch.setattr("sys.stdin", Terminal(reply))
    monkeypatch.setattr("sys.stderr", shown)

    def ask(prompt: str) -> str:
        shown.write(prompt)
        return sys.stdin.readline()

    monkeypatch.setattr("click.termui.visible_prompt_func", ask)
    teacher = TeacherConfig(
        **REMOTE, extra_headers_env={"X-Key": "OTHER_KEY"}, fallback_url="https://second.example/v1"
    )
    if is_sent:
        confirm_sending(teacher, "It", is_confirmed=False)
    else:
        with pytest.raises(UsageError, match="nothing was sent"):
            confirm_sending(teacher, "It", is_confirmed=False)
    first = "teacher.example with the secret in SOME_KEY and OTHER_KEY"
    assert f"It would be sent to {first} and second.example without a key. Send it?" in shown.getvalue()


@pytest.mark.parametrize(
    "teacher",
    [
        TeacherConfig(url="http://127.0.0.1:8000/v1", model="m"),
        TeacherConfig(url="http://localhost:8000/v1", model="m"),
        TeacherConfig(kind="dataset"),
    ],
)
def test_this_machine_needs_no_confirmation(monkeypatch: pytest.MonkeyPatch, teacher: TeacherConfig) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    confirm_sending(teacher, "It", is_confirmed=False)
    confirm_sending(TeacherConfig(**REMOTE), "It", is_confirmed=True)


def test_names_do_not_steer_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(UsageError) as raised:
        confirm_sending(TeacherConfig(**REMOTE), "The questions in \x1b[2Ja", is_confirmed=False)
    assert "\x1b" not in str(raised.value)
