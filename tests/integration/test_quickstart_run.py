"""`edgeelad distill` without arguments, in small: data, student, teacher, run, the last question, resuming."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from edgeelad.cli import launch
from edgeelad.cli.show import TerminalProgress
from edgeelad.errors import ConfigError, RunError, UsageError
from edgeelad.files import read_json, read_jsonl
from edgeelad.loop import distill
from edgeelad.quickstart import run as quickstart_run
from edgeelad.quickstart.problems import KNOWN_SKILLS
from edgeelad.quickstart.recipe import RECIPE

SMALL = replace(
    RECIPE, num_seed_examples=120, num_pool=60, num_test=20, hidden_size=64, intermediate_size=128, num_layers=2,
    num_heads=2, base_steps=80, num_rounds=1, batch_size=8, round_steps=6, max_seed_examples=20,
)  # fmt: skip


def test_the_quickstart_runs_shows_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quickstart_run, "RECIPE", SMALL)
    screen = Console(file=io.StringIO(), width=80)
    progress = TerminalProgress(screen)
    plan = launch.plan(None, tmp_path / "run", {"seed": 4}, ("stopping.audit_size=10",), resume=False)
    assert plan.is_quickstart
    with launch.environment(plan, progress) as config:
        assert config.stopping.audit_size == 10
        summary = distill(config, progress)
        launch.show_quickstart(plan.folder, progress)
    launch.show_result(plan, summary, screen)

    data = tmp_path / "run" / "quickstart"
    assert {row["skill"] for row in read_jsonl(data / "seed_examples.jsonl")} <= set(KNOWN_SKILLS)
    pool = list(read_jsonl(data / "pool.jsonl"))
    assert len(pool) == 60
    assert not any("answer" in row for row in pool)  # every answer is the teacher's
    assert summary["annotated"] + summary["set_aside"] == 8

    shown = " ".join(screen.file.getvalue().split())
    for part in (
        "Round 1: teacher revises",
        "The packaged student is asked",
        "the right answer is",
        "Stopped: max_rounds",
    ):
        assert part in shown
    for command in ("edgeelad distill --pool", "edgeelad score --model", "edgeelad run"):
        assert command in shown

    again = launch.plan(tmp_path / "run", None, {}, (), resume=True)
    assert again.is_quickstart
    assert again.seed == 4
    with launch.environment(again, progress) as config:
        resumed = distill(config, progress)
    assert {**resumed, "seconds": None} == {**summary, "seconds": None}
    assert read_json(data / "seed.json") == {"seed": 4}


def test_a_quickstart_has_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert launch.plan(None, None, {}, (), resume=False).folder == Path("runs/quickstart")
    (tmp_path / "runs" / "quickstart" / "quickstart").mkdir(parents=True)
    assert launch.plan(None, None, {}, (), resume=False).folder == Path("runs/quickstart-2")
    with pytest.raises(RunError, match="--resume, or choose another --out"):
        launch.plan(None, Path("runs/quickstart"), {}, (), resume=False)


def test_flags_that_do_not_go_together(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--pool"):
        launch.plan(None, None, {"teacher_url": "http://127.0.0.1:1/v1"}, (), resume=False)
    with pytest.raises(UsageError, match="--replay"):
        launch.plan(None, None, {"replay": tmp_path / "none.sqlite"}, (), resume=False)
    (tmp_path / "quickstart").mkdir()
    with pytest.raises(ConfigError, match="cannot be changed on --resume"):
        launch.plan(tmp_path, None, {}, ("training.epochs=2",), resume=True)
