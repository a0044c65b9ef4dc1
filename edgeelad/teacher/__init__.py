"""The paid teacher: its client, its ledger and budget, and the revision of the student's explanations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from edgeelad.config import TeacherConfig
from edgeelad.errors import ConfigError
from edgeelad.plugins import PYTHON, find_plugin
from edgeelad.records import Question
from edgeelad.teacher.client.batch_client import BatchClient
from edgeelad.teacher.client.chat_client import ChatClient
from edgeelad.teacher.client.fallback_client import FallbackClient
from edgeelad.teacher.dataset_teacher import DatasetTeacher
from edgeelad.teacher.ledger.ledger import Ledger
from edgeelad.teacher.openai_teacher import OpenAITeacher
from edgeelad.teacher.own_teacher import OwnTeacher
from edgeelad.teacher.protocol import Teacher

BUILT_IN = ("openai", "dataset")


@contextmanager
def open_teacher(
    config: TeacherConfig,
    ledger_path: Path,
    pool: Mapping[str, Question],
    *,
    run: str = "",
    count_tokens: Callable[[str], int] | None = None,
    is_replay: bool = False,
    say: Callable[[str], None] = lambda message: None,
    own: Teacher | None = None,
) -> Iterator[Teacher]:
    """Open the teacher that a configuration names; it is closed when the block ends.

    Args:
        config: Which teacher, and its limits.
        ledger_path: The ledger, created if it does not exist; not used by the dataset teacher.
        pool: The questions by id, for the dataset teacher.
        run: Whose budget is counted in a ledger that several runs share; the same each time that a run is resumed.
        count_tokens: Counts a text's tokens, for endpoints that do not tell their usage.
        is_replay: Answer from the ledger only, and send nothing.
        say: Called, from any thread, with what the user should know: for whom it waits.
        own: The caller's own teacher, instead of the one that the configuration names.

    Raises:
        ConfigError: No usable URL, model or key, or no such teacher.
        StorageError, RunError: The ledger cannot be opened.
        MissingExtraError: requests is not installed.
    """
    if own is None and config.kind == "dataset":
        yield DatasetTeacher(pool)
        return
    if own is not None or config.kind != "openai":
        with _own_teacher(config, own) as found, Ledger(ledger_path, say=say) as ledger:
            yield cast(Teacher, OwnTeacher(found, config, ledger, run, is_replay))
        return
    with Ledger(ledger_path, say=say) as ledger:
        client: ChatClient | BatchClient | FallbackClient
        if config.batch and not is_replay:
            client = BatchClient(config, ledger, run=run, count_tokens=count_tokens)
        else:
            client = ChatClient(config, ledger, run=run, count_tokens=count_tokens, is_replay=is_replay)
            if config.fallback is not None:
                second = ChatClient(config.fallback, ledger, run=run, count_tokens=count_tokens, is_replay=is_replay)
                client = FallbackClient(client, second, say)
        try:
            yield OpenAITeacher(client, config)
        finally:
            client.close()


@contextmanager
def _own_teacher(config: TeacherConfig, own: Teacher | None) -> Iterator[Teacher]:
    """The caller's object, or what an installed package offers under the name `teacher.kind`, closed at the end."""
    if own is not None:
        yield own
        return
    if config.kind == PYTHON:
        raise ConfigError(
            "this run is taught by a Python object; resume it from Python: "
            'edgeelad.distill("RUN-FOLDER", resume=True, teacher=…)'
        )
    make = find_plugin("edgeelad.teachers", config.kind, BUILT_IN, "teacher.kind")
    if not callable(make):
        raise ConfigError(f"teacher.kind: {config.kind!r} is {type(make).__name__}; expected a function or class")
    teacher = make(config)
    try:
        yield teacher
    finally:
        close = getattr(teacher, "close", None)
        if callable(close):
            close()
