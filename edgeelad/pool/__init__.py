"""Read pools of questions: jsonl, json, csv, parquet, Hugging Face datasets, and public datasets as published.

Takes a path or a dataset's name, gives questions with canonical reference answers and unique ids, one at a time, in
constant memory. What cannot be used is a PoolError that names file, line, field and remedy; no row is passed over.
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
from edgeelad.pool.formats import PUBLISHED, Draft, Fields, own, recognize
from edgeelad.pool.rows import ENDINGS, READERS, Row, read_dataset
from edgeelad.records import Example, Question

__all__ = ["FORMATS", "load_pool", "read_examples", "read_pool"]

FORMATS = ("auto", *READERS, "hf", *PUBLISHED)
"""What `format` may be: how the file is written, or whose it is; "auto" goes by the file's ending and its first row."""

_DATASET_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+(?::[\w.-]+)?")
_log = logging.getLogger(__name__)


def read_pool(
    path: str | Path,
    format: str = "auto",
    *,
    question_field: str = "question",
    answer_field: str = "answer",
    choices_field: str = "choices",
    explanation_field: str = "explanation",
    kind: Kind = "auto",
    split: str = "train",
    limit: int | None = None,
    is_known: bool = False,
) -> Iterator[Question]:
    """Read a pool; the first row at once, the others as they are asked for.

    A row has `question`, and if known `answer`, `choices`, `explanation` (lines, or a list of steps), `id`, `skill`. Of
    kind "auto", each row's answer says what kind it is: with choices a choice; true, false, yes or no a boolean; a
    number a number; else, and without an answer, text.

    Args:
        path: A file, a dataset folder, or the name of a Hugging Face dataset (`owner/name` or `owner/name:config`).
        format: One of `FORMATS`.
        question_field: Name of the field with the question; as a rule, only pools of one's own have other names.
        answer_field: Name of the field with the reference answer.
        choices_field: Name of the field with the choices.
        explanation_field: Name of the field with the reference explanation.
        kind: Kind of the answers.
        split: Split of a Hugging Face dataset.
        limit: Read only the first questions.
        is_known: Whether it was read before: what there is to warn of was said then.

    Raises:
        PoolError: The file or a row cannot be used, or there is no row.
        MissingExtraError: A library that this kind of file needs is not installed.
    """
    fields = Fields(question_field, answer_field, choices_field, explanation_field)
    rows = _read(str(path), format, fields, kind, split, limit, is_known=is_known)
    return (question for _, question in rows)


def read_examples(
    path: str | Path,
    format: str = "auto",
    *,
    question_field: str = "question",
    answer_field: str = "answer",
    choices_field: str = "choices",
    explanation_field: str = "explanation",
    kind: Kind = "auto",
    split: str = "train",
    limit: int | None = None,
) -> list[Example]:
    """Read training examples: a pool whose every row has an explanation and an answer. See `read_pool`.

    Raises:
        PoolError: As `read_pool`, or a row lacks either.
    """
    fields = Fields(question_field, answer_field, choices_field, explanation_field)
    examples = []
    for row, question in _read(str(path), format, fields, kind, split, limit):
        if question.answer is None:
            row.fail(answer_field, "missing or empty", "an example to train on needs its answer")
        if question.explanation is None:
            row.fail(explanation_field, "missing or empty", "an example to train on needs its steps")
        examples.append(Example(question, question.explanation, question.answer))
    return examples


def load_pool(config: PoolConfig) -> list[Question]:
    """Read the whole pool that a configuration names.

    Raises:
        PoolError: As `read_pool`, or the configuration names none.
    """
    if config.path is None:
        raise PoolError("pool.path is not set: name the file of questions, for example --pool questions.jsonl")
    return list(
        read_pool(
            config.path,
            config.format,
            question_field=config.question_field,
            answer_field=config.answer_field,
            choices_field=config.choices_field,
            explanation_field=config.explanation_field,
            kind=config.kind,
            split=config.split,
            limit=config.limit,
        )
    )


def _read(
    path: str, format: str, fields: Fields, kind: Kind, split: str, limit: int | None, *, is_known: bool = False
) -> Iterator[tuple[Row, Question]]:
    rows = _rows(path, format, split)
    first = next(rows, None)
    if first is None:
        raise PoolError(f'{path}: no questions in it; write one JSON object a line, such as {{"question": "…"}}')
    read_row = _row_reader(first, format, fields)
    return islice(_questions(chain([first], rows), read_row, kind, is_warned=is_known), limit)


def _questions(
    rows: Iterator[Row], read_row: Callable[[Row], Draft], kind: Kind, *, is_warned: bool
) -> Iterator[tuple[Row, Question]]:
    with closing(Ids()) as ids:
        for row in rows:
            draft = read_row(row)
            question = make_question(row, draft, kind)
            if kind == "auto" and draft.kind is None and draft.answer is None and not draft.choices and not is_warned:
                is_warned = True
                _log.warning(
                    '%s: no answer says of what kind the answers are: read as text; set pool.kind = "number" (or '
                    "choice, boolean) if that is what they are",
                    row.where,
                )
            yield row, replace(question, id=ids.settle(row, question))


def _row_reader(first: Row, format: str, fields: Fields) -> Callable[[Row], Draft]:
    """How rows are read: as the format named; where only the source is known, by the shape of the first row."""
    name = format if format in PUBLISHED else None
    if format in ("auto", "hf") and fields == Fields():
        name = recognize(first)
    return PUBLISHED[name].read if name is not None else lambda row: own(row, fields)


def _rows(path: str, format: str, split: str) -> Iterator[Row]:
    if format not in FORMATS:
        raise PoolError(f"{path}: no format is called {format!r}; known: {', '.join(FORMATS)}")
    if format in READERS:
        return READERS[format](Path(path))
    ending = Path(path).suffix.lower()
    try:
        is_there, is_folder = Path(path).exists(), Path(path).is_dir()
    except OSError as error:
        raise PoolError(f"{path[:80]}: not a path ({error.strerror}); name a file") from error
    is_name = not is_there and ending not in ENDINGS and _DATASET_NAME.fullmatch(path) is not None
    if format == "hf" or is_folder or is_name:
        return read_dataset(path, split)
    if is_there and ending not in ENDINGS:
        raise PoolError(
            f"{path}: nothing is known about files that end in {ending!r}; name the format, for example --format jsonl "
            f"(known: {', '.join(READERS)})"
        )
    return READERS[ENDINGS.get(ending, "jsonl")](Path(path))
