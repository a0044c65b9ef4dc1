"""Read rows from text files: JSON lines, CSV and TSV, streamed.

Takes a path; yields rows one at a time, each with its place in the file for error messages. What the fields mean is
decided in `own` and `published`.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from edgeelad.errors import PoolError

MAX_LINE_BYTES = 1_000_000
MAX_TEXT = 1_000_000  # characters of one field: beyond any student's context
SNIFFED_BYTES = 64_000
BOM = "\ufeff"
# files that are no pools by their first bytes, and what to do with them
SIGNATURES = {
    b"\x1f\x8b": "a gzip archive; unpack it first",
    b"BZh": "a bzip2 archive; unpack it first",
    b"\xfd7zXZ": "an xz archive; unpack it first",
    b"\x28\xb5\x2f\xfd": "a zstandard archive; unpack it first",
    b"PK\x03\x04": "a zip archive or an Excel workbook; unpack it, or save the sheet as CSV",
    b"PAR1": "a parquet file; name its format with --format parquet",
    b"ARROW1": "an Arrow file; name the dataset's folder with --format hf",
    b"SQLite format 3": "an SQLite database; export its rows as JSON lines",
    b"%PDF": "a PDF; export its questions as JSON lines",
    b"PuTTY-User-Key-File": "a private key; name a file of questions",
    b"\xff\xfe": "UTF-16, not UTF-8; save the file as UTF-8",
    b"\xfe\xff": "UTF-16, not UTF-8; save the file as UTF-8",
}
PEM_LINE = re.compile(rb"^-----BEGIN [A-Z0-9 ]+-----\s*$", re.MULTILINE)
# CSV cells in which pandas, JSON and Python write NaN and infinity
CSV_NAN = frozenset({"NaN", "nan"})
CSV_INFINITIES = {"inf": math.inf, "Infinity": math.inf, "-inf": -math.inf, "-Infinity": -math.inf}
MMLU_COLUMNS = ("question", "A", "B", "C", "D", "answer")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a pool file.

    Attributes:
        where: Its place, for messages: "pool.jsonl:12".
        fields: Its values by name.
        classes: Names of the classes that a field's whole numbers stood for, if the file says.
        used: Names of the fields that were read.
        is_typed: Whether the file tells numbers from text; CSV, TSV and XML do not.
    """

    where: str
    fields: Mapping[str, Any]
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    is_typed: bool = True

    def fail(self, field: str, problem: str, remedy: str) -> NoReturn:
        """Raise a PoolError that names file, line, field and remedy."""
        raise PoolError(f"{self.where}: field {field!r}: {problem}; {remedy}")

    def name_of(self, name: str) -> str | None:
        """The row's own spelling of a field's name (`Question` for `question`); None if there is no such field."""
        if name in self.fields:
            return name
        return next((key for key in self.fields if key.casefold() == name.casefold()), None)

    def has(self, name: str) -> bool:
        """Whether there is such a field, whatever its value."""
        return self._find(name)[0]

    def get(self, name: str) -> Any:
        """A field's value; None if it is missing, null or NaN (how pandas writes a missing value).

        A dotted name reaches into objects: `answers.text`.

        Raises:
            PoolError: The value is infinite.
        """
        _, value = self._find(name)
        if isinstance(value, float) and math.isnan(value):
            return None
        if isinstance(value, float) and math.isinf(value):
            self.fail(name, "an infinite number", "write a finite one, or null if it is unknown")
        return value

    def _find(self, name: str) -> tuple[bool, Any]:
        own = self.name_of(name)
        if own is not None:
            self.used.add(own)
            return True, self.fields[own]
        head, dot, rest = name.partition(".")
        own = self.name_of(head) if dot else None
        if own is None:
            return False, None
        self.used.add(own)
        value = self.fields[own]
        for part in rest.split("."):
            if not isinstance(value, dict) or part not in value:
                return False, None
            value = value[part]
        return True, value


def read_json_lines(path: Path) -> Iterator[Row]:
    """One JSON object per line; empty lines are skipped."""
    for number, line in text_lines(path):
        if line.strip():
            value = parse_json(path, number, line.removeprefix(BOM).rstrip())
            yield object_row(f"{path}:{number}", value, "write one object per line")


def read_csv(path: Path) -> Iterator[Row]:
    """Comma-separated values with a header line, or MMLU's six columns without one."""
    return _separated(path, ",")


def read_tsv(path: Path) -> Iterator[Row]:
    """Tab-separated values with a header line."""
    return _separated(path, "\t")


def object_row(where: str, value: Any, remedy: str) -> Row:
    """The row of a JSON value.

    Raises:
        PoolError: The value is not an object.
    """
    if not isinstance(value, dict):
        raise PoolError(f"{where}: expected a JSON object, found {type_name(value)}; {remedy}")
    return Row(where, value)


def open_text(path: Path) -> None:
    """Check that a path is a readable file that can hold text.

    Raises:
        PoolError: It is not: a folder, a missing file, an archive, a private key, ….
    """
    require_file(path)
    with path.open("rb") as file:
        head = file.read(SNIFFED_BYTES)
    for signature, what in SIGNATURES.items():
        if head.startswith(signature):
            raise PoolError(f"{path}: {what}")
    if PEM_LINE.search(head):
        raise PoolError(f"{path}: holds a key or a certificate (PEM); name a file of questions")


def open_bytes(path: Path) -> BinaryIO:
    """Open a file that may be on an object store; fsspec's own files cannot bound the length of a line."""
    file = path.open("rb")
    return file if isinstance(file, io.BufferedReader) else io.BufferedReader(file)


def require_file(path: Path) -> None:
    """Check that a path is a readable file.

    Raises:
        PoolError: It is not.
    """
    try:
        if not path.exists():
            raise PoolError(f"{path}: no such file; check the path")
        if not path.is_file():
            raise PoolError(f"{path}: not a file; name a file, or a dataset folder with --format hf")
        path.open("rb").close()
    except OSError as error:
        raise PoolError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines of a UTF-8 file, with their line ends; only a line feed ends a line."""
    open_text(path)
    with open_bytes(path) as file:
        number = 0
        while raw := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(raw) > MAX_LINE_BYTES:
                raise PoolError(
                    f"{path}:{number}: a line of over {MAX_LINE_BYTES // 1_000_000} MB; "
                    "write one question per line, or name the right --format"
                )
            yield number, decode(path, number, raw)


def decode(path: Path, number: int, raw: bytes) -> str:
    """Decode UTF-8 that starts at a line's beginning; a byte order mark at the file's beginning is dropped.

    Raises:
        PoolError: It is not UTF-8, or holds a NUL byte.
    """
    if number == 1:
        raw = raw.removeprefix(BOM.encode())
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = number + raw.count(b"\n", 0, error.start)
        raise PoolError(f"{path}:{line}: not UTF-8 (byte 0x{raw[error.start]:02x}); save the file as UTF-8") from None
    if "\0" in text:
        line = number + text.count("\n", 0, text.index("\0"))
        raise PoolError(f"{path}:{line}: a NUL byte: the file is binary or damaged; write it again as UTF-8 text")
    return text


def parse_json(path: Path, first_line: int, text: str) -> Any:
    """Parse JSON that starts in a given line.

    Raises:
        PoolError: It is not JSON, or repeats a key in one object.
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        where = f"{path}:{first_line + error.lineno - 1}"
        raise PoolError(f"{where}: not JSON ({error.msg} at column {error.colno}); correct the line") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; brackets a thousand deep
        raise PoolError(
            f"{path}:{first_line}: JSON that cannot be used ({one_line(error)}); correct the line"
        ) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {repeated!r} occurs twice in one object")
    return fields


def _separated(path: Path, delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(max(csv.field_size_limit(), MAX_TEXT))  # of the process: 131,072 unless someone raised it
    reader = csv.reader((line for _, line in text_lines(path)), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        try:
            values = next(reader, None)
        except csv.Error as error:
            if "field limit" in str(error):
                raise PoolError(
                    f"{path}:{reader.line_num}: a field of over {MAX_TEXT:,} characters; shorten it, or close the "
                    "quotes that it begins with"
                ) from None
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
            if not _is_question_of_mmlu(header):
                if len(set(header)) < len(header):
                    raise PoolError(f"{path}:{reader.line_num}: a column name occurs twice in the header; rename one")
                continue
            header = list(MMLU_COLUMNS)
        if len(values) != len(header):
            raise PoolError(
                f"{path}:{reader.line_num}: {len(values)} fields where the header has {len(header)}; quote fields that "
                "hold separators"
            )
        yield Row(f"{path}:{reader.line_num}", dict(zip(header, map(_cell, values), strict=True)), is_typed=False)


def _is_question_of_mmlu(first: list[str]) -> bool:
    """Whether a first line is no header but one of MMLU's rows, published without one."""
    is_named = any(name.casefold() in ("id", "question", "input", "answer", "target") for name in first)
    return len(first) == len(MMLU_COLUMNS) and first[-1] in MMLU_COLUMNS[1:5] and not is_named


def _cell(text: str) -> str | float | None:
    return None if text in CSV_NAN else CSV_INFINITIES.get(text, text)


def type_name(value: Any) -> str:
    """The type of a JSON value, in words."""
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return "null" if value is None else names.get(type(value), type(value).__name__)


def one_line(error: BaseException) -> str:
    """An error's message on one line, shortened."""
    return " ".join(str(error).split())[:200] or type(error).__name__
