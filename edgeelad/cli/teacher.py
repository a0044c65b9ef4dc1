"""Commands around the teacher: check one before paying it, look into a ledger, take annotations elsewhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from edgeelad.records import Annotation, Question
    from edgeelad.run.teacher_check import KeptCheck

PATH = click.Path(path_type=Path)


@click.group("teacher")
def teacher_group() -> None:
    """The teacher: how well does it find and fix errors?"""


@teacher_group.command("check")
@click.option("--teacher-url", help="Base URL of an OpenAI-compatible API.")
@click.option("--teacher-model", help="Name of the teacher model.")
@click.option("--config", "config_path", type=PATH, help="A run's TOML file, for its [teacher] section.")
@click.option("--data", type=PATH, help="Rows {input, steps, mistake_index, target} as JSON lines; default: generated.")
@click.option(
    "--num", default=40, show_default=True, type=click.IntRange(1, 10000), help="Generated problems to ask about."
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
@click.option(
    "--ledger", type=PATH, default=Path("teacher-check.sqlite"), show_default=True, help="Where replies are kept."
)
@click.option(
    "--out",
    type=PATH,
    help="Run folder that keeps the figures, for the report of the run there, before or after it; default: run.out of "
    "--config, else they are only printed.",
)
@click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Set any configuration key.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
def check(
    teacher_url: str | None,
    teacher_model: str | None,
    config_path: Path | None,
    data: Path | None,
    num: int,
    seed: int,
    ledger: Path,
    out: Path | None,
    overrides: tuple[str, ...],
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure how often a teacher finds the first error, fixes it, and answers right, with 95 % intervals and cost.

    To be asked before a pool is paid for. The figures go to stdout; with --out, or a --config that names its run
    folder, also into teacher_check.json there, and the run's report shows them.
    """
    from edgeelad.cli.commands import progress_shown
    from edgeelad.cli.launch import require_distill
    from edgeelad.config import load_config, make_config
    from edgeelad.files import dump_json
    from edgeelad.quickstart.planted import planted_rows
    from edgeelad.run.teacher_check import KeptCheck, check_to_json
    from edgeelad.teacher import open_teacher
    from edgeelad.teacher.check.measure import check_teacher, read_check_rows

    given = {"url": teacher_url, "model": teacher_model}
    flags = tuple(f"teacher.{key}={value}" for key, value in given.items() if value is not None)
    settings = (*flags, *overrides)
    whole = load_config(config_path, settings) if config_path else make_config({}, settings, "command line")
    config = whole.teacher
    if out is None and "out" in whole.run.model_fields_set:
        out = Path(whole.run.out)
    require_distill("edgeelad teacher check")
    rows = list(read_check_rows(data)) if data is not None else planted_rows(num, seed)
    with progress_shown(quiet) as progress, open_teacher(config, ledger, {}, run="check") as opened:
        progress.start("Checking the teacher", len(rows))
        result = check_teacher(rows, opened, config, progress.update)
        progress.finish(f"{result.usage.requests} requests")
    origin = data.name if data is not None else f"generated problems with planted errors, seed {seed}"
    kept = KeptCheck(str(config.url), str(config.model), origin, result)
    if out is not None:
        _keep(kept, out)
    click.echo(dump_json(check_to_json(kept)) if as_json else _check_text(kept))


def _keep(kept: KeptCheck, out: Path) -> None:
    """Keep a check in a run folder; where a run's report is there already, it is made anew."""
    from edgeelad.report import write_report
    from edgeelad.report.page import REPORT_FILE
    from edgeelad.run.teacher_check import keep_check

    click.echo(f"kept in {keep_check(kept, out)}", err=True)
    if (out / REPORT_FILE).exists():
        click.echo(f"shown in {write_report(out)}", err=True)


def _check_text(kept: KeptCheck) -> str:
    lines = []
    for label, share in kept.shares.items():
        low, high = share.interval
        counts = f"{share.num_hits} of {share.num}"
        lines.append(f"{label:42} {share.value:6.1%}  ({counts}; 95 % {low:.1%} to {high:.1%})")
    usage = kept.result.usage
    cost = "" if usage.cost_usd is None else f", ${usage.cost_usd:.4f}"
    tokens = f"{usage.prompt_tokens:,} prompt and {usage.completion_tokens:,} completion tokens"
    return "\n".join([*lines, f"cost: {usage.requests} requests, {tokens}{cost}"])


@click.group("ledger")
def ledger_group() -> None:
    """The ledger: every exchange with the teacher, paid once."""


@ledger_group.command("stats")
@click.argument("path", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def ledger_stats(path: Path, as_json: bool) -> None:
    """What a ledger holds: attempts, replies, tokens, cost, by prompt."""
    from edgeelad.files import dump_json
    from edgeelad.teacher.ledger.budget import PICO
    from edgeelad.teacher.ledger.files import ledger_stats as count

    stats = dataclasses.asdict(count(path))
    if as_json:
        click.echo(dump_json(stats))
        return
    total, billing = stats["total"], stats["total"]["billing"]
    cost = "unknown (no prices)" if total["cost_pico"] is None else f"${total['cost_pico'] / PICO:.4f}"
    click.echo(f"{total['requests']:,} requests, {total['replies']:,} replies, {total['num_doubtful']} in doubt")
    click.echo(
        f"{billing['prompt_tokens']:,} prompt and {billing['completion_tokens']:,} completion tokens; cost {cost}"
    )
    for row in stats["by_prompt"]:
        cost = "" if row["cost_usd"] is None else f", ${row['cost_usd']:.4f}"
        tokens = f"{row['prompt_tokens']:,} + {row['completion_tokens']:,} tokens"
        click.echo(f"{row['model']} {row['prompt_id']}: {row['requests']} requests, {tokens}{cost}")


@ledger_group.command("verify")
@click.argument("path", type=PATH)
def ledger_verify(path: Path) -> int:
    """Recompute every hash of a ledger; exit code 1 where something is wrong."""
    from edgeelad.teacher.ledger.files import verify_ledger

    wrong = verify_ledger(path)
    click.echo("\n".join(wrong) if wrong else f"{path}: every request and reply is as it was written")
    return 1 if wrong else 0


@ledger_group.command("export")
@click.argument("path", type=PATH)
@click.argument("out", type=PATH)
def ledger_export(path: Path, out: Path) -> None:
    """Write a ledger's usable replies as JSON lines."""
    from edgeelad.teacher.ledger.files import export_ledger

    click.echo(f"{export_ledger(path, out)} replies in {out}", err=True)
    click.echo(str(out))


@ledger_group.command("import")
@click.argument("path", type=PATH)
@click.argument("source", type=PATH)
def ledger_import(path: Path, source: Path) -> None:
    """Take exported replies into a ledger, made where there is none."""
    from edgeelad.teacher.ledger.files import import_ledger

    click.echo(f"{import_ledger(path, source)} new replies from {source}", err=True)
    click.echo(str(path))


@click.group("annotations")
def annotations_group() -> None:
    """What was bought, for other tools."""


@annotations_group.command("export")
@click.argument("run_folder", type=PATH)
@click.option("--out", required=True, type=PATH, help="File that ends in .jsonl or .parquet.")
@click.option(
    "--format",
    "form",
    default="sft",
    show_default=True,
    type=click.Choice(["sft", "prompt-completion", "stepwise", "preference"]),
    help="TRL's forms.",
)
def annotations_export(run_folder: Path, out: Path, form: str) -> None:
    """Write a run's verified explanations as training data."""
    from edgeelad.errors import RunError
    from edgeelad.run.annotations import export_annotations

    if not (run_folder / "config.toml").exists():
        raise RunError(f"{run_folder}: no run folder (config.toml is missing); name the folder that `distill` wrote")
    count = export_annotations(_bought(run_folder), form, out)
    click.echo(f"{count} rows in {out}", err=True)
    click.echo(str(out))


def _bought(run_folder: Path) -> Iterator[tuple[Question, Annotation]]:
    """A run's annotations in the order in which they were bought, with their questions."""
    from edgeelad.config import load_config
    from edgeelad.pool import load_pool
    from edgeelad.run.annotations import read_annotations

    questions = {question.id: question for question in load_pool(load_config(run_folder / "config.toml").pool)}
    for path in sorted((run_folder / "rounds").glob("*/annotations.jsonl")):
        for annotation in read_annotations(path):
            yield questions[annotation.question_id], annotation
