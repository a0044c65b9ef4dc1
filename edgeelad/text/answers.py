"""Extract, normalize and compare answers: number, choice, boolean, text.

A canonical answer is a string, so that equality of answers is equality of strings. "No answer found" is None, its own
outcome, which agrees with nothing. Takes text, gives canonical strings; knows no models and no files.

Canonical forms:
    number   exact: a plain decimal where one exists ("1200", "-0.5"), else a reduced fraction ("1/3"). Currency,
             percent signs and units are dropped ("50 %" is "50"); thousand, million … are multiplied out.
    choice   the label, a capital letter.
    boolean  "yes" or "no".
    text     case-folded words without articles and without punctuation around them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence

from edgeelad.records import AnswerKind
from edgeelad.text.explanation import ANSWER_PREFIX, is_answer_line
from edgeelad.text.numerals import canonical_number, first_number, is_plain_number, last_number
from edgeelad.text.prompts import CHOICE_LABELS

_BOOLEANS = {"yes": "yes", "true": "yes", "no": "no", "false": "no"}
_ARTICLES = frozenset({"a", "an", "the"})
_KEPT_AT_EDGES = "%"  # the one punctuation mark around a word that carries meaning

_LONE_LABEL = re.compile(r"(?:(?:option|choice|answer)\s*)?\(?\s*([A-Za-z])\s*[).:,;!]*", re.IGNORECASE)
_LABEL_THEN_TEXT = re.compile(
    r"(?:(?:option|choice|answer)\s+)?(?:\(\s*([A-Za-z])\s*\)|([A-Za-z])\s*[).:,])(?!\S*[A-Za-z]\.)"
)
_LABEL_ANYWHERE = re.compile(r"\(([A-Za-z])\)|(?<!\w)([A-Z])(?!\w|')")
_FIRST_SENTENCE = re.compile(r".*?(?=[.!?;](?:\s|$)|$)", re.DOTALL)
_STATEMENT = re.compile(
    r"(?P<phrase>(?:the|my|our)\s+(?:final\s+|correct\s+|right\s+|best\s+)?answer\s+is(?![\w'’])\s*:?)"
    r"|(?P<mark>(?<!\w)answer\**\s*[:=]|####)"
    r"|(?P<boxed>\\boxed\s*\{)",
    re.IGNORECASE,
)


def canonical(value: str, kind: AnswerKind, choices: Sequence[str] = ()) -> str | None:
    """The canonical form of a bare answer; None where it is not an answer of this kind.

    >>> canonical("$1,200.0", "number"), canonical("3 1/2", "number"), canonical("2/6 cups", "number")
    ('1200', '3.5', '1/3')
    >>> canonical("(b)", "choice"), canonical("The Mall.", "choice", ("bank", "mall")), canonical("True", "boolean")
    ('B', 'B', 'yes')

    Args:
        value: The answer alone, as a person or a model writes it; a number may have words around it, not other numbers.
        kind: How to read it.
        choices: The choices' texts; without them any letter is a choice.
    """
    value = _unwrap(value)
    if kind == "number":
        return canonical_number(value)
    if kind == "choice":
        return _canonical_choice(value, choices)
    if kind == "boolean":
        return _canonical_boolean(value)
    return _canonical_text(value)


def extract(text: str, kind: AnswerKind, choices: Sequence[str] = (), *, strict: bool = False) -> str | None:
    """The canonical answer that a text states last; None where it states none.

    Strict counts only a line that begins `The answer is`. Lenient also reads the phrase anywhere, `Answer:`, `####` and
    `\\boxed{}`, is less picky about what follows, and for numbers takes the last number of the text as a last resort.
    """
    if strict:
        lines = (line.strip() for line in reversed(text.split("\n")))
        stated = next((line for line in lines if is_answer_line(line)), None)
        return None if stated is None else canonical(stated[len(ANSWER_PREFIX) :].lstrip(" \t:"), kind, choices)
    for statement in reversed(list(_statements(text))):
        found = canonical(statement, kind, choices)
        if found is None:
            found = _LENIENT[kind](_first_sentence(statement), choices)
        if found is not None:
            return found
    return last_number(text) if kind == "number" else None


def agree(first: str | None, second: str | None) -> bool:
    """Whether two canonical answers are the same; an answer that was not found agrees with nothing."""
    return first is not None and first == second


def infer_kind(value: str, choices: Sequence[str] = ()) -> AnswerKind:
    """The kind that a reference answer looks like: choice where there are choices, then boolean, number, text.

    A number here may have a currency sign, a percent sign or a short unit in lower case, and no other words: so
    "11 apples" is a number, "Apollo 11" is text.
    """
    if choices:
        return "choice"
    value = _unwrap(value)
    if value.rstrip(".!").casefold() in _BOOLEANS:
        return "boolean"
    return "number" if is_plain_number(value) else "text"


def _statements(text: str) -> Iterator[str]:
    """What follows each place that states an answer, in order: the rest of its line, or of the next that has text."""
    position = 0
    while (match := _STATEMENT.search(text, position)) is not None:
        if match["boxed"]:
            statement, position = _braced(text, match.end())
        else:
            start = match.end()
            while start < len(text) and text[start].isspace():
                start += 1
            end = text.find("\n", start)
            position = end if end != -1 else len(text)
            statement = text[start:position]
        yield statement


def _braced(text: str, start: int) -> tuple[str, int]:
    """The text up to the brace that closes the one before `start`, and the position after it."""
    depth = 1
    for position in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[start:position], position + 1
    return text[start:], len(text)


def _unwrap(value: str) -> str:
    """Drop the marks that an answer may still stand in: `####`, `\\boxed{}`, an answer phrase at its start."""
    while (match := _STATEMENT.search(value)) is not None:
        if match["boxed"]:
            inner = _braced(value, match.end())[0]
        elif not value[: match.start()].strip(" \t*_"):
            inner = value[match.end() :]
        else:
            break
        value = inner
    return value.strip().strip("*").strip()


def _first_sentence(statement: str) -> str:
    match = _FIRST_SENTENCE.match(statement)
    return match.group() if match else statement


# --- choice ---------------------------------------------------------------------------------------------------------


def _labels(choices: Sequence[str]) -> str:
    return CHOICE_LABELS[: len(choices)] if choices else CHOICE_LABELS


def _canonical_choice(value: str, choices: Sequence[str]) -> str | None:
    labels = _labels(choices)
    lone = _LONE_LABEL.fullmatch(value)
    if lone and lone[1].upper() in labels:
        return lone[1].upper()
    same = [label for label, choice in zip(labels, choices, strict=False) if _same_choice(value, choice)]
    if len(same) == 1:
        return same[0]
    labeled = _LABEL_THEN_TEXT.match(value)
    if labeled and (label := (labeled[1] or labeled[2]).upper()) in labels:
        return label
    return None


def _same_choice(value: str, choice: str) -> bool:
    if _canonical_text(value) == _canonical_text(choice):
        return True
    return is_plain_number(value) and is_plain_number(choice) and canonical_number(value) == canonical_number(choice)


def _lenient_choice(sentence: str, choices: Sequence[str]) -> str | None:
    """The one choice whose text occurs in a sentence, else the first label that stands alone in it."""
    said = f" {_canonical_text(sentence) or ''} "
    named = [
        label for label, text in zip(_labels(choices), choices, strict=False) if f" {_canonical_text(text)} " in said
    ]
    if len(named) == 1:
        return named[0]
    found = ((match[1] or match[2]).upper() for match in _LABEL_ANYWHERE.finditer(sentence))
    return next((label for label in found if label in _labels(choices)), None)


# --- boolean, number, text ------------------------------------------------------------------------------------------


def _canonical_boolean(value: str) -> str | None:
    match = re.match(r"[\W_]*([a-z]+)(?=\W*$|[.,;:!])", value.casefold())
    return _BOOLEANS.get(match[1]) if match else None


def _lenient_boolean(sentence: str, _: Sequence[str]) -> str | None:
    """The first yes/no/true/false of a sentence, unless it is negated."""
    words = re.findall(r"[a-z']+", sentence.casefold())
    for before, word in zip(["", *words], words, strict=False):
        if word in _BOOLEANS:
            return None if before == "not" or before.endswith("n't") else _BOOLEANS[word]
    return None


def _lenient_number(sentence: str, _: Sequence[str]) -> str | None:
    """What follows the last equals sign, else the first number."""
    return first_number(sentence.rpartition("=")[2]) or first_number(sentence)


def _canonical_text(value: str) -> str | None:
    for _ in range(4):  # folding can uncover what folds further (ligatures, marks); a fixed point makes it idempotent
        folded = _fold(value)
        if folded == value:
            break
        value = folded
    return value or None


def _fold(value: str) -> str:
    words = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", value).casefold()).split()
    bare = [word for word in map(_strip_punctuation, words) if word]
    if not bare:
        return " ".join(words)
    return " ".join([word for word in bare if word not in _ARTICLES] or bare)


def _strip_punctuation(word: str) -> str:
    start, end = 0, len(word)
    while end > start and _is_punctuation(word[end - 1]):
        end -= 1
    while start < end and _is_punctuation(word[start]):
        if word[start] == "-" and word[start + 1 : start + 2].isdigit():
            break  # a sign, not a dash
        start += 1
    return word[start:end]


def _is_punctuation(character: str) -> bool:
    return character not in _KEPT_AT_EDGES and unicodedata.category(character).startswith("P")


def _lenient_text(sentence: str, _: Sequence[str]) -> str | None:
    return _canonical_text(sentence)


_LENIENT: dict[AnswerKind, Callable[[str, Sequence[str]], str | None]] = {
    "number": _lenient_number,
    "choice": _lenient_choice,
    "boolean": _lenient_boolean,
    "text": _lenient_text,
}
