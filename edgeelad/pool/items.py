"""Read a pool from Python objects: question records, texts, and rows as dictionaries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any

from edgeelad.errors import PoolError
from edgeelad.pool.check import Ids, make_question
from edgeelad.pool.own import USUAL, own
from edgeelad.pool.rows import Row
from edgeelad.records import AnswerKind, Question


def read_items(
    items: Iterable[Question | str | Mapping[str, Any]], default_kind: AnswerKind | None = None
) -> Iterator[Question]:
    """Read a pool from Python objects, as they are iterated over.

    Texts and rows become the questions that they would be in a file, with the same ids; records are passed through.

    Args:
        items: Records, texts, or dictionaries with the fields of a pool file (`question`, `answer`, …).
        default_kind: Answer type of items without an answer; default: text.

    Raises:
        PoolError: An item cannot be used; the message names it by its number, from 0.
    """
    with closing(Ids()) as ids:
        for number, item in enumerate(items):
            row = Row(f"item {number} of the pool", {"question": item} if isinstance(item, str) else {})
            if isinstance(item, Mapping):
                row = replace(row, fields=item)
            if isinstance(item, Question):
                if not item.text.strip():
                    row.fail("text", "empty", "every item needs a question")
                yield item
            elif row.fields:
                question = make_question(row, own(row, USUAL), "auto", default_kind)
                yield replace(question, id=ids.settle(row, question))
            else:
                raise PoolError(f"{row.where} is {type(item).__name__}; expected a Question, a text or a dictionary")
