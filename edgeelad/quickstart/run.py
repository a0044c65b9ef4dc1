"""Prepare `edgeelad distill` without arguments: generate the data, train the base student, serve the teacher.

Then it is a run like any other: the loop reads the pool from a file and knows only the teacher's URL.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from edgeelad.config import RunConfig, make_config
from edgeelad.files import make_folder, storage_errors, write_jsonl
from edgeelad.progress import Progress
from edgeelad.quickstart.problems import Problem, make_split
from edgeelad.quickstart.recipe import RECIPE
from edgeelad.quickstart.server import TeacherServer
from edgeelad.run.config_file import read_config, write_config
from edgeelad.run.folder import RunFolder

DATA = "quickstart"


@contextmanager
def quickstart(folder: Path, seed: int, overrides: Iterable[str], progress: Progress) -> Iterator[RunConfig]:
    """Prepare the quickstart in `folder`, or find it there, and serve its teacher until the block ends.

    Yields:
        Its configuration.

    Raises:
        MissingExtraError: torch is not installed.
        StorageError: The folder cannot be written.
    """
    run_folder = RunFolder(folder)
    with serve_teacher(run_folder) as server:
        if run_folder.config.exists():
            config = read_config(run_folder)
            teacher = config.teacher.model_copy(update={"url": server.url})
            config = config.model_copy(
                update={"teacher": teacher, "run": config.run.model_copy(update={"out": str(folder)})}
            )
        else:
            config = settings(folder, seed, server.url, overrides)
        with run_folder.lock():
            if not run_folder.config.exists():  # recorded before anything is made, or a resumed run would forget it
                with storage_errors(folder):
                    (folder / DATA).mkdir(exist_ok=True)
                write_config(run_folder, config, "edgeelad quickstart")
            _prepare(folder, config.run.seed, progress)
        yield config


def settings(folder: Path, seed: int, url: str, overrides: Iterable[str]) -> RunConfig:
    """The configuration of a quickstart."""
    data = folder / DATA
    sections: dict[str, dict[str, Any]] = {
        "run": {"out": str(folder), "seed": seed},
        "pool": {"path": str(data / "pool.jsonl"), "test_path": str(data / "test.jsonl"), "kind": "number"},
        "student": {"model": str(data / "student")},
        "teacher": {"url": url, "model": "quickstart-teacher", "api_key_env": ""},
        **RECIPE.sections,
    }
    sections["training"] = {**sections["training"], "seed_examples": str(data / "seed_examples.jsonl")}
    return make_config(sections, overrides, source="quickstart")


def _prepare(folder: Path, seed: int, progress: Progress) -> None:
    """Write the questions and train the base student, unless that is done already."""
    data = folder / DATA
    split = make_split(seed, RECIPE.num_seed_examples, RECIPE.num_pool, RECIPE.num_test)
    if not (data / "test.jsonl").exists():
        write_jsonl(data / "seed_examples.jsonl", problem_rows(split.seed_examples, "seed", is_labeled=True))
        write_jsonl(data / "pool.jsonl", problem_rows(split.pool, "pool", is_labeled=False))
        write_jsonl(data / "test.jsonl", problem_rows(split.test, "test", is_labeled=True))
    if not (data / "student").exists():
        from edgeelad.quickstart.student import train_base_student

        progress.start("Training the base student from scratch on the known skills")
        make_folder(
            data / "student",
            lambda target: train_base_student(
                split.seed_examples,
                target,
                seed,
                progress=lambda step, total, loss: progress.update(step, f"loss {loss:.3f}", total=total),
                recipe=RECIPE,
            ),
        )
        progress.finish()


def problem_rows(problems: Iterable[Problem], prefix: str, *, is_labeled: bool) -> Iterator[dict[str, Any]]:
    """Rows of a pool file; the pool itself is unlabeled, so every answer comes from the teacher."""
    for number, problem in enumerate(problems):
        row: dict[str, Any] = {"id": f"{prefix}-{number:04d}", "question": problem.question, "skill": problem.skill}
        if is_labeled:
            row |= {"answer": str(problem.answer), "explanation": list(problem.steps)}
        yield row


def serve_teacher(folder: RunFolder) -> TeacherServer:
    """The teacher, if possible on the port that the run started with: the ledger finds replies by their URL."""
    if folder.config.exists():
        port = urlsplit(read_config(folder).teacher.url or "").port or 0
        try:
            return TeacherServer(port=port)
        except OSError:
            pass  # taken by another program; with a new port, the teacher is only asked again
    return TeacherServer()
