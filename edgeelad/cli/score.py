"""`edgeelad score` and `eval`: put a student to work on many questions."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgeelad.cli.shared import JSON, PATH, QUIET, SEED, PoolOptions, fail, progress_shown, reads_pool, takes
from edgeelad.cli.terminal import write, write_json
from edgeelad.errors import UsageError

if TYPE_CHECKING:
    from edgeelad.engine.graph_files import Precision
    from edgeelad.engine.options import EngineOptions

Value = TypeVar("Value")

WORKERS = click.option("--workers", type=click.IntRange(min=1), help="Worker processes; default: one per core.")
THREADS = click.option(
    "--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads per worker."
)
KV_MEMORY = click.option(
    "--kv-memory", metavar="SIZE", help="Maximum KV cache per worker, such as 512MB; default: what runs fastest."
)
MAX_TOKENS = click.option(
    "--max-tokens", type=click.IntRange(min=1), help="Maximum tokens per explanation; default: the package's, else 256."
)
PRECISION = click.option(
    "--precision", type=click.Choice(["fp32", "int8", "int4"]), help="Graph to run; default: fp32 if there is one."
)
ENGINE = click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Worker processes on this machine, or actors on a Ray cluster.",
)
ADDRESS = click.option(
    "--address", help="Address of the Ray cluster; default: RAY_ADDRESS, else a new one on this machine."
)


@dataclass(frozen=True, slots=True)
class ScoreOptions:
    """What `edgeelad score` was given; None: not given."""

    shards: tuple[Path, ...]
    model: Path | None
    pool: str | None
    out: Path
    strategy: str
    reading: PoolOptions
    workers: int | None
    threads: int
    kv_memory: str | None
    branches: int
    explanations: int
    max_tokens: int | None
    precision: Precision | None
    seed: int
    engine: str
    address: str | None
    shard: str | None
    risk_model: Path | None
    merge: bool
    as_json: bool
    quiet: bool


@dataclass(frozen=True, slots=True)
class EvalOptions:
    """What `edgeelad eval` was given; None: not given."""

    model: Path
    data: str
    reading: PoolOptions
    limit: int | None
    workers: int | None
    threads: int
    kv_memory: str | None
    max_tokens: int | None
    precision: Precision | None
    as_json: bool
    quiet: bool


@click.command()
@click.argument("shards", nargs=-1, type=PATH)
@click.option("--model", type=PATH, help="Package or exported ONNX folder.")
@click.option("--pool", help="Questions to score: a file, or an address such as s3://bucket/pool/*.parquet.")
@click.option(
    "--out",
    required=True,
    type=PATH,
    help="Output file, JSON lines or .parquet; resumes an interrupted file.",
)
@click.option("--strategy", default="risk", show_default=True, help="Uncertainty to compute.")
@reads_pool
@WORKERS
@THREADS
@KV_MEMORY
@click.option("--branches", default=3, show_default=True, type=click.IntRange(2, 64), help="Branches per step prefix.")
@click.option("--explanations", default=3, show_default=True, type=click.IntRange(2, 256), help="Sampled explanations.")
@MAX_TOKENS
@PRECISION
@SEED
@ENGINE
@ADDRESS
@click.option("--shard", metavar="I/N", help="Score only this part of the pool, such as 2/8.")
@click.option("--risk-model", type=PATH, help="Risk model of a run (rounds/NN/risk.json); default: that of round 1.")
@click.option("--merge", is_flag=True, help="Merge the score files SHARDS into one file.")
@JSON
@QUIET
@takes(ScoreOptions)
def score(options: ScoreOptions) -> None:
    """Score a pool: the student explains every question, and its uncertainty in the steps is the score.

    To resume a run that was stopped or killed, give the same command again. On several machines, each scores a shard
    of the pool; `edgeelad score --merge SHARDS… --out FILE` makes of them the file that one would have written. On a
    Ray cluster (--engine ray; pip install 'edgeelad[ray]'), one command scores on all of its cores.
    """
    if options.merge:
        summary = _merge(options)
    elif options.shards:
        raise UsageError(f"{options.shards[0]}: name the questions with --pool; files of scores are named with --merge")
    else:
        summary = _score(options)
    write_json(summary) if options.as_json else write(str(options.out))


def _score(options: ScoreOptions) -> dict[str, Any]:
    from edgeelad.scoring.score import score_pool
    from edgeelad.scoring.shards import Shard

    model, pool = _required("--model", options.model), _required("--pool", options.pool)
    if options.address is not None and options.engine != "ray":
        raise UsageError("--address names a Ray cluster; give --engine ray too")
    engine = _engine_options(options)
    try:
        with progress_shown(options.quiet) as progress:
            return score_pool(
                model,
                options.reading.config(pool),
                options.out,
                progress,
                strategy=options.strategy,
                options=engine,
                branches=options.branches,
                explanations=options.explanations,
                max_tokens=options.max_tokens,
                seed=options.seed,
                shard=Shard.parse(options.shard) if options.shard is not None else None,
                risk_model=options.risk_model,
            )
    except KeyboardInterrupt:
        again = shlex.join(["edgeelad", *sys.argv[1:]])
        fail(f"interrupted; everything scored so far is kept; resume with: {again}", 130)


def _merge(options: ScoreOptions) -> dict[str, Any]:
    from edgeelad.scoring.shards import merge_shards

    if options.model is not None or options.pool is not None or not options.shards:
        raise UsageError("--merge takes the files of all shards and --out, nothing else")
    return dict(merge_shards(options.shards, options.out))


@click.command("eval")
@click.option("--model", required=True, type=PATH, help="Package or exported ONNX folder.")
@click.option("--data", required=True, help="Labeled questions.")
@reads_pool
@click.option("--limit", type=click.IntRange(min=1), help="Use only the first N questions.")
@WORKERS
@THREADS
@KV_MEMORY
@MAX_TOKENS
@PRECISION
@JSON
@QUIET
@takes(EvalOptions)
def evaluate(options: EvalOptions) -> None:
    """Measure a student's accuracy on labeled questions, strict and lenient, with its exact 95 % interval."""
    from edgeelad.scoring.score import evaluate_model

    engine = _engine_options(options)
    with progress_shown(options.quiet) as progress:
        figures = evaluate_model(
            options.model,
            options.reading.config(options.data, options.limit),
            progress,
            options=engine,
            max_tokens=options.max_tokens,
        )
    if options.as_json:
        write_json(figures)
    else:
        write(
            f"accuracy {figures['accuracy']:.3f} (95 % {figures['low']:.3f} to {figures['high']:.3f}), "
            f"strict {figures['accuracy_strict']:.3f}, unanswered {figures['num_unanswered']}, "
            f"{figures['num_questions']} questions"
        )


def _engine_options(options: ScoreOptions | EvalOptions) -> EngineOptions:
    from edgeelad.cli.sizes import parse_size
    from edgeelad.engine.options import EngineOptions

    kv_bytes = parse_size(options.kv_memory, "--kv-memory") if options.kv_memory is not None else None
    if isinstance(options, ScoreOptions) and options.engine == "ray":
        from edgeelad.engine.ray_actors import cluster_options

        return cluster_options(
            options.address, options.workers, options.threads, precision=options.precision, kv_bytes=kv_bytes
        )
    return EngineOptions.for_machine(options.workers, options.threads, precision=options.precision, kv_bytes=kv_bytes)


def _required(option: str, value: Value | None) -> Value:
    if value is None:
        raise UsageError(f"{option} is missing; see `edgeelad score --help`")
    return value
