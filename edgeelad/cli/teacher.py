"""`edgeelad teacher check`: measure a teacher before it is paid to teach."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeelad.cli.confirm import YES, confirm_sending
from edgeelad.cli.shared import JSON, PATH, QUIET, SEED, SET, config_with_teacher, progress_shown, takes
from edgeelad.cli.terminal import write, write_error, write_json

if TYPE_CHECKING:
    from edgeelad.run.teacher_check import KeptCheck


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """What `edgeelad teacher check` was given; None: not given."""

    teacher_url: str | None
    teacher_model: str | None
    config_path: Path | None
    data: Path | None
    num: int
    seed: int
    ledger: Path
    out: Path | None
    overrides: tuple[str, ...]
    yes: bool
    as_json: bool
    quiet: bool


@click.group("teacher")
def teacher_group() -> None:
    """Measure how well a teacher finds and fixes errors."""


@teacher_group.command("check")
@click.option("--teacher-url", help="Base URL of an OpenAI-compatible API.")
@click.option("--teacher-model", help="Name of the teacher model.")
@click.option("--config", "config_path", type=PATH, help="Configuration file of a run; its [teacher] section is used.")
@click.option("--data", type=PATH, help="JSON lines with input, steps, mistake_index, target; default: generated.")
@click.option(
    "--num", default=40, show_default=True, type=click.IntRange(1, 10000), help="Number of generated problems."
)
@SEED
@click.option(
    "--ledger", type=PATH, default=Path("teacher-check.sqlite"), show_default=True, help="Ledger that keeps replies."
)
@click.option("--out", type=PATH, help="Run folder that keeps the figures; default: run.out of --config.")
@SET
@YES
@JSON
@QUIET
@takes(CheckOptions)
def check(options: CheckOptions) -> None:
    """Measure how often a teacher finds the first error, fixes it, and answers right, with 95 % intervals and cost.

    Do this before you pay for a pool. The figures go to stdout; with --out, or a --config that names its run folder,
    also into teacher_check.json there, and the run's report shows them.
    """
    from edgeelad.launch import require
    from edgeelad.quickstart.planted import planted_rows
    from edgeelad.run.teacher_check import KeptCheck, check_to_json
    from edgeelad.teacher import open_teacher
    from edgeelad.teacher.check.measure import check_teacher, read_check_rows
    from edgeelad.teacher.client.probe import probe

    path, data, out = options.config_path, options.data, options.out
    whole = config_with_teacher(path, options.overrides, url=options.teacher_url, model=options.teacher_model)
    config = whole.teacher
    if out is None and whole.run.out is not None:
        out = Path(whole.run.out)
    require("teacher", "edgeelad teacher check")
    if path is not None:
        what = f"The questions and steps in {data}" if data is not None else "Generated questions"
        confirm_sending(config, what, is_confirmed=options.yes)
    rows = list(read_check_rows(data)) if data is not None else planted_rows(options.num, options.seed)
    with progress_shown(options.quiet) as progress:
        if config.kind == "openai" and not options.ledger.exists():
            probe(config, progress.warn)
        with open_teacher(config, options.ledger, {}, run="check", say=progress.warn) as opened:
            progress.start("Checking the teacher", len(rows))
            result = check_teacher(rows, opened, config, progress.update)
            progress.finish(f"{result.usage.requests} requests")
    origin = data.name if data is not None else f"generated problems with planted errors, seed {options.seed}"
    kept = KeptCheck(str(config.url), str(config.model), origin, result)
    if out is not None:
        _keep(kept, out)
    write_json(check_to_json(kept)) if options.as_json else write(_check_text(kept))


def _keep(kept: KeptCheck, out: Path) -> None:
    """Keep a check in a run folder, and update the run's report if there is one."""
    from edgeelad.report import write_report
    from edgeelad.report.page import REPORT_FILE
    from edgeelad.run.teacher_check import keep_check

    write_error(f"kept in {keep_check(kept, out)}")
    if (out / REPORT_FILE).exists():
        write_error(f"shown in {write_report(out)}")


def _check_text(kept: KeptCheck) -> str:
    lines = []
    for label, share in kept.shares.items():
        low, high = share.interval
        counts = f"{share.num_hits} of {share.num}"
        lines.append(f"{label:42} {share.value:6.1%}  ({counts}; 95 % {low:.1%} to {high:.1%})")
    usage = kept.result.usage
    cost = "" if usage.cost_usd is None else f", {usage.about}${usage.cost_usd:.4f}"
    tokens = f"{usage.about}{usage.prompt_tokens:,} prompt and {usage.completion_tokens:,} completion tokens"
    return "\n".join([*lines, f"cost: {usage.requests} requests, {tokens}{cost}"])
