"""Check what can be checked before anything is made: the configuration, and whether the teacher can be asked.

A wrong key, model or URL should not cost an hour of preparation.
"""

from __future__ import annotations

from edgeelad.config import RunConfig, TeacherConfig
from edgeelad.errors import ConfigError, TeacherUnavailableError, UsageError
from edgeelad.progress import Progress
from edgeelad.run.folder import RunFolder
from edgeelad.selection import selection_strategy
from edgeelad.stages.run import OwnParts, ledger_path
from edgeelad.teacher.client.probe import probe
from edgeelad.teacher.ledger.totals import run_totals
from edgeelad.training.launcher import launched
from edgeelad.training.machine import check_machine


def preflight(config: RunConfig, folder: RunFolder, progress: Progress, own: OwnParts | None = None) -> None:
    """Check the configuration, and try the teacher's endpoint for nothing unless it has answered this run already.

    Raises:
        ConfigError: The configuration lacks a pool, a student, or the teacher's URL, model or key.
        TeacherUnavailableError, TeacherRefusedError: The teacher's endpoint cannot be used.
    """
    own = own or OwnParts()
    check_config(config, own)
    is_asked = config.teacher.kind == "openai" and own.teacher is None and not config.run.replay
    if not is_asked or has_replies(config, folder):
        return
    if config.teacher.prices_from is not None:
        progress.say(_prices(config.teacher))
    try:
        probe(config.teacher, progress.warn)
    except TeacherUnavailableError as error:
        if config.teacher.fallback is None:
            raise
        progress.warn(f"{error}; the run will ask teacher.fallback_url")
        probe(config.teacher.fallback, progress.warn)


def _prices(teacher: TeacherConfig) -> str:
    dollars = f"${teacher.usd_per_million_prompt} and ${teacher.usd_per_million_completion}"
    return f"{teacher.model}: {dollars} per million prompt and completion tokens (from {teacher.prices_from})"


def check_config(config: RunConfig, own: OwnParts) -> None:
    """Check that a configuration names what every run needs.

    Raises:
        ConfigError: It lacks a pool or a student, or names an unknown strategy.
        TrainingError: This machine lacks a GPU or a package that training needs.
        UsageError: A launcher has started several of this process.
    """
    if config.pool.path is None:
        raise ConfigError("pool.path is not set: name the file of questions, for example --pool questions.jsonl")
    if config.student.model is None:
        raise ConfigError(
            "student.model is not set: name a model folder or a Hugging Face id, for example --student DIR"
        )
    check_machine(config.training)
    if (together := launched()) is not None:
        raise UsageError(
            "a run starts its training processes itself: start it once, without torchrun or accelerate launch, and "
            f"set training.num_processes = {together.num_here}"
        )
    if own.strategy is None:
        selection_strategy(config.selection.strategy)


def has_replies(config: RunConfig, folder: RunFolder) -> bool:
    """Whether the run has bought a reply."""
    if not folder.pool.exists():
        return False
    run_id = folder.pool.read().run_id
    return run_totals(ledger_path(config, folder), run_id, config.teacher).num_replies > 0
