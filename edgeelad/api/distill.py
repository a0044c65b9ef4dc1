"""Run a distillation from Python."""

from __future__ import annotations

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
    plan = _plan(config, resume, tuple(overrides))
    with launch.environment(plan, progress) as resolved:
        return run_distillation(_name(own, resolved, plan.is_resumed), progress, own)


def _plan(
    config: RunConfig | Mapping[str, Any] | str | Path | None, resume: bool, overrides: tuple[str, ...]
) -> launch.Plan:
    if resume:
        if not isinstance(config, str | Path):
            raise UsageError('resume needs the run folder, for example distill("runs/a", resume=True)')
        return launch.plan_resume(Path(config), overrides)
    if config is None:
        return launch.plan_quickstart(None, overrides)
    if isinstance(config, str | Path):
        if Path(config).is_dir():
            raise UsageError(f"{config} is a folder; to resume the run in it, add resume=True")
        return launch.plan_run(load_config(Path(config), overrides))
    if isinstance(config, RunConfig):
        config = config.model_dump(exclude_unset=True)
    return launch.plan_run(make_config(config, overrides))


def _name(own: OwnParts, config: RunConfig, is_resumed: bool) -> RunConfig:
    """Record in the configuration that an object takes the place of a teacher or strategy."""
    named = {}
    if own.teacher is not None:
        named["teacher", "kind"] = PYTHON
    if own.strategy is not None:
        named["selection", "strategy"] = f"{PYTHON}:{own.strategy.name}"
    for (section, key), value in named.items():
        keys = getattr(config, section)
        if is_resumed and getattr(keys, key) != value:
            raise UsageError(f"{section}.{key} of this run is {getattr(keys, key)!r}; it cannot be changed on a resume")
        config = config.model_copy(update={section: keys.model_copy(update={key: value})})
    return config
