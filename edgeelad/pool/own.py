"""Read rows of one's own pools: question, and if known answer, choices, explanation, id and skill.

A passage beside the question belongs to it, choices may be listed or stand in columns A, B, …; other names are given
as `Fields`. Returns drafts: a question's parts as text, not yet checked or canonical.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import takewhile

from edgeelad.pool.completion import completion
from edgeelad.pool.fields import (
    NO_OPTIONS,
    Options,
    explanation_of,
    field_names,
    id_of,
    joined_of,
    options_of,
    part_of,
    right_choice,
    scalar_of,
)
from edgeelad.pool.rows import Row
from edgeelad.records import AnswerKind

PASSAGES = ("passage", "context", "article", "body", "premise", "story", "paragraph", "background", "document")
"""Fields that are part of the question if they are text and stand beside it."""
LISTS = ("choices", "options")
COLUMNS = "ABCDEFGHIJ"
COMPLETION_NOTE = "answers of several lines are read as explanations with the answers that they state"
INDEX_NOTE = "answers that are whole numbers are read as the index of the right choice, from 0"

_PLACEHOLDER = re.compile(r"\{([^{}]+)\}")


@dataclass(frozen=True, slots=True)
class Draft:
    """The parts of a question as a file gives them.

    Attributes:
        text: What is asked.
        answer: The reference answer, or None.
        choices: The choices' texts.
        explanation: The reference explanation as lines of text, or None.
        kind: The kind of the answer; None if the file does not say.
        skill: A label for reports, or None.
        id: The row's own id, or None.
        note: How something ambiguous was read; shown once per pool.
    """

    text: str
    answer: str | None = None
    choices: tuple[str, ...] = ()
    explanation: str | None = None
    kind: AnswerKind | None = None
    skill: str | None = None
    id: str | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Fields:
    """Names of the fields of one's own pool; what is not given is found by its usual name.

    Attributes:
        question: The fields that make up the question, in order, joined by blank lines. The last is required in every
            row, the others may be empty. Default: `question`, after a passage if there is one.
        template: The question as text with fields in braces, such as "{passage}\\n\\nQ: {question}".
        answer: Default: `answer`.
        choices: Default: `choices` or `options`, else columns A, B, ….
        explanation: Default: `explanation`.
    """

    question: tuple[str, ...] = ()
    template: str | None = None
    answer: str | None = None
    choices: str | None = None
    explanation: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names that the user gave: every row must have them."""
        given = (self.answer, self.choices, self.explanation)
        in_template = _PLACEHOLDER.findall(self.template) if self.template is not None else []
        return (*self.question, *in_template, *(name for name in given if name is not None))


USUAL = Fields()


def own(row: Row, fields: Fields = USUAL) -> Draft:
    """A row of one's own pool."""
    for name in fields.names:
        if not row.has(name):
            remedy = f"the row has {field_names(row)}: name the right field, or add it with the value null"
            row.fail(name, "missing", remedy)
    options = _options(row, fields)
    name = fields.answer or "answer"
    answer = right_choice(row, name, options) if options.texts else scalar_of(row, name)
    explanation = explanation_of(row, fields.explanation or "explanation")
    note = INDEX_NOTE if options.texts and _is_index(row, name, options) else ""
    if answer and not options.texts and "\n" in answer.strip() and explanation is None:
        (answer, explanation), note = completion(answer), COMPLETION_NOTE
    return Draft(
        text=_question(row, fields),
        answer=answer,
        choices=options.texts,
        explanation=explanation,
        skill=scalar_of(row, "skill"),
        id=id_of(row, "id"),
        note=note,
    )


def question_fields(row: Row, fields: Fields) -> tuple[str, ...]:
    """The fields that make up the question of a row of one's own pool, in order."""
    if fields.template is not None:
        return tuple(_PLACEHOLDER.findall(fields.template))
    if fields.question:
        return fields.question
    return (*(name for name in PASSAGES if row.name_of(name) and _is_text(row, name)), "question")


def _question(row: Row, fields: Fields) -> str:
    if fields.template is None:
        return joined_of(row, question_fields(row, fields))
    text = _PLACEHOLDER.sub(lambda match: part_of(row, match[1]), fields.template)
    if not any(part_of(row, name) for name in question_fields(row, fields)):
        row.fail(question_fields(row, fields)[-1], "empty", "fill it in, or delete the row")
    return text


def _is_text(row: Row, name: str) -> bool:
    value = row.fields[str(row.name_of(name))]
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, str) for item in value))


def _options(row: Row, fields: Fields) -> Options:
    if fields.choices is not None:
        return options_of(row, (fields.choices,))
    for name in LISTS:
        if row.name_of(name) and row.get(name) not in (None, ""):
            return options_of(row, (name,))
    columns = tuple(takewhile(row.fields.__contains__, COLUMNS))
    return options_of(row, columns) if len(columns) > 1 else NO_OPTIONS


def _is_index(row: Row, name: str, options: Options) -> bool:
    value = str(row.get(name))
    return value.isdecimal() and value not in (*options.texts, *options.labels)
