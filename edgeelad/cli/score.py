"""Commands that put a student to work on many questions: score a pool, and measure how often it is right."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeelad.errors import UsageError

if TYPE_CHECKING:
    from edgeelad.scoring.score import Workers

PATH = click.Path(path_type=Path)
FORMAT = click.option("--format", "format_", default="auto", show_default=True, help="Format of the questions.")
KIND = click.option(
    "--kind",
    type=click.Choice(["auto", "number", "choice", "boolean", "text"]),
    default="auto",
    show_default=True,
    help="What the answers are; needed where there are none to tell it by.",
)
WORKERS = click.option("--workers", type=click.IntRange(min=1), help="Worker processes; default: one a core.")
THREADS = click.option(
    "--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads of each worker."
)
KV_MEMORY = click.option(
    "--kv-memory",
    metavar="SIZE",
    help="Most memory for keys and values in each worker, such as 512MB; default: what runs fastest.",
)
MAX_TOKENS = click.option(
    "--max-tokens", default=256, show_default=True, type=click.IntRange(min=1), help="Tokens an explanation at most."
)
PRECISION = click.option(
    "--precision", type=click.Choice(["fp32", "int8"]), help="Which graph; default: the one that is there."
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON on stdout.")
QUIET = click.option("--quiet", is_flag=True, help="Show no progress.")


@click.command()
@click.argument("shards", nargs=-1, type=PATH)
@click.option("--model", type=PATH, help="Package or exported ONNX folder.")
@click.option("--pool", help="Questions to score.")
@click.option("--out", required=True, type=PATH, help="Where the scores go (jsonl); goes on where it ends.")
@click.option("--strategy", default="elad", show_default=True, help="Which uncertainty is the score.")
@FORMAT
@KIND
@WORKERS
@THREADS
@KV_MEMORY
@click.option("--branches", default=3, show_default=True, type=click.IntRange(2, 64), help="Branches a step prefix.")
@click.option(
    "--explanations", default=3, show_default=True, type=click.IntRange(2, 256), help="Branches of the bare question."
)
@MAX_TOKENS
@PRECISION
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
@click.option("--shard", metavar="I/N", help="Score only this part of the pool, for example 2/8.")
@click.option("--merge", is_flag=True, help="Put the scores of all shards, named as SHARDS, into one file.")
@JSON
@QUIET
def score(
    shards: tuple[Path, ...],
    model: Path | None,
    pool: str | None,
    out: Path,
    merge: bool,
    as_json: bool,
    quiet: bool,
    **flags: Any,
) -> None:
    """Score a pool: the student explains every question, and its uncertainty in the steps is the score.

    A run that was stopped or killed goes on when the same command is given again. On several machines, each scores a
    shard of the pool; `edgeelad score --merge SHARDS… --out FILE` makes of them the file that one would have written.
    """
    from edgeelad.files import dump_json

    if merge:
        summary = _merge(shards, out, model, pool)
    elif shards:
        raise UsageError(f"{shards[0]}: name the questions with --pool; files of scores are named with --merge")
    else:
        summary = _score(_required("--model", model), _required("--pool", pool), out, quiet, **flags)
    click.echo(dump_json(summary) if as_json else str(out))


def _score(model: Path, pool: str, out: Path, quiet: bool, *, shard: str | None, **flags: Any) -> dict[str, Any]:
    from edgeelad.cli.commands import fail, progress_shown
    from edgeelad.scoring.score import score_pool
    from edgeelad.scoring.shards import Shard

    workers, part = _workers(flags), Shard.parse(shard) if shard is not None else None
    try:
        with progress_shown(quiet) as progress:
            return score_pool(model, pool, out, progress, workers=workers, shard=part, **flags)
    except KeyboardInterrupt:
        again = shlex.join(["edgeelad", *sys.argv[1:]])
        fail(f"interrupted; everything scored so far is kept; go on with: {again}", 130)


def _merge(shards: tuple[Path, ...], out: Path, model: Path | None, pool: str | None) -> dict[str, Any]:
    from edgeelad.scoring.shards import merge_shards

    if model is not None or pool is not None or not shards:
        raise UsageError("--merge takes the files of all shards and --out, nothing else")
    return dict(merge_shards(shards, out))


@click.command("eval")
@click.option("--model", required=True, type=PATH, help="Package or exported ONNX folder.")
@click.option("--data", required=True, help="Labeled questions.")
@FORMAT
@KIND
@click.option("--limit", type=click.IntRange(min=1), help="Only the first N questions.")
@WORKERS
@THREADS
@KV_MEMORY
@MAX_TOKENS
@PRECISION
@JSON
@QUIET
def evaluate(model: Path, data: str, as_json: bool, quiet: bool, **flags: Any) -> None:
    """Accuracy of a student on labeled questions, strict and lenient, with its exact 95 % interval."""
    from edgeelad.cli.commands import progress_shown
    from edgeelad.files import dump_json
    from edgeelad.scoring.score import evaluate_model

    workers = _workers(flags)
    with progress_shown(quiet) as progress:
        figures = evaluate_model(model, data, progress, workers=workers, **flags)
    if as_json:
        click.echo(dump_json(figures))
    else:
        click.echo(
            f"accuracy {figures['accuracy']:.3f} (95 % {figures['low']:.3f} to {figures['high']:.3f}), "
            f"strict {figures['accuracy_strict']:.3f}, unanswered {figures['num_unanswered']}, "
            f"{figures['num_questions']} questions"
        )


def _workers(flags: dict[str, Any]) -> Workers:
    """Take out of the flags what says how the work is spread."""
    from edgeelad.cli.sizes import parse_size
    from edgeelad.scoring.score import Workers

    kv_memory = flags.pop("kv_memory")
    kv_bytes = parse_size(kv_memory, "--kv-memory") if kv_memory is not None else None
    return Workers.choose(flags.pop("workers"), flags.pop("threads"), kv_bytes)


def _required(option: str, value: Any) -> Any:
    if value is None:
        raise UsageError(f"{option} is missing; see `edgeelad score --help`")
    return value
