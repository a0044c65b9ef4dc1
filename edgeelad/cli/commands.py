"""The command line. Commands are thin: read flags, call one function, print what it gives.

Answers and produced paths go to stdout; progress, tables and warnings to stderr. Exit codes: 0 done; 1 an error of
ours, one line; 2 wrong usage or configuration; 3 stopped by a budget; 130 interrupted (everything kept in both).
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
from rich.console import Console

import edgeelad
from edgeelad.cli.score import evaluate, score
from edgeelad.cli.teacher import annotations_group, ledger_group, teacher_group
from edgeelad.errors import BudgetError, EdgeeladError, RunError

if TYPE_CHECKING:
    from edgeelad.config import RunConfig

PATH = click.Path(path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(edgeelad.__version__, prog_name="edgeelad")
def cli() -> None:
    """Distill an LLM's reasoning into a small ONNX student, asking the teacher only what the student is unsure of."""


for command in (score, evaluate, teacher_group, ledger_group, annotations_group):
    cli.add_command(command)


def main() -> None:
    """Run the command line; every error of ours is one line on stderr and an exit code."""
    with contextlib.suppress(AttributeError, ValueError):  # a pipe or a test's stream may refuse
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    # torch's OpenMP threads spin while they wait for one another: where another program wants a core, a training step
    # then takes ten times as long (measured: 1010 ms against 320). Read when torch is loaded, so it is said here.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        code = cli.main(standalone_mode=False)
    except EdgeeladError as error:
        fail(str(error), error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        fail("interrupted; everything finished so far is kept", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at exit
        sys.exit(0)
    sys.exit(code if isinstance(code, int) else 0)


def fail(message: str, code: int) -> NoReturn:
    """One line on stderr, and the exit code."""
    one_line = " ".join(message.split())
    print(f"edgeelad: {one_line}", file=sys.stderr)
    sys.exit(code)


@contextlib.contextmanager
def progress_shown(quiet: bool) -> Iterator[Any]:
    """A progress that shows on stderr, or nothing."""
    if quiet:
        from edgeelad.progress import Silent

        yield Silent()
        return
    from edgeelad.cli.show import TerminalProgress

    shown = TerminalProgress(Console(stderr=True))
    try:
        yield shown
    finally:
        shown.close()


@cli.command()
@click.argument("target", required=False, type=PATH)
@click.option("--pool", help="Questions: jsonl, csv, parquet, or a Hugging Face dataset.")
@click.option("--format", "format_", help="Format of the pool, for example gsm8k; default: by file ending.")
@click.option(
    "--kind",
    "answer_kind",
    type=click.Choice(["auto", "number", "choice", "boolean", "text"]),
    help="What the answers are; needed where the pool has none to tell it by.",
)
@click.option("--student", help="Folder or Hugging Face id of the model to teach.")
@click.option("--teacher", "kind", type=click.Choice(["openai", "dataset"]), help="Who teaches; default: openai.")
@click.option("--teacher-url", help="Base URL of an OpenAI-compatible API, for example http://127.0.0.1:8000/v1.")
@click.option("--teacher-model", help="Name of the teacher model.")
@click.option("--budget-usd", type=float, help="Most dollars to spend; needs the prices under [teacher].")
@click.option("--rounds", type=int, help="Most rounds.")
@click.option("--batch", type=int, help="Questions a round.")
@click.option("--seed", type=int, help="Seed of everything random.")
@click.option("--out", type=PATH, help="Run folder; default: runs/NAME-OF-POOL.")
@click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Set any configuration key.")
@click.option("--ledger", type=PATH, help="Teacher ledger, may be shared between runs; default: in the run folder.")
@click.option("--replay", type=PATH, help="Answer from this ledger alone; nothing is sent to the teacher.")
@click.option("--fresh-export", "fresh", is_flag=True, default=None, help="Export each round anew, to the same files.")
@click.option("--dry-run", is_flag=True, help="What the first round would send and cost; nothing is sent.")
@click.option("--resume", is_flag=True, help="Go on with the run folder TARGET.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON on stdout.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
def distill(
    target: Path | None,
    out: Path | None,
    overrides: tuple[str, ...],
    resume: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    **flags: Any,
) -> int:
    """Teach a student, from pool to package.

    TARGET is a configuration (TOML), or with --resume a run folder. Without any arguments the embedded quickstart runs:
    word problems, a small student, and a teacher served on loopback; a real run in minutes.
    """
    from edgeelad.cli import launch
    from edgeelad.files import dump_json

    with progress_shown(quiet) as progress:
        plan = launch.plan(target, out, flags, overrides, resume=resume)
        if dry_run:
            estimate = launch.dry_run(plan, progress)
            click.echo(dump_json(estimate.figures()) if as_json else estimate.text())
            return 0
        try:
            with launch.environment(plan, progress) as config:
                summary = _run(config, progress)
                if plan.is_quickstart and not quiet:
                    launch.show_quickstart(plan.folder, progress)
        except KeyboardInterrupt:
            fail(f"interrupted; everything finished so far is kept; go on with: {plan.resume_command}", 130)
        except BudgetError as error:
            fail(f"{error}; everything is kept; go on with: {plan.resume_command}", error.exit_code)
        if not quiet:
            launch.show_result(plan, summary, Console(stderr=True))
    click.echo(dump_json(summary, indent=2) if as_json else str(plan.folder / "package"))
    return BudgetError.exit_code if summary["stopped_because"] == "budget" else 0


def _run(config: RunConfig, progress: Any) -> dict[str, Any]:
    from edgeelad.loop import distill as run_distillation

    return run_distillation(config, progress)


@cli.command()
@click.option("--student", required=True, help="Folder or Hugging Face id of a torch student.")
@click.option("--out", required=True, type=PATH, help="Where the ONNX student goes.")
@click.option("--quantize", default="int8", show_default=True, type=click.Choice(["int8", "int4", "none"]))
@click.option("--quiet", is_flag=True, help="Show no progress.")
def export(student: str, out: Path, quantize: str, quiet: bool) -> None:
    """Export a torch student to ONNX, check it against torch, and quantize it."""
    from edgeelad.cli.launch import export_folder

    with progress_shown(quiet) as progress:
        export_folder(student, out, quantize, progress)
    click.echo(str(out))


@cli.command()
@click.argument("package", type=PATH)
@click.argument("question")
@click.option("--max-tokens", type=click.IntRange(min=1), help="Tokens an explanation at most.")
@click.option("--json", "as_json", is_flag=True, help="Print steps and answer as JSON.")
def run(package: Path, question: str, max_tokens: int | None, as_json: bool) -> None:
    """Ask a packaged student one question: streams the explanation, then the answer."""
    from edgeelad.edge.run import run_question

    run_question(
        package, question, max_tokens=max_tokens, as_json=as_json, write=lambda text: click.echo(text, nl=False)
    )


@cli.command()
@click.argument("package", type=PATH)
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535))
@click.option("--threads", type=click.IntRange(min=1), help="Threads of the ONNX session; default: one per core.")
@click.option("--allow-host", "allowed_hosts", multiple=True, metavar="NAME", help="Host or Origin name to accept.")
def serve(package: Path, host: str, port: int, threads: int | None, allowed_hosts: tuple[str, ...]) -> None:
    """Serve a package over HTTP in OpenAI's form; on loopback unless --host says otherwise."""
    from edgeelad.edge.serve import serve_package

    serve_package(package, host, port, num_threads=threads, allowed_hosts=allowed_hosts)


@cli.command()
@click.argument("package", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def verify(package: Path, as_json: bool) -> int:
    """Check a package on this device: checksums, operators, golden outputs, speed and memory."""
    from edgeelad.files import dump_json
    from edgeelad.package import verify_package

    report = verify_package(package)
    click.echo(dump_json(report.to_json()) if as_json else report.text())
    return 0 if report.is_ok else 1


@cli.command()
@click.argument("run_folder", type=PATH)
def report(run_folder: Path) -> None:
    """Write the run's report, one self-contained HTML page."""
    from edgeelad.report import write_report

    if not (run_folder / "config.toml").exists():
        raise RunError(f"{run_folder}: no run folder (config.toml is missing); name the folder that `distill` wrote")
    click.echo(str(write_report(run_folder)))
