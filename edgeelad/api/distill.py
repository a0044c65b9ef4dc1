"""Run a distillation from Python."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeelad import launch
from edgeelad.api.events import EventProgress, OnEvent
from edgeelad.config import RunConfig, load_config, make_config
from edgeelad.engine.processes import check_main_guard
from edgeelad.errors import UsageError
from edgeelad.loop import distill as run_distillation
from edgeelad.plugins import PYTHON
from edgeelad.records import ReasoningTree
from edgeelad.run.records import Summary
from edgeelad.stages.run import OwnParts
from edgeelad.teacher.protocol import Teacher
from edgeelad.uncertainty import Strategy, find_strategy


def distill(
    config: RunConfig | Mapping[str, Any] | str | Path | None = None,
    *,
    resume: bool = False,
    overrides: Sequence[str] = (),
    teacher: Teacher | None = None,
    strategy: Strategy | Callable[[ReasoningTree], float] | None = None,
    on_event: OnEvent | None = None,
) -> Summary:
    """Teach a student, from pool to package, in the run folder `run.out`. Needs `edgeelad[distill]`.

    A run that was interrupted (by an error, Ctrl-C or a kill) is resumed by `distill(folder, resume=True)`; what was
    finished is kept and nothing is paid twice.

    Args:
        config: A `RunConfig`, its sections as dictionaries, or a TOML file; with `resume` the run folder. None runs the
            embedded quickstart.
        resume: Whether to resume the run in the folder `config`.
        overrides: Settings on top, as "section.key=value".
        teacher: An object with the methods of `edgeelad.Teacher`, instead of the one that the configuration names.
        strategy: A `Strategy` or a function from a `ReasoningTree` to a number (higher = more uncertain), instead of
            the one that the configuration names.
        on_event: Receives progress and warnings as records; default: warnings are logged.

    Returns:
        What `summary.json` in the run folder holds; the package is in its folder `package`.

    Raises:
        ConfigError, UsageError: The configuration or the arguments are wrong.
        MissingExtraError: `edgeelad[distill]` is not installed.
        BudgetError: A cap was reached before anything could be taught.
        EdgeeladError: Why the run stopped early.
    """
    check_main_guard()
    progress = EventProgress(on_event)
    own = OwnParts(teacher, None if strategy is None else find_strategy(strategy))
    names = _names(own)
    if resume:
        if not isinstance(config, str | Path):
            raise UsageError('resume needs the run folder, for example distill("runs/a", resume=True)')
        plan = launch.plan_resume(Path(config), tuple(overrides))
        _check_names(plan, names)
    else:
        settings = (f"{section}.{key}={json.dumps(name)}" for (section, key), name in names.items())
        plan = _plan_new(config, (*overrides, *settings))
    with launch.environment(plan, progress) as resolved:
        return run_distillation(resolved, progress, own)


def _plan_new(config: RunConfig | Mapping[str, Any] | str | Path | None, overrides: tuple[str, ...]) -> launch.Plan:
    if config is None:
        return launch.plan_quickstart(None, overrides)
    if isinstance(config, str | Path):
        if Path(config).is_dir():
            raise UsageError(f"{config} is a folder; to resume the run in it, add resume=True")
        return launch.plan_run(load_config(Path(config), overrides))
    if isinstance(config, RunConfig):
        config = config.model_dump(exclude_unset=True)
    return launch.plan_run(make_config(config, overrides))


def _names(own: OwnParts) -> dict[tuple[str, str], str]:
    """What the configuration records for the objects that take the place of a teacher or strategy."""
    names = {}
    if own.teacher is not None:
        names["teacher", "kind"] = PYTHON
    if own.strategy is not None:
        names["selection", "strategy"] = f"{PYTHON}:{own.strategy.name}"
    return names


def _check_names(plan: launch.Plan, names: Mapping[tuple[str, str], str]) -> None:
    for (section, key), name in names.items():
        recorded = getattr(getattr(plan.config, section), key) if plan.config is not None else name
        if recorded != name:
            raise UsageError(f"{section}.{key} of this run is {recorded!r}; it cannot be changed on a resume")
