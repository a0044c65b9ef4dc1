"""Read rows from parquet files and Hugging Face datasets, streamed.

Whole numbers that stand for named classes (`ClassLabel`) become the names: 2 becomes "contradiction". A number of 16 or
32 bits becomes the one that it is written as: 0.1 in a float32 column is 0.1, not 0.10000000149011612.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgeelad.errors import MissingExtraError, PoolError
from edgeelad.pool.rows import Row, one_line, require_file

PARQUET_BATCH = 1024
BUFFER_BYTES = 1 << 20  # per column, so that memory does not grow with the row groups
Classes = Mapping[str, tuple[str, ...]]
Convert = Callable[[Any], Any]


def read_parquet(path: Path) -> Iterator[Row]:
    """A parquet file, with one batch of rows in memory at a time."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError("pyarrow", "data", f"reading {path}") from None
    require_file(path)
    number = 0
    try:
        with path.open("rb") as stream, pyarrow.parquet.ParquetFile(stream, buffer_size=BUFFER_BYTES) as file:
            classes = _classes_of_schema(file.schema_arrow.metadata or {})
            numbers = _number_columns(file.schema_arrow)
            for batch in file.iter_batches(batch_size=PARQUET_BATCH):
                for fields in _values_of(path, batch, number):
                    number += 1
                    yield _named(f"{path}: row {number}", _with_numbers(fields, numbers), classes)
    except (pyarrow.ArrowException, OSError) as error:
        raise PoolError(f"{path}: not a readable parquet file ({one_line(error)}); write it again") from error


def _values_of(path: Path, batch: Any, num_before: int) -> list[dict[str, Any]]:
    """The rows of a batch, by field; text in a parquet file is not checked for UTF-8 until it is decoded.

    Raises:
        PoolError: A text is not UTF-8.
    """
    try:
        return list(batch.to_pylist())
    except UnicodeDecodeError:
        name, number = next(_undecodable(batch))
        raise PoolError(
            f"{path}: row {num_before + number}: field {name!r}: not UTF-8; write the file again with UTF-8 text"
        ) from None


def _undecodable(batch: Any) -> Iterator[tuple[str, int]]:
    """Fields and rows, counted from 1, whose text is not UTF-8."""
    for number in range(len(batch)):
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            try:
                column[number].as_py()
            except UnicodeDecodeError:
                yield name, number + 1


def read_dataset(name: str, split: str) -> Iterator[Row]:
    """A Hugging Face dataset: a folder that `save_to_disk` wrote, a folder of data files, or a name.

    A name is `owner/name` or `owner/name:config`. Streams; downloads only what a name asks for.
    """
    try:
        import datasets
    except ImportError:
        raise MissingExtraError("datasets", "data", f"reading the dataset {name}") from None
    try:
        dataset = _load_dataset(datasets, name, split)
        features = getattr(dataset, "features", None) or {}
        classes = {key: tuple(feature.names) for key, feature in features.items() if hasattr(feature, "names")}
        numbers = _number_columns(features.arrow_schema) if hasattr(features, "arrow_schema") else {}
        rows, number = iter(dataset), 0
        while (fields := next(rows, None)) is not None:
            number += 1
            yield _named(f"{name} [{split}] row {number}", _with_numbers(dict(fields), numbers), classes)
    except PoolError:
        raise
    except Exception as error:  # datasets raises whatever its readers, its hub client and its scripts raise
        raise PoolError(
            f"{name}: the dataset cannot be read ({one_line(error)}); check the name, the split {split!r} "
            "(--split) and the network, or save it as a file first"
        ) from error


def _load_dataset(datasets: Any, name: str, split: str) -> Any:
    path = Path(name)
    if (path / "state.json").exists() or (path / "dataset_dict.json").exists():
        saved = datasets.load_from_disk(str(path))
        if not isinstance(saved, dict):
            return saved
        if split not in saved:
            raise PoolError(f"{name}: no split {split!r}; it has {', '.join(saved)}: name one with --split")
        return saved[split]
    dataset, _, config = (name, "", "") if path.exists() else name.partition(":")
    return datasets.load_dataset(dataset, config or None, split=split, streaming=True)


def _classes_of_schema(metadata: Mapping[bytes, bytes]) -> Classes:
    """The names of classes that `datasets` writes into a parquet file's schema."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return {
            key: tuple(map(str, feature["names"]))
            for key, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}  # written by another program


def _number_columns(schema: Any) -> dict[str, Convert]:
    """How to read the columns that hold short floats or decimals, by name; the other columns are left out."""
    converts = {field.name: _number_convert(field.type) for field in schema}
    return {name: convert for name, convert in converts.items() if convert is not None}


def _number_convert(type_: Any) -> Convert | None:
    """How to read the short floats and decimals in a value of an Arrow type; None if it holds none."""
    from pyarrow import types

    if types.is_float16(type_) or types.is_float32(type_):
        return partial(_shortest, np.float16 if types.is_float16(type_) else np.float32)
    if types.is_decimal(type_):
        return _plain_decimal
    if types.is_dictionary(type_):
        return _number_convert(type_.value_type)
    if types.is_list(type_) or types.is_large_list(type_) or types.is_fixed_size_list(type_):
        inner = _number_convert(type_.value_type)
        return None if inner is None else lambda values: [None if item is None else inner(item) for item in values]
    if types.is_struct(type_) and (columns := _number_columns(type_)):
        return lambda fields: _with_numbers(fields, columns)
    return None


def _shortest(float_type: Callable[[Any], Any], value: Any) -> float:
    """The number with the fewest digits that rounds to this short float."""
    return float(str(float_type(value)))


def _plain_decimal(value: Decimal) -> int | str:
    """A whole number, else the decimal's own digits, which a float could not hold."""
    return int(value) if value == value.to_integral_value() else format(value, "f")


def _with_numbers(fields: dict[str, Any], numbers: Mapping[str, Convert]) -> dict[str, Any]:
    for name, convert in numbers.items():
        if fields.get(name) is not None:
            fields[name] = convert(fields[name])
    return fields


def _named(where: str, fields: dict[str, Any], classes: Classes) -> Row:
    for key, names in classes.items():
        value = fields.get(key)
        if isinstance(value, int) and not isinstance(value, bool):
            fields[key] = names[value] if 0 <= value < len(names) else None  # -1: unlabeled
    return Row(where, fields, classes)
