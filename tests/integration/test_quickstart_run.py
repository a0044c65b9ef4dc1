"""`edgeelad distill` without arguments, in small: data, student, teacher, run, the last question, resuming."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from edgeelad import launch
from edgeelad.cli.distill import DistillOptions, plan_distill, show_quickstart, show_result
from edgeelad.cli.show import TerminalProgress
from edgeelad.errors import ConfigError, RunError, UsageError
from edgeelad.files import read_jsonl
from edgeelad.loop import distill
from edgeelad.progress import Silent
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
    plan = plan_distill(DistillOptions(out=tmp_path / "run", seed=4, overrides=("stopping.audit_size=10",)))
    assert plan.is_quickstart
    with launch.environment(plan, progress) as config:
        assert config.stopping.audit_size == 10
        summary = distill(config, progress)
        show_quickstart(plan.folder, progress)
    show_result(plan, summary, screen)

    data = tmp_path / "run" / "quickstart"
    assert {row["skill"] for row in read_jsonl(data / "seed_examples.jsonl")} <= set(KNOWN_SKILLS)
    pool = list(read_jsonl(data / "pool.jsonl"))
    assert len(pool) == 60
    assert not any("answer" in row for row in pool)  # every answer is the teacher's
    assert summary.annotated + summary.set_aside == 8

    shown = " ".join(screen.file.getvalue().split())
    for part in (
        "Round 1: teacher revises",
        "The packaged student is asked",
        "the right answer is",
        "Stopped: max_rounds",
        "Chosen by risk: scoring took",
        "fewer than elad would have",
    ):
        assert part in shown
    for command in ("edgeelad distill --pool", "edgeelad score --model", "edgeelad run"):
        assert command in shown

    again = plan_distill(DistillOptions(tmp_path / "run", resume=True))
    assert again.is_quickstart
    assert again.seed == 4
    with launch.environment(again, progress) as config:
        resumed = distill(config, progress)
    assert replace(resumed, seconds={}) == replace(summary, seconds={})


def test_a_quickstart_killed_at_once_keeps_its_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while the base student is trained: what was set, and the seed, are in the folder already."""

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("edgeelad.quickstart.student.train_base_student", killed)
    settings = ("selection.num_rounds=7", "selection.batch_size=11", "teacher.max_requests=99")
    plan = launch.plan_quickstart(tmp_path / "run", settings, seed=4)
    with pytest.raises(KeyboardInterrupt), launch.environment(plan, Silent()):
        pass
    again = launch.plan_resume(tmp_path / "run", ("teacher.max_requests=100",))
    assert again.is_quickstart
    assert again.seed == 4
    assert again.config is not None
    assert (again.config.selection.num_rounds, again.config.selection.batch_size) == (7, 11)
    assert again.config.teacher.max_requests == 100
    monkeypatch.setattr("edgeelad.quickstart.student.train_base_student", lambda *_, **__: None)
    with launch.environment(again, Silent()) as config:
        assert (config.selection.num_rounds, config.teacher.max_requests, config.run.seed) == (7, 100, 4)


def test_a_quickstart_has_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert plan_distill(DistillOptions()).folder == Path("runs/quickstart")
    (tmp_path / "runs" / "quickstart" / "quickstart").mkdir(parents=True)
    assert plan_distill(DistillOptions()).folder == Path("runs/quickstart-2")
    with pytest.raises(RunError, match="--resume, or choose another --out"):
        plan_distill(DistillOptions(out=Path("runs/quickstart")))


def test_flags_that_do_not_go_together(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--pool"):
        plan_distill(DistillOptions(teacher_url="http://127.0.0.1:1/v1"))
    with pytest.raises(UsageError, match="--replay"):
        plan_distill(DistillOptions(replay=tmp_path / "none.sqlite"))
    (tmp_path / "config.toml").write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot be changed on --resume"):
        plan_distill(DistillOptions(tmp_path, overrides=("training.epochs=2",), resume=True))
