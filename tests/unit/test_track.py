"""Trackers get each round once, losses and figures on one axis; one that fails costs a warning, not the run."""

import json
import os
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from fixtures.report_run import make_run

from edgeelad.config import RunConfig, TrainingConfig
from edgeelad.progress import Silent
from edgeelad.run.folder import RunFolder
from edgeelad.stages.track import QUIET, track


class Trackio(ModuleType):
    """A tracker's package that keeps what it is given."""

    def __init__(self) -> None:
        super().__init__("trackio")
        self.__spec__ = ModuleSpec("trackio", None)
        self.begun: list[dict[str, Any]] = []
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.num_finished = 0
        self.fault: Exception | None = None

    def init(self, **settings: Any) -> "Trackio":
        self.begun.append(settings)
        return self

    def log(self, values: dict[str, float], step: int | None = None, **_: Any) -> None:
        if self.fault is not None:
            raise self.fault
        assert step is not None
        self.logged.append((step, values))

    def finish(self) -> None:
        self.num_finished += 1


@pytest.fixture
def trackio(monkeypatch: pytest.MonkeyPatch) -> Trackio:
    pytest.importorskip("accelerate")
    package = Trackio()
    monkeypatch.setitem(sys.modules, "trackio", package)
    monkeypatch.setattr(os, "environ", {name: value for name, value in os.environ.items() if name not in QUIET})
    return package


@pytest.fixture
def run(tmp_path: Path) -> Any:
    folder = make_run(tmp_path / "run", num_rounds=2)
    for number, line in enumerate((folder / "metrics.jsonl").read_text().splitlines()):
        (folder / f"rounds/{number:02d}").mkdir(exist_ok=True)
        (folder / f"rounds/{number:02d}/metrics.json").write_text(line)
    config = RunConfig(training=TrainingConfig(report_to=("trackio",)))
    return SimpleNamespace(config=config, folder=RunFolder(folder), progress=Silent(), id="0123456789abcdef")


def test_losses_and_figures_of_all_rounds_are_logged_once_on_one_axis(run: Any, trackio: Trackio) -> None:
    for number in (0, 1, 2, 2, 0):  # a resumed run comes by finished rounds again
        track(run, number)
    assert [settings["project"] for settings in trackio.begun] == ["edgeelad"] * 3
    assert {(settings["name"], settings["resume"]) for settings in trackio.begun} == {("run-01234567", "allow")}
    assert trackio.num_finished == 3
    steps = [step for step, _ in trackio.logged]
    assert steps == sorted(set(steps))
    rounds = {step: values for step, values in trackio.logged if "round" in values}
    assert list(rounds) == [0, 201, 402]  # after 200 optimizer steps each
    metrics = json.loads((run.folder.path / "rounds/02/metrics.json").read_text())
    figures = {name: value for name, value in rounds[402].items() if "loss" not in name}
    assert figures == {
        "round": 2.0,
        "annotated": metrics["annotated"],
        "accuracy": metrics["accuracy"],
        "agreement": 1 - metrics["agreement"]["num_disagreements"] / 100,
        "disagreement_bound": metrics["certificate"]["upper"],
        "cost_usd": metrics["teacher"]["cost_usd"],
        "requests": metrics["teacher"]["requests"],
    }
    assert "disagreement_bound" not in rounds[0]
    training = json.loads((run.folder.path / "rounds/02/training.json").read_text())
    losses = [(step - 202, values["loss"]) for step, values in trackio.logged if step > 202 and "loss" in values]
    assert [list(point) for point in losses] == training["losses"]
    assert sum("held_out_loss" in values for _, values in trackio.logged) == 10


def test_a_tracker_that_fails_is_tried_again_on_resume(run: Any, trackio: Trackio) -> None:
    trackio.fault = ConnectionError("no route\nto host")
    track(run, 0)
    assert run.progress.warnings == ["training.report_to: trackio did not take round 0: no route to host"]
    trackio.fault = None
    track(run, 0)
    assert [step for step, _ in trackio.logged] == [0]


def test_trackers_are_told_to_send_nothing_of_their_own_unless_the_user_wants_it(run: Any, trackio: Trackio) -> None:
    os.environ["WANDB_CONSOLE"] = "wrap"
    track(run, 0)
    assert {name: os.environ[name] for name in QUIET} == QUIET | {"WANDB_CONSOLE": "wrap"}


def test_nothing_is_tracked_by_default(run: Any, trackio: Trackio) -> None:
    run.config = RunConfig()
    track(run, 0)
    assert trackio.begun == []
    assert not run.folder.round(0).tracked.exists()
