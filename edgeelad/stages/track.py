"""Send a round's losses and figures to the experiment trackers that `training.report_to` names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from edgeelad.run.records import Tracked
from edgeelad.stages.run import Run

PROJECT = "edgeelad"
# switch off what the trackers' packages send by themselves, about the machine, its packages, the console and their own
# use; a variable that the user has set keeps its value
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_CONSOLE": "off",
    "WANDB_DISABLE_GIT": "true",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB__DISABLE_MACHINE_INFO": "true",
    "WANDB__SAVE_REQUIREMENTS": "false",
}


def track(run: Run, number: int) -> None:
    """Log a round to every tracker that does not have it yet; one that fails is left out with a warning.

    Steps count the optimizer steps of all rounds, and one for each student before its first.
    """
    here = run.folder.round(number)
    done = dict(here.tracked.read().runs) if here.tracked.exists() else {}
    for name in run.config.training.report_to:
        if name in done:
            continue
        try:
            done[name] = _log(run, number, name)
        except Exception as error:  # what trackers raise has no common base, and none of it is worth a run
            reason = " ".join(str(error).split()) or type(error).__name__
            run.progress.warn(f"training.report_to: {name} did not take round {number}: {reason}")
        else:
            here.tracked.write(Tracked(done))


def _log(run: Run, number: int, name: str) -> str:
    """Log a round to one tracker; gives the tracker's id of the run, if it has one."""
    for variable, value in QUIET.items():
        os.environ.setdefault(variable, value)
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    PartialState()  # the trackers' own logging needs it
    first = run.folder.round(0).tracked
    begun = first.read().runs.get(name) if first.exists() else None
    settings: dict[str, dict[str, Any]] = {
        "tensorboard": {"run_name": "tensorboard", "logging_dir": run.folder.path},
        "mlflow": {"experiment_name": PROJECT, "run_name": run.folder.path.name, "run_id": begun or None},
        "wandb": {"run_name": PROJECT, "name": run.folder.path.name, "id": run.id, "resume": "allow"},
        "trackio": {"run_name": PROJECT, "name": f"{run.folder.path.name}-{run.id[:8]}", "resume": "allow"},
    }
    tracker: Any = LOGGER_TYPE_TO_CLASS[name](**settings[name])
    if hasattr(tracker, "start"):  # older versions of accelerate start it at once
        tracker.start()
    try:
        for step, values in _points(run, number):
            tracker.log(values, step=step)
        return str(tracker.tracker.info.run_id) if name == "mlflow" else ""
    finally:
        tracker.finish()


def _points(run: Run, number: int) -> Iterator[tuple[int, dict[str, float]]]:
    """What is logged of a round: losses by step, then its figures."""
    if number == 0:
        yield 0, _figures(run, 0)
        return
    start = 1 + sum(1 + run.folder.round(before).training.read().num_steps for before in range(1, number))
    training = run.folder.round(number).training.read()
    points: dict[int, dict[str, float]] = {}
    for losses, name in ((training.losses, "loss"), (training.held_out_losses, "held_out_loss")):
        for step, loss in losses:
            points.setdefault(start + step, {})[name] = loss
    points.setdefault(start + training.num_steps, {}).update(_figures(run, number))
    yield from sorted(points.items())


def _figures(run: Run, number: int) -> dict[str, float]:
    metrics = run.folder.round(number).metrics.read()
    counts, certificate = metrics.agreement, metrics.certificate
    figures = {
        "round": number,
        "annotated": metrics.annotated,
        "accuracy": metrics.accuracy,
        "agreement": None if counts is None else 1 - counts.num_disagreements / counts.num_audited,
        "disagreement_bound": None if certificate is None else certificate.upper,
        "cost_usd": metrics.teacher.cost_usd,
        "requests": metrics.teacher.requests,
    }
    return {name: float(value) for name, value in figures.items() if value is not None}
