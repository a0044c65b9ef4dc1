"""`edgeelad ledger` and `edgeelad annotations`: look at what was bought from the teacher, and take it elsewhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeelad.cli.shared import JSON, PATH
from edgeelad.cli.terminal import write, write_error, write_json
from edgeelad.errors import RunError

if TYPE_CHECKING:
    from edgeelad.records import Annotation, Question


@click.group("ledger")
def ledger_group() -> None:
    """Inspect, verify and exchange teacher ledgers."""


@ledger_group.command("stats")
@click.argument("path", type=PATH)
@JSON
def ledger_stats(path: Path, as_json: bool) -> None:
    """Show a ledger's requests, replies, tokens and cost, by prompt."""
    from edgeelad.teacher.ledger.budget import PICO
    from edgeelad.teacher.ledger.files import ledger_stats as count

    stats = dataclasses.asdict(count(path))
    if as_json:
        write_json(stats)
        return
    total, billing = stats["total"], stats["total"]["billing"]
    cost = "unknown (no prices)" if total["cost_pico"] is None else f"${total['cost_pico'] / PICO:.4f}"
    write(
        f"{total['requests']:,} requests, {total['replies']:,} replies ({total['num_unusable']:,} could not be used), "
        f"{total['num_doubtful']:,} in doubt"
    )
    if total["num_estimated"]:
        write(f"{total['num_estimated']:,} replies did not tell their tokens, which are estimates")
    write(f"{billing['prompt_tokens']:,} prompt and {billing['completion_tokens']:,} completion tokens; cost {cost}")
    for row in stats["by_prompt"]:
        cost = "" if row["cost_usd"] is None else f", ${row['cost_usd']:.4f}"
        tokens = f"{row['prompt_tokens']:,} + {row['completion_tokens']:,} tokens"
        write(f"{row['model']} {row['prompt_id']}: {row['requests']} requests, {tokens}{cost}")


@ledger_group.command("verify")
@click.argument("path", type=PATH)
@click.option("--delete", is_flag=True, help="Delete altered replies; they are bought again.")
def ledger_verify(path: Path, delete: bool) -> int:
    """Recompute every hash of a ledger; exit code 1 if one is wrong."""
    from edgeelad.teacher.ledger.files import delete_altered, verify_ledger

    if delete:
        write_error(f"{delete_altered(path)} altered replies deleted")
    wrong = verify_ledger(path)
    write("\n".join(wrong) if wrong else f"{path}: every request and reply is as it was written")
    return 1 if wrong else 0


@ledger_group.command("export")
@click.argument("path", type=PATH)
@click.argument("out", type=PATH)
def ledger_export(path: Path, out: Path) -> None:
    """Write a ledger's usable replies as JSON lines."""
    from edgeelad.teacher.ledger.files import export_ledger

    write_error(f"{export_ledger(path, out)} replies in {out}")
    write(str(out))


@ledger_group.command("import")
@click.argument("path", type=PATH)
@click.argument("source", type=PATH)
def ledger_import(path: Path, source: Path) -> None:
    """Add exported replies to a ledger; create it if there is none."""
    from edgeelad.teacher.ledger.files import import_ledger

    write_error(f"{import_ledger(path, source)} new replies from {source}")
    write(str(path))


@click.group("annotations")
def annotations_group() -> None:
    """Export verified explanations for other tools."""


@annotations_group.command("export")
@click.argument("run_folder", type=PATH)
@click.option("--out", required=True, type=PATH, help="Output file, .jsonl or .parquet.")
@click.option(
    "--format",
    "form",
    default="sft",
    show_default=True,
    type=click.Choice(["sft", "prompt-completion", "stepwise", "preference"]),
    help="Dataset format, as TRL names them.",
)
@click.option(
    "--with-own",
    is_flag=True,
    help="Also the student's own right explanations and wordings that it was trained on last.",
)
def annotations_export(run_folder: Path, out: Path, form: str, with_own: bool) -> None:
    """Write a run's verified explanations as training data."""
    from edgeelad.run.annotations import export_annotations

    if not (run_folder / "config.toml").exists():
        raise RunError(f"{run_folder}: no run folder (config.toml is missing); name the folder that `distill` wrote")
    count = export_annotations(_taught(run_folder, with_own=with_own), form, out)
    write_error(f"{count} rows in {out}")
    write(str(out))


def _taught(run_folder: Path, *, with_own: bool) -> Iterator[tuple[Question, Annotation]]:
    """A run's annotations in the order in which they were bought, with their questions; own explanations follow."""
    from edgeelad.config import load_config
    from edgeelad.pool import open_pool
    from edgeelad.pool.store import Pool
    from edgeelad.records import Annotation
    from edgeelad.run.folder import RunFolder

    questions = Pool.store(open_pool(load_config(run_folder / "config.toml").pool))
    folder = RunFolder(run_folder)
    for here in folder.rounds():
        folder.digests.check(here.annotations.path)
        for annotation in here.annotations.read_if_there():
            yield questions[annotation.question_id], annotation
    trained = [here for here in folder.rounds() if with_own and here.training.exists()]
    for here in trained[-1:]:
        for file in (here.reworded, here.own):
            folder.digests.check(file.path)
            for row in file.read_if_there():
                # of what was verified, the annotation itself is there already
                for steps in row.others if file is here.reworded else (row.steps, *row.others):
                    yield questions[row.id], Annotation(row.id, "accepted", "", steps, row.answer)
