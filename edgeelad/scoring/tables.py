"""Write scores as a parquet file, from rows that stay a file of JSON lines until all are there. Needs pyarrow.

The columns are those of `run.scores.ScoreRow`; a trace is a struct.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from edgeelad.errors import MissingExtraError, RunError, UsageError
from edgeelad.files import atomic_file, read_jsonl, storage_errors
from edgeelad.uncertainty.traces import StepTrace

GROUP_ROWS = 4096  # rows in memory at a time
SUFFIX = ".parquet"


def is_table(out: Path) -> bool:
    """Whether scores are to be written as parquet."""
    return out.suffix.lower() == SUFFIX


def rows_path(out: Path) -> Path:
    """The file of JSON lines in which scores gather: `out` itself, but beside it if that is a parquet file."""
    return out.with_name(out.name + ".jsonl") if is_table(out) else out


def require_pyarrow(out: Path) -> None:
    """Check that parquet can be written.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise MissingExtraError("pyarrow", "data", f"writing {out}") from None


def write_table(paths: Sequence[Path], out: Path) -> None:
    """Write the rows of files of scores, JSON lines or parquet, to a parquet file, which appears whole or not at all.

    Raises:
        RunError: A row is damaged.
        StorageError: `out` cannot be written.
    """
    import pyarrow
    import pyarrow.parquet

    schema = _schema()
    with (
        storage_errors(out),
        atomic_file(out) as file,
        pyarrow.parquet.ParquetWriter(file, schema, compression="zstd") as writer,
    ):
        for path in paths:
            for batch in _batches(path, schema):
                writer.write_batch(batch)


def count_table(path: Path) -> int:
    """Number of rows of a parquet file.

    Raises:
        UsageError: It is none.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        return int(pyarrow.parquet.read_metadata(path).num_rows)
    except (pyarrow.ArrowException, OSError) as error:
        raise UsageError(f"{path}: not a readable parquet file ({error}); name another file") from error


def table_ids(path: Path) -> Iterator[str]:
    """The ids in a parquet file of scores, in order.

    Raises:
        UsageError: It is none.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=GROUP_ROWS, columns=["id"]):
                yield from batch.column("id").to_pylist()
    except (pyarrow.ArrowException, KeyError, OSError) as error:
        raise UsageError(f"{path}: not a readable parquet file ({error}); name another file") from error


def _batches(path: Path, schema: Any) -> Iterator[Any]:
    import pyarrow
    import pyarrow.parquet

    try:
        if is_table(path):
            with pyarrow.parquet.ParquetFile(path) as file:
                yield from file.iter_batches(batch_size=GROUP_ROWS)
            return
        rows = map(_with_named_traces, read_jsonl(path))
        while group := list(islice(rows, GROUP_ROWS)):
            yield pyarrow.RecordBatch.from_pylist(group, schema=schema)
    except (pyarrow.ArrowException, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path}: damaged ({error}); move the file away to score the pool again") from error


def _with_named_traces(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"traces": [dict(zip(StepTrace._fields, trace, strict=True)) for trace in row["traces"]]}


def _schema() -> Any:
    import pyarrow as pa

    fields = StepTrace._fields
    trace = pa.struct([(name, pa.int64() if name.startswith("num_") else pa.float64()) for name in fields])
    return pa.schema(
        [
            ("id", pa.string()),
            ("strategy", pa.string()),
            ("score", pa.float64()),
            ("explanation", pa.string()),
            ("steps", pa.list_(pa.string())),
            ("answer", pa.string()),
            ("branch_answers", pa.list_(pa.list_(pa.string()))),
            ("step_scores", pa.list_(pa.float64())),
            ("mean_logprob", pa.float64()),
            ("mean_entropy", pa.float64()),
            ("num_tokens", pa.int64()),
            ("risk", pa.float64()),
            ("traces", pa.list_(trace)),
        ]
    )
