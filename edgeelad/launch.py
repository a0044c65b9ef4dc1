"""Prepare a run: find its folder and configuration, and check what it needs before it starts.

Used by the command line and by the Python API; prints nothing. The run itself is `loop.distill`.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeelad.config import RESUMABLE, RESUMABLE_UNTIL_REPLY, RunConfig, parse_override
from edgeelad.errors import ConfigError, MissingExtraError, RunError, UsageError
from edgeelad.progress import Progress
from edgeelad.run.config_file import read_config, write_config
from edgeelad.run.folder import RunFolder

if TYPE_CHECKING:
    from edgeelad.stages.dry_run import DryRun

QUICKSTART_FOLDER = Path("runs/quickstart")
# the modules that tell whether an extra is installed; optimum is optional
TEACHER = ("requests", "json_repair")
EXTRAS = {
    "teacher": TEACHER,
    "ray": ("ray",),
    "distill": ("torch", "transformers", "onnx", "accelerate", "sklearn", *TEACHER),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """A run to start or to resume.

    Attributes:
        folder: The run folder.
        config: The configuration; None for a new quickstart, which makes its own.
        is_quickstart: Whether it is the embedded quickstart.
        is_resumed: Whether the run has begun already.
        overrides: Further settings, as `section.key=value`.
        seed: The run's seed.
    """

    folder: Path
    config: RunConfig | None
    is_quickstart: bool
    is_resumed: bool
    overrides: tuple[str, ...]
    seed: int

    @property
    def resume_command(self) -> str:
        """The command that resumes this run."""
        return f"edgeelad distill {shlex.quote(str(self.folder))} --resume"


def plan_run(config: RunConfig, out: Path | None = None) -> Plan:
    """Plan a new run.

    Args:
        config: Its configuration.
        out: The run folder; default: `run.out`, else runs/NAME-OF-POOL.

    Raises:
        RunError: The folder holds a run already, or is a file.
    """
    if out is None:
        name = re.sub(r"[^\w.-]+", "-", Path(config.pool.path or "").stem).strip("-.")
        out = Path(config.run.out or Path("runs") / (name or "run"))
    folder = _free_folder(out)
    return Plan(folder, _placed(config, folder), False, False, (), config.run.seed)


def plan_quickstart(out: Path | None, overrides: tuple[str, ...] = (), seed: int = 0) -> Plan:
    """Plan a new quickstart, by default in the next free folder runs/quickstart, runs/quickstart-2, …

    Raises:
        RunError: `out` holds a run already, or is a file.
    """
    if out is not None:
        return Plan(_free_folder(out), None, True, False, overrides, seed)
    number, folder = 1, QUICKSTART_FOLDER
    while _holds_run(folder):
        number += 1
        folder = QUICKSTART_FOLDER.with_name(f"{QUICKSTART_FOLDER.name}-{number}")
    return Plan(_free_folder(folder), None, True, False, overrides, seed)


def plan_resume(folder: Path, changes: tuple[str, ...] = ()) -> Plan:
    """Plan to resume a run, and record the settings that change in its config.toml.

    Args:
        folder: The run folder.
        changes: `section.key=value`, for keys in `config.RESUMABLE`, or in `config.RESUMABLE_UNTIL_REPLY` until then.

    Raises:
        RunError: No run is in the folder.
        ConfigError: A setting that a run cannot change, or the configuration is wrong.
    """
    path = RunFolder(folder).config
    is_quickstart = (folder / "quickstart").is_dir()
    if not path.exists():
        raise RunError(f"{folder}: nothing to resume (no config.toml in it); name the folder that `distill` wrote")
    for change in changes:
        section, key, _ = parse_override(change)
        if key in RESUMABLE_UNTIL_REPLY.get(section, ()):
            if path.exists() and _has_replies(folder):
                raise ConfigError(
                    f"--set {change}: {section}.{key} cannot be changed on --resume, because the teacher has replied "
                    "already; start a new run"
                )
        elif key not in RESUMABLE.get(section, ()):
            raise ConfigError(f"--set {change}: {section}.{key} cannot be changed on --resume; start a new run")
    run_folder = RunFolder(folder)
    config = _placed(read_config(run_folder, changes), folder)
    if changes:
        with run_folder.lock():
            write_config(run_folder, config, "changed on --resume: " + " ".join(changes))
    return Plan(folder, config, is_quickstart, True, changes, config.run.seed)


@contextmanager
def environment(plan: Plan, progress: Progress) -> Iterator[RunConfig]:
    """Give the configuration to run; for a quickstart, with its data, student and teacher in place.

    Raises:
        MissingExtraError: An optional dependency of fine-tuning is not installed.
    """
    require("distill", "edgeelad distill")
    if plan.config is not None and plan.config.scoring.engine == "ray":
        require("ray", "scoring.engine = 'ray'")
    let_torch_threads_sleep()
    if not plan.is_quickstart:
        assert plan.config is not None
        yield plan.config
        return
    from edgeelad.quickstart.run import quickstart

    with quickstart(plan.folder, plan.seed, plan.overrides, progress) as config:
        yield config


def dry_run(plan: Plan, progress: Progress) -> DryRun:
    """Estimate what the first round of a new run would send and cost; works in a temporary folder and sends nothing.

    Raises:
        UsageError: The run has begun already.
    """
    if plan.is_resumed:
        raise UsageError("--dry-run is for a new run; `edgeelad ledger stats` shows what a run has spent")
    with tempfile.TemporaryDirectory() as temporary:
        there = Path(temporary) / "run"
        config = plan.config and _placed(plan.config, there)
        with environment(dataclasses.replace(plan, folder=there, config=config), progress) as resolved:
            from edgeelad.stages.dry_run import dry_run as estimate

            return estimate(resolved, RunFolder(there), progress)


def export_folder(out: Path, config: RunConfig, progress: Progress) -> None:
    """Load a torch student, export it to `out`, and check it against torch on built-in prompts.

    Args:
        out: The folder to make.
        config: Names the student and says how it is prompted and exported; other sections are not read.
        progress: Receives what is done.

    Raises:
        UsageError: `out` exists.
        MissingExtraError: An optional dependency of exporting is not installed.
        ModelError, ParityError: The student cannot be loaded or exported.
    """
    require("distill", "edgeelad export")
    let_torch_threads_sleep()
    from edgeelad.export import export_student
    from edgeelad.export.questions import BUILT_IN
    from edgeelad.training import prepare_student

    if out.exists():
        raise UsageError(f"{out} exists already; name a new folder with --out")
    with tempfile.TemporaryDirectory() as temporary:
        progress.start("Loading the student")
        folder = prepare_student(str(config.student.model), Path(temporary) / "student", config.student)
        progress.finish()
        progress.start("Exporting to ONNX")
        result = export_student(folder, out, config.export, parity_questions=BUILT_IN, previous=None)
        progress.finish(result.summary)
        for warning in result.warnings:
            progress.warn(warning)


def require(extra: str, purpose: str) -> None:
    """Check that an extra is installed, before anything is made.

    Raises:
        MissingExtraError: One of its modules is missing.
    """
    for module in EXTRAS[extra]:
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError(module, extra, purpose)


def let_torch_threads_sleep() -> None:
    """Have OpenMP threads sleep while they wait, if torch is not loaded yet.

    By default they spin: if another program wants a core, a training step takes several times as long (measured:
    1010 ms against 320).
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _placed(config: RunConfig, folder: Path) -> RunConfig:
    return config.model_copy(update={"run": config.run.model_copy(update={"out": str(folder)})})


def _has_replies(folder: Path) -> bool:
    from edgeelad.stages.preflight import has_replies

    run_folder = RunFolder(folder)
    return has_replies(read_config(run_folder), run_folder)


def _holds_run(folder: Path) -> bool:
    return (folder / "pool.json").exists() or (folder / "quickstart").is_dir()


def _free_folder(folder: Path) -> Path:
    if _holds_run(folder):
        raise RunError(
            f"{folder} holds a run already; resume it with: edgeelad distill {shlex.quote(str(folder))} --resume, "
            "or choose another --out"
        )
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file, not a folder; choose another --out")
    return folder
