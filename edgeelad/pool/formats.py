"""What the fields of a row mean: one's own pools, and public datasets as their authors published them.

Takes rows, gives drafts: a question's parts as text, not yet checked or canonical. To add a format: a function, how its
rows are recognized, and its line in the table below.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from edgeelad.pool.equations import read_value, rounds_to, solve_prefix
from edgeelad.pool.fields import (
    choices_of,
    explanation_of,
    field_names,
    id_of,
    labeled_choices_of,
    scalar_of,
    text_of,
)
from edgeelad.pool.rows import Row, type_name
from edgeelad.records import AnswerKind
from edgeelad.text.numerals import format_fraction
from edgeelad.text.prompts import CHOICE_LABELS

_CALCULATOR_MARK = re.compile(r"<<[^<>]*>>")
_PLACEHOLDER = re.compile(r"\bnumber\d+\b")
_OPTION_LABEL = re.compile(r"\s*\(?[A-Z]\s*\)\s*")
_ANSWER_REMARK = re.compile(
    r"\W*(?:(?:so|hence|thus|therefore|the|this|gives|us|correct|right|final|answer|ans|option|choice|is)\b\W*)*"
    r"[A-E]?\W*(?:is\s+(?:the\s+)?(?:correct|right)\s+(?:answer|option|choice))?\W*",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Draft:
    """The parts of a question as a file gives them; `kind` is None where the file does not say."""

    text: str
    answer: str | None = None
    choices: tuple[str, ...] = ()
    explanation: str | None = None
    kind: AnswerKind | None = None
    skill: str | None = None
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Fields:
    """Which fields of one's own pool hold what."""

    question: str = "question"
    answer: str = "answer"
    choices: str = "choices"
    explanation: str = "explanation"

    @property
    def renamed(self) -> tuple[str, ...]:
        """Names that the user gave: every row must have them."""
        pairs = {"answer": self.answer, "choices": self.choices, "explanation": self.explanation}
        return tuple(name for default, name in pairs.items() if name != default)


# --- one's own pool -------------------------------------------------------------------------------------------------


def own(row: Row, fields: Fields) -> Draft:
    """A row with question, and if known answer, choices, explanation, id and skill, under the names in `fields`."""
    for name in fields.renamed:
        if name not in row.fields:
            row.fail(
                name, "missing", f"the row has {field_names(row)}: name the right field, or add it with the value null"
            )
    return Draft(
        text=text_of(row, fields.question),
        answer=scalar_of(row, fields.answer),
        choices=choices_of(row, fields.choices),
        explanation=explanation_of(row, fields.explanation),
        skill=scalar_of(row, "skill"),
        id=id_of(row, "id"),
    )


# --- published formats ----------------------------------------------------------------------------------------------


def gsm8k(row: Row) -> Draft:
    """GSM8K (Cobbe et al. 2021): the solution's lines, calculator marks removed, then `#### answer`."""
    solution, mark, answer = text_of(row, "answer").partition("####")
    if not mark:
        row.fail("answer", "has no '####' before the answer", "use --format jsonl for pools of your own")
    return Draft(
        text=text_of(row, "question"),
        answer=answer,
        explanation=_CALCULATOR_MARK.sub("", solution),
        kind="number",
        id=id_of(row, "id"),
    )


def svamp(row: Row) -> Draft:
    """SVAMP, MAWPS and ASDiv-A (Patel et al. 2021): placeholders filled in, the prefix equation turned into steps.

    Where the equation does not give the published answer, not even rounded, there is no explanation (8 of 4,138 rows).
    """
    try:
        values = [read_value(number) for number in text_of(row, "Numbers").split()]
    except ValueError:
        row.fail("Numbers", "not numbers separated by spaces", "restore the file as published")
    numbers = {f"number{index}": value for index, value in enumerate(values)}
    text = text_of(row, "Question")
    unknown = [name for name in _PLACEHOLDER.findall(text) if name not in numbers]
    if unknown:
        row.fail("Numbers", f"no value for {unknown[0]}", "restore the file as published")
    stated = str(scalar_of(row, "Answer"))
    try:
        solution = solve_prefix(text_of(row, "Equation").split(), numbers)
        answer = read_value(stated)
        is_rounded = solution.value != answer and rounds_to(solution.value, stated)
    except (ValueError, ZeroDivisionError) as error:
        row.fail("Equation", f"not a prefix equation with a numeric answer ({error})", "restore the file as published")
    steps = list(solution.steps)
    if is_rounded and steps:
        steps[-1] = f"{steps[-1].rpartition(' = ')[0]} = {format_fraction(answer)}"
    return Draft(
        text=_PLACEHOLDER.sub(lambda match: format_fraction(numbers[match.group()]), text),
        answer=format_fraction(answer),
        explanation="\n".join(steps) if is_rounded or solution.value == answer else None,
        kind="number",
        skill=scalar_of(row, "Type"),
    )


def strategyqa(row: Row) -> Draft:
    """StrategyQA (Geva et al. 2021): the facts are the steps; the decomposition is questions, so no explanation."""
    if not isinstance(row.fields.get("answer"), bool):
        row.fail("answer", f"expected true or false, found {type_name(row.fields.get('answer'))}", "correct the row")
    return Draft(
        text=text_of(row, "question"),
        answer=scalar_of(row, "answer"),
        explanation=explanation_of(row, "facts"),
        kind="boolean",
        id=id_of(row, "qid"),
    )


def commonsenseqa(row: Row) -> Draft:
    """CommonsenseQA (Talmor et al. 2019): stem, labeled choices, the label of the right one."""
    nested = row.fields.get("question")
    inner = Row(row.where, nested) if isinstance(nested, dict) else row
    labels, choices = labeled_choices_of(inner)
    key = scalar_of(row, "answerKey")
    if key and key not in labels:
        row.fail("answerKey", f"{key!r} is none of the labels {', '.join(labels)}", "correct the row")
    return Draft(
        text=text_of(inner, "stem" if inner is not row else "question"),
        answer=CHOICE_LABELS[labels.index(key)] if key else None,
        choices=choices,
        kind="choice",
        id=id_of(row, "id"),
    )


def aqua(row: Row) -> Draft:
    """AQuA-RAT (Ling et al. 2017): options without their labels; the rationale without a closing "Answer: B"."""
    rationale = explanation_of(row, "rationale") or ""
    steps = [line for line in rationale.split("\n") if line.strip()]
    while steps and _ANSWER_REMARK.fullmatch(steps[-1]):
        steps.pop()
    return Draft(
        text=text_of(row, "question"),
        answer=text_of(row, "correct"),
        choices=tuple(_OPTION_LABEL.sub("", option, count=1) for option in choices_of(row, "options")),
        explanation="\n".join(steps) or None,
        kind="choice",
    )


def tracking(row: Row) -> Draft:
    """BIG-bench's tracking of shuffled objects: the choices with their scores, 1 for the right one."""
    scores = row.fields.get("target_scores")
    if not isinstance(scores, dict) or list(scores.values()).count(1) != 1:
        row.fail("target_scores", "expected an object that gives one choice the score 1", "correct the row")
    choices = tuple(str(choice) for choice in scores)
    right = next(index for index, score in enumerate(scores.values()) if score == 1)
    return Draft(
        text=text_of(row, "input"),
        answer=CHOICE_LABELS[right] if right < len(CHOICE_LABELS) else None,
        choices=choices,
        kind="choice",
        skill=scalar_of(row, "name"),
    )


@dataclass(frozen=True, slots=True)
class Published:
    """A public dataset's format: how a row is read, and how it is recognized."""

    read: Callable[[Row], Draft]
    keys: frozenset[str]


def _published(read: Callable[[Row], Draft], *keys: str) -> Published:
    return Published(read, frozenset(keys))


PUBLISHED: dict[str, Published] = {
    "gsm8k": _published(gsm8k, "question", "answer"),
    "svamp": _published(svamp, "Question", "Numbers", "Equation", "Answer"),
    "mawps-asdiv": _published(svamp, "Question", "Numbers", "Equation", "Answer"),
    "strategyqa": _published(strategyqa, "qid", "question", "answer", "facts"),
    "commonsenseqa": _published(commonsenseqa, "question", "answerKey"),
    "aqua": _published(aqua, "question", "options", "correct"),
    "tracking": _published(tracking, "input", "target_scores"),
}


def recognize(row: Row) -> str | None:
    """The published format that a row has the shape of; None for a pool of one's own."""
    for name, published in PUBLISHED.items():
        if not published.keys <= row.fields.keys():
            continue
        answer = row.fields.get("answer")
        if name != "gsm8k" or (isinstance(answer, str) and re.search(r"^#### ?\S", answer, re.MULTILINE)):
            return name
    return None
