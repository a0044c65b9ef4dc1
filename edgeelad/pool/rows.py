"""Read rows out of files: JSON lines, JSON, CSV, TSV, parquet, and Hugging Face datasets.

Takes a path or a dataset's name, gives rows one at a time, each with the place that an error message names. Knows no
questions: what the fields mean is decided in `formats`. Everything streams but JSON documents, which are read whole.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from edgeelad.errors import MissingExtraError, PoolError

MAX_LINE_BYTES = 1_000_000
MAX_DOCUMENT_BYTES = 64_000_000
PARQUET_BATCH = 1024


@dataclass(frozen=True, slots=True)
class Row:
    """One row: where it stands, for messages ("pool.jsonl:12"), and its fields."""

    where: str
    fields: dict[str, Any]

    def fail(self, field: str, problem: str, remedy: str) -> NoReturn:
        """Raise a PoolError that names file, line, field and remedy."""
        raise PoolError(f"{self.where}: field {field!r}: {problem}; {remedy}")


def read_json_lines(path: Path) -> Iterator[Row]:
    """One JSON object a line; empty lines are passed over."""
    for number, line in _lines(path):
        if line.strip():
            yield _object(f"{path}:{number}", _parse(path, number, line.rstrip()), "write one object a line")


def read_json(path: Path) -> Iterator[Row]:
    """JSON lines, an array of objects, or an object with an array `examples`, whichever the file holds."""
    if _holds_lines(path):
        yield from read_json_lines(path)
        return
    text = _document(path)
    start = len(text) - len(text.lstrip())
    if text[start : start + 1] == "[":
        yield from _array(path, text, start + 1)
        return
    document = _object(str(path), _parse(path, 1, text), "write an array of objects, or one object a line")
    examples = document.fields.get("examples")
    if not isinstance(examples, list):
        raise PoolError(f"{path}: a JSON object without an array 'examples'; write an array of objects")
    shared = {key: value for key, value in document.fields.items() if key == "name"}
    for number, example in enumerate(examples, start=1):
        row = _object(f"{path}: example {number}", example, "every example must be an object")
        yield Row(row.where, {**shared, **row.fields})


def read_csv(path: Path) -> Iterator[Row]:
    """Comma-separated values with a header line."""
    return _separated(path, ",")


def read_tsv(path: Path) -> Iterator[Row]:
    """Tab-separated values with a header line."""
    return _separated(path, "\t")


def read_parquet(path: Path) -> Iterator[Row]:
    """A parquet file, a batch of rows in memory at a time."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError("pyarrow", "distill", f"reading {path}") from None
    _require_file(path)
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=PARQUET_BATCH):
                for fields in batch.to_pylist():
                    number += 1
                    yield Row(f"{path}: row {number}", fields)
    except (pyarrow.ArrowException, OSError) as error:
        raise PoolError(f"{path}: not a readable parquet file ({_one_line(error)}); write it again") from error


def read_dataset(name: str, split: str) -> Iterator[Row]:
    """A Hugging Face dataset: a folder that `save_to_disk` wrote, a folder of data files, or a name.

    A name is `owner/name` or `owner/name:config`. Streams; downloads only what a name asks for.
    """
    try:
        import datasets
    except ImportError:
        raise MissingExtraError("datasets", "distill", f"reading the dataset {name}") from None
    try:
        rows = iter(_load_dataset(datasets, name, split))
        number = 0
        while (fields := next(rows, None)) is not None:
            number += 1
            yield Row(f"{name} [{split}] row {number}", dict(fields))
    except PoolError:
        raise
    except Exception as error:  # datasets raises whatever its readers, its hub client and its scripts raise
        raise PoolError(
            f"{name}: the dataset cannot be read ({_one_line(error)}); check the name, the split {split!r} "
            "(pool.split) and the network, or save it as a file first"
        ) from error


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "jsonl": read_json_lines,
    "json": read_json,
    "csv": read_csv,
    "tsv": read_tsv,
    "parquet": read_parquet,
}
ENDINGS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet"}


def _load_dataset(datasets: Any, name: str, split: str) -> Any:
    path = Path(name)
    if (path / "state.json").exists() or (path / "dataset_dict.json").exists():
        saved = datasets.load_from_disk(str(path))
        if not isinstance(saved, dict):
            return saved
        if split not in saved:
            raise PoolError(f"{name}: no split {split!r}; it has {', '.join(saved)}: name one with pool.split")
        return saved[split]
    dataset, _, config = (name, "", "") if path.exists() else name.partition(":")
    return datasets.load_dataset(dataset, config or None, split=split, streaming=True)


def _require_file(path: Path) -> None:
    try:
        if not path.exists():
            raise PoolError(f"{path}: no such file; check the path")
        if not path.is_file():
            raise PoolError(f"{path}: not a file; name a file, or a dataset folder with --format hf")
        path.open("rb").close()
    except OSError as error:
        raise PoolError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines of a UTF-8 file, with their ends; a byte order mark is dropped."""
    _require_file(path)
    with path.open("rb") as file:
        number = 0
        while raw := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(raw) > MAX_LINE_BYTES:
                raise PoolError(
                    f"{path}:{number}: a line of over {MAX_LINE_BYTES // 1_000_000} MB; "
                    "write one question a line, or name the right --format"
                )
            yield number, _decode(path, number, raw)


def _decode(path: Path, number: int, raw: bytes) -> str:
    if number == 1:
        if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise PoolError(f"{path}:1: UTF-16, not UTF-8; save the file as UTF-8")
        raw = raw.removeprefix(b"\xef\xbb\xbf")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = number + raw.count(b"\n", 0, error.start)
        raise PoolError(f"{path}:{line}: not UTF-8 (byte 0x{raw[error.start]:02x}); save the file as UTF-8") from None
    if "\0" in text:
        line = number + text.count("\n", 0, text.index("\0"))
        raise PoolError(f"{path}:{line}: a NUL byte: the file is torn, or no text; write it again as UTF-8")
    return text


def _parse(path: Path, first_line: int, text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        where = f"{path}:{first_line + error.lineno - 1}"
        raise PoolError(f"{where}: not JSON ({error.msg} at column {error.colno}); correct the line") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; brackets a thousand deep
        raise PoolError(
            f"{path}:{first_line}: JSON that cannot be used ({_one_line(error)}); correct the line"
        ) from None


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON; write null for what is unknown")


def _object(where: str, value: Any, remedy: str) -> Row:
    if not isinstance(value, dict):
        raise PoolError(f"{where}: expected a JSON object, found {type_name(value)}; {remedy}")
    return Row(where, value)


def _holds_lines(path: Path) -> bool:
    """Whether the first line that is not empty is a JSON object by itself."""
    _require_file(path)
    with path.open("rb") as file:
        first = next((line for line in iter(lambda: file.readline(MAX_LINE_BYTES), b"") if line.strip()), b"")
    try:
        value = json.loads(first.removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and not isinstance(value.get("examples"), list)


def _document(path: Path) -> str:
    with path.open("rb") as file:
        raw = file.read(MAX_DOCUMENT_BYTES + 1)
    if len(raw) > MAX_DOCUMENT_BYTES:
        raise PoolError(
            f"{path}: a JSON document of over {MAX_DOCUMENT_BYTES // 1_000_000} MB, which cannot be streamed; "
            "write it as JSON lines"
        )
    return _decode(path, 1, raw)


def _array(path: Path, text: str, position: int) -> Iterator[Row]:
    """The elements of a JSON array whose bracket opened just before `position`, with their line numbers."""
    _parse(path, 1, text)  # the whole first, so that what follows cannot fail
    decoder, line, counted = json.JSONDecoder(), 1, 0
    while True:
        while text[position] in " \t\r\n,":
            position += 1
        if text[position] == "]":
            return
        line, counted = line + text.count("\n", counted, position), position
        value, position = decoder.raw_decode(text, position)
        yield _object(f"{path}:{line}", value, "every element must be an object")


def _separated(path: Path, delimiter: str) -> Iterator[Row]:
    reader = csv.reader((line for _, line in _lines(path)), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        try:
            values = next(reader, None)
        except csv.Error as error:
            raise PoolError(
                f"{path}:{reader.line_num}: not valid CSV ({error}); quote fields that hold quotes, separators or line "
                "ends, and double the quotes in them"
            ) from None
        if values is None:
            return
        if not values:
            continue  # an empty line
        if header is None:
            header = [name.strip() for name in values]
            if len(set(header)) < len(header):
                raise PoolError(f"{path}:{reader.line_num}: a column name occurs twice in the header; rename one")
            continue
        if len(values) != len(header):
            raise PoolError(
                f"{path}:{reader.line_num}: {len(values)} fields where the header has {len(header)}; quote fields that "
                "hold separators"
            )
        yield Row(f"{path}:{reader.line_num}", dict(zip(header, values, strict=True)))


def type_name(value: Any) -> str:
    """What a JSON value is, in words."""
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return "null" if value is None else names.get(type(value), type(value).__name__)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
