"""Find strategies and teachers that other installed packages bring, by their entry points.

A package offers one in its pyproject.toml:

    [project.entry-points."edgeelad.strategies"]
    my-score = "my_package.scores:my_score"     # a Strategy, or a function from a ReasoningTree to a number

    [project.entry-points."edgeelad.teachers"]
    my-teacher = "my_package:MyTeacher"         # a function or class from a TeacherConfig to a Teacher

and the command line knows it by its name: `--set selection.strategy=my-score`, `--teacher my-teacher`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from edgeelad.errors import ConfigError

PYTHON = "python"
"""What the configuration of a run records in place of a name, if the caller brought an object."""

Group = Literal["edgeelad.strategies", "edgeelad.teachers"]


def find_plugin(group: Group, name: str, builtin: Iterable[str], key: str) -> Any:
    """Load what an installed package offers under a name.

    Args:
        group: The entry points to search.
        name: The name.
        builtin: The names that come with edgeelad, for the message.
        key: The configuration key that holds the name, for the message.

    Raises:
        ConfigError: No package offers it, several do, or it cannot be imported.
    """
    offered = entry_points(group=group)
    found = [point for point in offered if point.name == name]
    if not found:
        raise ConfigError(_unknown(key, name, builtin, [point.name for point in offered]))
    if len(found) > 1:
        owners = " and ".join(sorted(map(_owner, found)))
        raise ConfigError(f"{key}: {name!r} is offered by {owners}; uninstall one of them")
    try:
        return found[0].load()
    except Exception as error:  # whatever importing the package raises
        what = f"{type(error).__name__}: {error}"
        raise ConfigError(f"{key}: {name!r} of {_owner(found[0])} cannot be loaded ({what})") from error


def _unknown(key: str, name: str, builtin: Iterable[str], offered: list[str]) -> str:
    known = [*builtin, *sorted(offered)]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    installed = ", ".join(sorted(offered)) or "none"
    return f"{key}: unknown name {name!r}; {hint}built in: {', '.join(builtin)}; installed: {installed}"


def _owner(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value
