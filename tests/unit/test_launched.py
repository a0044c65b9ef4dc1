"""A run under torchrun or accelerate launch: the first process owns it, the others end at once with one line."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import edgeelad
from edgeelad import launch
from edgeelad.cli.distill import distill
from edgeelad.errors import UsageError
from edgeelad.training.launcher import launched

FIRST = {
    "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500", "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "none",
}  # fmt: skip


@pytest.fixture
def torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in FIRST.items():
        monkeypatch.setenv(name, value)


def test_other_processes_end_with_one_line_and_touch_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgeelad", "distill", "--out", str(tmp_path / "run")],
        env={**os.environ, **FIRST, "RANK": "3", "LOCAL_RANK": "1"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("edgeelad: process 3 of 4 ends: process 0 owns the run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("given", "expected"), [((), 2), (("--set", "training.num_processes=1"), 1)])
def test_the_first_process_starts_as_many_training_processes_on_its_machine(
    torchrun: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: tuple[str, ...], expected: int
) -> None:
    plans: list[launch.Plan] = []

    def stop(plan: launch.Plan, progress: Any) -> Any:
        plans.append(plan)
        raise UsageError("far enough")

    monkeypatch.setattr(launch, "environment", stop)
    arguments = ["--pool", "p.jsonl", "--student", "s", "--out", str(tmp_path / "run"), "--quiet", *given]
    with pytest.raises(UsageError, match="far enough"):
        distill.main(arguments, standalone_mode=False)
    (plan,) = plans
    assert plan.config is not None
    assert plan.config.training.num_processes == expected
    assert launched() is None
    assert not FIRST.keys() & os.environ.keys()


def test_a_script_under_a_launcher_is_told_what_to_set(torchrun: None, tmp_path: Path) -> None:
    config = {"pool": {"path": "p.jsonl"}, "student": {"model": "s"}, "run": {"out": str(tmp_path / "run")}}
    with pytest.raises(UsageError, match=r"start it once, without torchrun .* training\.num_processes = 2"):
        edgeelad.distill(config)
    assert not (tmp_path / "run").exists()
