"""Read pools of questions: JSON lines, JSON, CSV, XML, parquet, Hugging Face datasets, public datasets as published.

Takes a path, an address on an object store, or a dataset's name; yields questions with canonical reference answers and
unique ids, one at a time, in constant memory. What cannot be used is a PoolError with file, line, field and remedy: no
row is skipped, and fields that are not read are named in a warning.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

from edgeelad.config import PoolConfig
from edgeelad.errors import PoolError
from edgeelad.pool.check import Ids, Kind, make_question
from edgeelad.pool.documents import read_json, read_xml
from edgeelad.pool.locations import find_files, is_address, read_files
from edgeelad.pool.own import USUAL, Draft, Fields, own, question_fields
from edgeelad.pool.published import PUBLISHED, recognize
from edgeelad.pool.rows import Row, read_csv, read_json_lines, read_tsv
from edgeelad.pool.tables import read_dataset, read_parquet
from edgeelad.records import AnswerKind, Example, Question

__all__ = ["FORMATS", "Fields", "load_pool", "open_pool", "read_examples", "read_pool"]

READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "jsonl": read_json_lines,
    "json": read_json,
    "csv": read_csv,
    "tsv": read_tsv,
    "parquet": read_parquet,
    "xml": read_xml,
}
EXTENSIONS = {f".{name}": name for name in READERS} | {".ndjson": "jsonl"}
FORMATS = ("auto", *READERS, "hf", *PUBLISHED)
"""Values of `format`: a file type or a public dataset; "auto" recognizes both by extension and first row."""

_DATASET_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+(?::[\w.-]+)?")
_log = logging.getLogger(__name__)


def read_pool(
    path: str | Path,
    format: str = "auto",
    *,
    fields: Fields = USUAL,
    kind: Kind = "auto",
    default_kind: AnswerKind | None = None,
    split: str = "train",
    limit: int | None = None,
    is_known: bool = False,
) -> Iterator[Question]:
    """Read a pool: the first row at once, the others as they are iterated over.

    A row has `question`, and if known `answer`, `choices`, `explanation` (lines, or a list of steps), `id`, `skill`;
    or it has the fields of a public dataset (`FORMATS`). With kind "auto", the kind follows from each answer: with
    choices "choice"; true, false, yes or no "boolean"; a number "number"; anything else, and no answer, "text".

    Args:
        path: A file, a pattern with `*`, a dataset folder, the name of a Hugging Face dataset (`owner/name` or
            `owner/name:config`), or an address that fsspec knows: of a file, a folder of files, or a pattern
            (`s3://bucket/pool/*.parquet`).
        format: One of `FORMATS`.
        fields: Names of the fields, if they are not the usual ones.
        kind: Kind of all answers.
        default_kind: Kind of questions whose own kind is not known, such as those without an answer.
        split: Split of a Hugging Face dataset.
        limit: Maximum number of questions.
        is_known: Whether this pool was read before, so that its warnings are not repeated.

    Raises:
        PoolError: The file or a row cannot be used, or there is no row.
        MissingExtraError: A library that this file type needs is not installed.
    """
    rows = _read(str(path), format, fields, kind, default_kind, split, limit, is_known=is_known)
    return (question for _, question in rows)


def read_examples(
    path: str | Path,
    format: str = "auto",
    *,
    fields: Fields = USUAL,
    kind: Kind = "auto",
    split: str = "train",
    limit: int | None = None,
) -> list[Example]:
    """Read training examples: a pool whose rows all have an explanation and an answer. See `read_pool`.

    Raises:
        PoolError: As `read_pool`, or a row lacks either.
    """
    examples = []
    for row, question in _read(str(path), format, fields, kind, None, split, limit):
        if question.answer is None:
            row.fail(fields.answer or "answer", "missing or empty", "an example to train on needs its answer")
        if question.explanation is None:
            name = fields.explanation or "explanation"
            row.fail(name, "missing or empty", "an example to train on needs its steps")
        examples.append(Example(question, question.explanation, question.answer))
    return examples


def open_pool(
    config: PoolConfig, *, default_kind: AnswerKind | None = None, is_known: bool = False
) -> Iterator[Question]:
    """Read the pool that a configuration names, as `read_pool` does.

    Raises:
        PoolError: As `read_pool`, or the configuration names no pool.
    """
    if config.path is None:
        raise PoolError("pool.path is not set: name the file of questions, for example --pool questions.jsonl")
    return read_pool(
        config.path,
        config.format,
        fields=fields_of(config),
        kind=config.kind,
        default_kind=default_kind,
        split=config.split,
        limit=config.limit,
        is_known=is_known,
    )


def load_pool(config: PoolConfig) -> list[Question]:
    """Read the whole pool that a configuration names.

    Raises:
        PoolError: As `open_pool`.
    """
    return list(open_pool(config))


def fields_of(config: PoolConfig) -> Fields:
    """The names of fields that a configuration gives."""
    return Fields(
        config.question_fields,
        config.question_template,
        config.answer_field,
        config.choices_field,
        config.explanation_field,
    )


def _read(
    path: str,
    format: str,
    fields: Fields,
    kind: Kind,
    default_kind: AnswerKind | None,
    split: str,
    limit: int | None,
    *,
    is_known: bool = False,
) -> Iterator[tuple[Row, Question]]:
    rows = _rows(path, format, split)
    first = next(rows, None)
    if first is None:
        raise PoolError(f'{path}: no questions in it; write one JSON object per line, such as {{"question": "…"}}')
    read_row = _row_reader(path, first, format, fields)
    notes = _Notes(path, is_silent=is_known)
    return islice(_questions(chain([first], rows), read_row, kind, default_kind, notes), limit)


def _questions(
    rows: Iterator[Row],
    read_row: Callable[[Row], Draft],
    kind: Kind,
    default_kind: AnswerKind | None,
    notes: _Notes,
) -> Iterator[tuple[Row, Question]]:
    with closing(Ids()) as ids:
        for row in rows:
            draft = read_row(row)
            question = make_question(row, draft, kind, default_kind)
            notes.take(row, draft, question, is_kind_known=kind != "auto" or default_kind is not None)
            yield row, replace(question, id=ids.settle(row, question))


class _Notes:
    """What users are told about how a pool is read, each once."""

    def __init__(self, path: str, *, is_silent: bool) -> None:
        self._path = path
        self._is_silent = is_silent
        self._told: set[str] = set()

    def take(self, row: Row, draft: Draft, question: Question, *, is_kind_known: bool) -> None:
        """Warn of what is new in a row."""
        if self._is_silent:
            return
        left = ((name, value) for name, value in row.fields.items() if name not in row.used)
        unused = [name or '""' for name, value in left if not _is_empty(value)]
        if draft.choices and not question.choices:
            unused.append("choices")
        new = [name for name in unused if name not in self._told]
        if new:
            self._told.update(new)
            _log.warning(
                "%s: fields not used: %s; if they belong to the question, name all of its parts in order with "
                "--question-field (pool.question_fields)",
                self._path,
                ", ".join(new),
            )
        if draft.note:
            self._tell(draft.note)
        if not is_kind_known and draft.kind is None and draft.answer is None and not draft.choices:
            self._tell(
                "the answer type is unknown without answers: read as text; set it, such as --kind number (pool.kind)"
            )

    def _tell(self, note: str) -> None:
        if note not in self._told:
            self._told.add(note)
            _log.warning("%s: %s", self._path, note)


def _is_empty(value: object) -> bool:
    return value is None or value == "" or value == [] or value != value  # the last: NaN


def _row_reader(path: str, first: Row, format: str, fields: Fields) -> Callable[[Row], Draft]:
    """How rows are read: as the layout named, else by the shape of the first row, else as one's own pool."""
    if format in PUBLISHED and fields != USUAL:
        raise PoolError(
            f"{path}: --format {format} knows its fields: leave out the names of fields, or name the file type instead "
            f"({', '.join(READERS)})"
        )
    if fields.template is not None and not question_fields(first, fields):
        raise PoolError(f"{path}: the question's template names no field; write one in braces, such as {{question}}")
    name = format if format in PUBLISHED else None
    if format in ("auto", "hf") and fields == USUAL:
        name = recognize(first)
    return PUBLISHED[name].read if name is not None else lambda row: own(row, fields)


def _rows(path: str, format: str, split: str) -> Iterator[Row]:
    if format not in FORMATS:
        raise PoolError(f"{path}: unknown format {format!r}; known: {', '.join(FORMATS)}")
    if is_address(path) or "*" in path:
        return read_files(find_files(path, EXTENSIONS), lambda file: _reader(file, format)(file))
    if format in READERS:
        return READERS[format](Path(path))
    extension = Path(path).suffix.lower()
    try:
        is_there, is_folder = Path(path).exists(), Path(path).is_dir()
    except OSError as error:
        raise PoolError(f"{path[:80]}: not a path ({error.strerror}); name a file") from error
    is_name = not is_there and extension not in EXTENSIONS and _DATASET_NAME.fullmatch(path) is not None
    if format == "hf" or is_folder or is_name:
        return read_dataset(path, split)
    return _reader(Path(path), format if is_there else "jsonl")(Path(path))


def _reader(path: Path, format: str) -> Callable[[Path], Iterator[Row]]:
    """The reader of a file: of the file type named, else by its extension."""
    extension = path.suffix.lower()
    name = format if format in READERS else EXTENSIONS.get(extension)
    if name is None:
        raise PoolError(
            f"{path}: unrecognized file extension {extension!r}; name the format, for example --format jsonl "
            f"(known: {', '.join(READERS)})"
        )
    return READERS[name]
