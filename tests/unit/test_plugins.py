"""Strategies and teachers of installed packages: found by name, and told by name where they are not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fixtures import plugin
from fixtures.packages import make_package
from fixtures.students import StudentFolders

from edgeelad.config import TeacherConfig
from edgeelad.errors import ConfigError
from edgeelad.records import Question
from edgeelad.teacher import open_teacher
from edgeelad.teacher.protocol import Abilities, AnswerReply, abilities_of
from edgeelad.uncertainty import find_strategy

QUESTION = Question("q", "Finn has 3 boxes of 4 shells and 5 more shells. How many shells does Finn have?", "number")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = plugin.install(tmp_path / "site")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "tiny_plugin", raising=False)
    return folder


def test_an_installed_strategy_is_found(installed: Path) -> None:
    strategy = find_strategy("num-steps")
    assert strategy.name == "num-steps"
    assert strategy.needs_branches


def test_an_unknown_name_lists_what_is_installed(installed: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"unknown name 'num-step'; did you mean num-steps\? built in: risk, elad, .*; installed: broken, num",
    ):
        find_strategy("num-step")
    said = r"teacher\.kind: unknown name 'solve'; .* built in: openai, dataset; installed: solver"
    with pytest.raises(ConfigError, match=said), open_teacher(TeacherConfig(kind="solve"), Path("l"), {}):
        pass


def test_a_plugin_that_cannot_be_loaded_is_named(installed: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'broken' of tiny-plugin 1\.0 cannot be loaded \(AttributeError: .*no_such"):
        find_strategy("broken")
    plugin.install(installed, "other-plugin")
    with pytest.raises(ConfigError, match=r"'num-steps' is offered by other-plugin 1\.0 and tiny-plugin 1\.0"):
        find_strategy("num-steps")


def test_built_in_names_stay_built_in(installed: Path) -> None:
    points = installed / "tiny_plugin-1.0.dist-info" / "entry_points.txt"
    points.write_text("[edgeelad.strategies]\nelad = tiny_plugin:num_steps\n", encoding="utf-8")
    assert find_strategy("elad").description.startswith("disagreement")


def test_an_installed_teacher_is_asked_once_and_closed(installed: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    config = TeacherConfig(kind="solver", options={"log": str(log)})
    for _ in range(2):
        with open_teacher(config, tmp_path / "ledger.sqlite", {}, run="r") as teacher:
            assert abilities_of(teacher) == Abilities(False, False, False, False)
            reply = teacher.answer(QUESTION)
            assert reply == AnswerReply("17", reply.usage)
            assert (reply.usage.prompt_tokens, reply.usage.cost_usd) == (10, pytest.approx(0.001))
    assert log.read_text(encoding="utf-8").split("\n") == ["answer q", "close ", "close ", ""]


def test_the_commands_know_them(installed: Path, students: StudentFolders, tmp_path: Path) -> None:
    pool = tmp_path / "pool.jsonl"
    pool.write_text('{"question": "What is 3 + 4?"}\n', encoding="utf-8")
    command = [sys.executable, "-m", "edgeelad", "score", "--model", str(make_package(students)), "--pool", str(pool)]
    command += ["--out", str(tmp_path / "scores.jsonl"), "--strategy", "num-steps", "--quiet"]
    paths = os.pathsep.join([str(installed), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths})
    assert done.returncode == 0, done.stderr
    (row,) = map(json.loads, (tmp_path / "scores.jsonl").read_text(encoding="utf-8").splitlines())
    assert (row["strategy"], row["score"]) == ("num-steps", len(row["steps"]))
