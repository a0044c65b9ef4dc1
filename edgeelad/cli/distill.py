"""`edgeelad distill`, `export` and `report`: the commands of the workstation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeelad.cli.confirm import YES, confirm_sending
from edgeelad.cli.shared import (
    JSON,
    PATH,
    QUIET,
    SET,
    PoolOptions,
    fail,
    given_options,
    progress_shown,
    reads_pool,
    takes,
)
from edgeelad.cli.terminal import clean, write, write_error, write_json
from edgeelad.errors import BudgetError, RunError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from edgeelad.launch import Plan
    from edgeelad.progress import Progress
    from edgeelad.run.records import Summary

# option -> its configuration key, and the flag's name on the command line
KEYS = {
    "pool": ("pool", "path", "--pool"),
    "student": ("student", "model", "--student"),
    "teacher_kind": ("teacher", "kind", "--teacher"),
    "teacher_url": ("teacher", "url", "--teacher-url"),
    "teacher_model": ("teacher", "model", "--teacher-model"),
    "budget_usd": ("teacher", "max_usd", "--budget-usd"),
    "rounds": ("selection", "num_rounds", "--rounds"),
    "batch": ("selection", "batch_size", "--batch"),
    "seed": ("run", "seed", "--seed"),
    "ledger": ("run", "ledger", "--ledger"),
    "replay": ("run", "ledger", "--replay"),
    "fresh": ("export", "fresh", "--fresh-export"),
}
QUICKSTART_OPTIONS = frozenset({"seed", "rounds", "batch", "fresh", "ledger", "replay"})
RESUME_OPTIONS = frozenset({"rounds", "budget_usd", "fresh", "teacher_url", "teacher_model"})
NEXT_COMMANDS = """
The same with your own pool, student and teacher:
  edgeelad distill --pool questions.jsonl --student HuggingFaceTB/SmolLM2-135M-Instruct --teacher-url https://HOST/v1 \
--teacher-model NAME --out runs/mine
  edgeelad score --model runs/mine/package --pool more.jsonl --out scores.jsonl
  edgeelad run {package} "Finn has 3 boxes of 4 shells and 5 more shells. How many shells does Finn have?"
"""


@dataclass(frozen=True, slots=True)
class DistillOptions:
    """What `edgeelad distill` was given; None: not given."""

    target: Path | None = None
    pool: str | None = None
    reading: PoolOptions = field(default_factory=PoolOptions)
    student: str | None = None
    teacher_kind: str | None = None
    teacher_url: str | None = None
    teacher_model: str | None = None
    budget_usd: float | None = None
    rounds: int | None = None
    batch: int | None = None
    seed: int | None = None
    out: Path | None = None
    overrides: tuple[str, ...] = ()
    ledger: Path | None = None
    replay: Path | None = None
    fresh: bool | None = None
    dry_run: bool = False
    resume: bool = False
    yes: bool = False
    as_json: bool = False
    quiet: bool = False

    @property
    def sections(self) -> dict[str, dict[str, Any]]:
        """The configuration keys that options set.

        Raises:
            UsageError: --ledger and --replay together, or no such ledger to replay.
        """
        if self.replay is not None:
            if self.ledger is not None:
                raise UsageError("--ledger and --replay do not go together: a replay answers from its own ledger")
            if not self.replay.is_file():
                raise UsageError(f"--replay {self.replay}: no such ledger")
        data: dict[str, dict[str, Any]] = {}
        for name in self.keys_given:
            section, key, _ = KEYS[name]
            value = getattr(self, name)
            data.setdefault(section, {})[key] = str(value) if isinstance(value, Path) else value
        if reading := given_options(self.reading):
            data.setdefault("pool", {}).update(reading)
        if self.replay is not None:
            data["run"]["replay"] = True
        return data

    @property
    def keys_given(self) -> list[str]:
        """The options given that set configuration keys."""
        return [name for name in given_options(self) if name in KEYS]


@click.command()
@click.argument("target", required=False, type=PATH)
@click.option("--pool", help="Pool of questions: JSON lines, CSV, parquet, or a Hugging Face dataset.")
@reads_pool
@click.option("--student", help="Student model: a folder or a Hugging Face id.")
@click.option("--teacher", "teacher_kind", help="Teacher: openai (default), dataset, or an installed one.")
@click.option("--teacher-url", help="Base URL of an OpenAI-compatible API, such as http://127.0.0.1:8000/v1.")
@click.option("--teacher-model", help="Name of the teacher model.")
@click.option("--budget-usd", type=float, help="Maximum cost in dollars; needs the prices under [teacher].")
@click.option("--rounds", type=int, help="Maximum number of rounds.")
@click.option("--batch", type=int, help="Questions per round.")
@click.option("--seed", type=int, help="Random seed.")
@click.option("--out", type=PATH, help="Run folder; default: runs/NAME-OF-POOL.")
@SET
@click.option("--ledger", type=PATH, help="Teacher ledger, can be shared by runs; default: in the run folder.")
@click.option("--replay", type=PATH, help="Answer from this ledger only; send nothing to the teacher.")
@click.option("--fresh-export", "fresh", is_flag=True, default=None, help="Export every round from scratch.")
@click.option("--dry-run", is_flag=True, help="Show what the first round would send and cost; send nothing.")
@click.option("--resume", is_flag=True, help="Resume the run in the folder TARGET.")
@YES
@JSON
@QUIET
@takes(DistillOptions)
def distill(options: DistillOptions) -> int:
    """Teach a student, from pool to package.

    TARGET is a configuration file (TOML), or with --resume a run folder. Without arguments, the embedded quickstart
    runs: word problems, a small student, and a teacher served on loopback; a real run in minutes.
    """
    from edgeelad import launch
    from edgeelad.training.launcher import continue_alone, launched

    together = launched()
    if together is not None:
        if together.rank:
            write_error(
                f"edgeelad: process {together.rank} of {together.num_processes} ends: process 0 owns the run, and "
                "starts its training processes itself (training.num_processes)"
            )
            return 0
        continue_alone()
        settings = (f"training.num_processes={together.num_here}", *options.overrides)
        options = replace(options, overrides=settings)
    plan = plan_distill(options)
    with progress_shown(options.quiet) as progress:
        if options.dry_run:
            estimate = launch.dry_run(plan, progress)
            write_json(estimate.figures()) if options.as_json else write(estimate.text())
            return 0
    if options.target is not None and plan.config is not None and not plan.config.run.replay:
        confirm_sending(plan.config.teacher, f"The questions in {plan.config.pool.path}", is_confirmed=options.yes)
    with progress_shown(options.quiet) as progress:
        try:
            with launch.environment(plan, progress) as config:
                from edgeelad.loop import distill as run_distillation

                summary = run_distillation(config, progress)
                if plan.is_quickstart and not options.quiet:
                    show_quickstart(plan.folder, progress)
        except KeyboardInterrupt:
            fail(f"interrupted; everything finished so far is kept; resume with: {plan.resume_command}", 130)
        except BudgetError as error:
            fail(f"{error}; everything is kept; resume with: {plan.resume_command}", error.exit_code)
        if not options.quiet:
            from rich.console import Console

            show_result(plan, summary, Console(stderr=True))
    write_json(summary.to_json(), indent=2) if options.as_json else write(str(plan.folder / "package"))
    return BudgetError.exit_code if summary.stopped_because == "budget" else 0


def plan_distill(options: DistillOptions) -> Plan:
    """Decide what `edgeelad distill` runs: a configuration, the quickstart, or a run to resume.

    Raises:
        UsageError, ConfigError: Arguments that contradict each other, or a configuration that is wrong.
        RunError: No run to resume, or a folder that holds one already.
    """
    from edgeelad import launch
    from edgeelad.config import load_config, make_config

    data, target, out = options.sections, options.target, options.out
    settings = (*_as_overrides(data), *options.overrides)
    if options.resume:
        folder = target or out
        if folder is None:
            raise UsageError("--resume needs the run folder, for example: edgeelad distill runs/a --resume")
        fixed = [KEYS[name][2] for name in options.keys_given if name not in RESUME_OPTIONS] + options.reading.flags
        if fixed:
            raise UsageError(f"{fixed[0]} cannot be changed on --resume; start a new run")
        return launch.plan_resume(folder, settings)
    if target is None and options.pool is None and options.student is None:
        if options.reading.flags or not QUICKSTART_OPTIONS.issuperset(options.keys_given):
            raise UsageError("name the questions with --pool and the student with --student, or a configuration file")
        return launch.plan_quickstart(out, settings, options.seed or 0)
    if target is None:
        return launch.plan_run(make_config(data, options.overrides, source="command line"), out)
    if target.is_dir():
        raise UsageError(f"{target} is a folder; add --resume to resume the run in it")
    return launch.plan_run(load_config(target, settings), out)


def _as_overrides(data: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """The same as `section.key=value`; JSON's scalars and lists are TOML's, but for its surrogate pairs."""
    return tuple(
        f"{section}.{key}={json.dumps(value, ensure_ascii=False)}"
        for section, keys in data.items()
        for key, value in keys.items()
    )


def show_result(plan: Plan, summary: Summary, console: Console) -> None:
    """Show the table of rounds, the certificate, and what to do next."""
    from edgeelad.certificate import certificate_sentence
    from edgeelad.cli.show import rounds_table
    from edgeelad.run.folder import RunFolder
    from edgeelad.run.teaching import teaching_totals

    def show(text: str) -> None:
        console.print(clean(text), highlight=False, soft_wrap=True, markup=False)

    folder = RunFolder(plan.folder)
    console.print(rounds_table(folder.metrics.read(), summary))
    show(certificate_sentence(summary.certificate))
    seconds = sum(summary.seconds.values())
    if saved := scoring_sentence(summary):
        show(saved)
    taught = teaching_totals(folder)
    if taught is not None:
        show(taught.sentence)
    show(f"Stopped: {summary.stopped_because}. {seconds / 60:.1f} minutes.")
    show(f"Report:  {folder.report}\nPackage: {folder.package}")
    if summary.stopped_because == "budget":
        show(f"Resume with a larger budget: {plan.resume_command} --set teacher.max_usd=…")
    if plan.is_quickstart:
        show(NEXT_COMMANDS.format(package=folder.package))


def scoring_sentence(summary: Summary) -> str:
    """What scoring the pool took, and what `elad` would have taken; "" if nothing was explained."""
    if not summary.elad_tokens:
        return ""
    took = f"Chosen by {summary.strategy}: scoring took {summary.student_tokens:,} student tokens"
    if summary.strategy == "elad" or summary.student_tokens >= summary.elad_tokens:
        return f"{took}."
    share = 1 - summary.student_tokens / summary.elad_tokens
    return f"{took}, {share:.0%} fewer than elad would have (about {summary.elad_tokens:,})."


def show_quickstart(folder: Path, progress: Progress) -> None:
    """Ask the packaged student one question like the pool's, as `edgeelad run` does, and show its steps."""
    from edgeelad.api.student import load
    from edgeelad.cli.student import explain_aloud
    from edgeelad.files import read_jsonl

    question = next(iter(read_jsonl(folder / "quickstart" / "test.jsonl")))
    progress.say(f"\nThe packaged student is asked: {question['question']}")
    with load(folder / "package") as student:
        progress.say("".join(explain_aloud(student, question["question"])).rstrip("\n"))
    progress.say(f"(the right answer is {question['answer']})\n")


@click.command()
@click.option("--student", required=True, help="Torch student: a folder or a Hugging Face id.")
@click.option("--out", required=True, type=PATH, help="Folder for the ONNX student; must be new.")
@click.option(
    "--quantize", default="int8", show_default=True, type=click.Choice(["int8", "int4", "none"]), help="Quantization."
)
@click.option(
    "--max-logit-difference",
    type=click.FloatRange(min=0, min_open=True),
    help="Maximum difference between logits of ONNX and torch; default: 1e-4, more for logits beyond ±10.",
)
@click.option(
    "--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Set a student or export key. Repeatable."
)
@QUIET
def export(
    student: str,
    out: Path,
    quantize: str,
    max_logit_difference: float | None,
    overrides: tuple[str, ...],
    quiet: bool,
) -> None:
    """Export a torch student to ONNX, check it against torch, and quantize it."""
    from edgeelad.config import make_config
    from edgeelad.launch import export_folder

    for override in overrides:
        if override.partition(".")[0].strip() not in ("student", "export"):
            raise UsageError(f"--set {override}: export takes keys of student and export only")
    limit = {} if max_logit_difference is None else {"max_logit_difference": max_logit_difference}
    data = {"student": {"model": student}, "export": {"quantize": quantize, **limit}}
    config = make_config(data, overrides, source="command line")
    with progress_shown(quiet) as progress:
        export_folder(out, config, progress)
    write(str(out))


@click.command()
@click.argument("run_folder", type=PATH)
def report(run_folder: Path) -> None:
    """Write a run's report: one self-contained HTML page."""
    from edgeelad.report import write_report

    if not (run_folder / "config.toml").exists():
        raise RunError(f"{run_folder}: no run folder (config.toml is missing); name the folder that `distill` wrote")
    write(str(write_report(run_folder)))
