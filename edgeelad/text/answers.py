"""Extract, normalize and compare answers: number, choice, boolean, text.

A canonical answer is a string, so that equality of answers is equality of strings. "No answer found" is None, its own
outcome, which agrees with nothing; it is also the outcome where another answer than the stated one might be read.
Takes text, gives canonical strings; knows no models and no files.

Canonical forms:
    number   exact: a plain decimal where one exists ("1200", "-0.5"), else a reduced fraction ("1/3"). Currency,
             percent signs and units are dropped ("50 %" is "50"); thousand, million and the like are multiplied out.
    choice   the label, a capital letter.
    boolean  "yes" or "no".
    text     case-folded words without a leading article and without punctuation around them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgeelad.records import AnswerKind
from edgeelad.text.choices import canonical_choice
from edgeelad.text.clauses import Clause, clauses, first_sentence
from edgeelad.text.explanation import ANSWER_PREFIX, is_answer_line
from edgeelad.text.numerals import canonical_number, find_last_number, is_plain_number, last_number
from edgeelad.text.statements import Statement, correction_after, may_state, statements
from edgeelad.text.wording import canonical_text

# a longer text is read from behind, in parts eight times as long as the last; what begins near a part's edge may be cut
TAIL_CHARS, EDGE = 20_000, 500
MAX_STATEMENTS = 200  # that leave the answer open, from the last one back

_BOOLEANS = {"yes": "yes", "true": "yes", "no": "no", "false": "no"}
_EITHER = re.compile(r"\b(?:yes\s?(?:or|/)\s?no|true\s?(?:or|/)\s?false)\b", re.IGNORECASE)
_BOOLEAN = re.compile(r"(?<![\w'’-])(?:(?P<denied>not|n't|never|neither)\s)?(?P<word>yes|no|true|false)(?![\w'’-])")
_DETERMINER = re.compile(
    r"\s(?!(?:because|since|as|it|he|she|they|we|you|i|there|and|but|the|this|that|in|for|so|if|when|due|based)\b)\w"
)
_LABEL = re.compile(r"(?<!\w)(?:[A-Z]|\([a-z]\))(?!\w)")
_DENIAL = re.compile(r"\W*(?:not|never|neither|no\s(?:longer|more|less|fewer))\b", re.IGNORECASE)
_SETTLED = re.compile(
    r"\b(?:it|that|this|answer|result|value|total|number)\s?(?:['’]s|is|should\sbe|must\sbe)\s", re.IGNORECASE
)
_SIDE_BY_SIDE = re.compile(r"[\s$,.]{0,8}(?:and|or|,|&)[\s$]{0,8}(?:[a-z]\s?=\s?)?", re.IGNORECASE)


def canonical(value: str, kind: AnswerKind, choices: Sequence[str] = ()) -> str | None:
    """The canonical form of a bare answer; None if it is not one answer of this kind.

    >>> canonical("$1,200.0", "number"), canonical("3 1/2", "number"), canonical("2/6 cups", "number")
    ('1200', '3.5', '1/3')
    >>> canonical("(b)", "choice"), canonical("The Mall.", "choice", ("bank", "mall")), canonical("True", "boolean")
    ('B', 'B', 'yes')

    Args:
        value: The answer alone, as a person or a model writes it; what restates, denies or explains it may follow.
        kind: How to read it.
        choices: The choices' texts; without them any letter is a choice.
    """
    found, place = _stated(value, _Reader(kind, choices))
    if place is None and kind == "text" and statements(value):
        return None  # "The answer is", and nothing behind it
    return found if place is not None else _settled(_bare(value), "", _Reader(kind, choices))


def extract(text: str, kind: AnswerKind, choices: Sequence[str] = (), *, strict: bool = False) -> str | None:
    """The canonical answer that a text states last; None if it states none that is certain.

    Strict counts only a line that begins `The answer is`. Lenient also reads the phrase anywhere, `Answer:`, `####`,
    `\\boxed{}` and `<answer>`, and for numbers takes the last number of a text that has none of these.
    """
    if strict:
        lines = (line.strip() for line in reversed(text.split("\n")))
        stated = next((line for line in lines if is_answer_line(line)), None)
        return None if stated is None else canonical(stated[len(ANSWER_PREFIX) :], kind, choices)
    reader = _Reader(kind, choices, is_lenient=True)
    for start in _tails(text):
        tail = text[start:]
        found, place = _stated(tail, reader)
        if place is not None and (place >= EDGE or not start):
            return found
        if place is None and (not start or not may_state(text[: start + EDGE])):
            if kind != "number":
                return None
            found, place = find_last_number(tail)
            if place >= EDGE or not start:
                return found
    raise AssertionError("the last tail is the whole text")


def _tails(text: str) -> Iterator[int]:
    """Where to begin to read a text from behind: a long one states its answer at its end, or seldom anywhere."""
    num_chars = TAIL_CHARS
    while num_chars < len(text):
        start = len(text) - num_chars
        yield max(start, text.find("\n", start, start + num_chars // 2) + 1)
        num_chars *= 8
    yield 0


def agree(first: str | None, second: str | None) -> bool:
    """Whether two canonical answers are the same; an answer that was not found agrees with nothing."""
    return first is not None and first == second


def infer_kind(value: str, choices: Sequence[str] = ()) -> AnswerKind:
    """The kind that a reference answer looks like: choice if there are choices, then boolean, number, text.

    A number here may have a currency sign, a percent sign or a short unit in lower case, and no other words: so
    "11 apples" is a number, "Apollo 11" is text.
    """
    if choices:
        return "choice"
    found = statements(value)
    value = _bare(found[-1].text if found else value)
    if value.rstrip(".!").casefold() in _BOOLEANS:
        return "boolean"
    return "number" if is_plain_number(value) else "text"


@dataclass(frozen=True, slots=True)
class _Reader:
    """How to read an answer.

    Attributes:
        kind: Its kind.
        choices: The choices' texts.
        is_lenient: Whether a choice may be named among other words.
    """

    kind: AnswerKind
    choices: Sequence[str]
    is_lenient: bool = False

    def read(self, value: str) -> str | None:
        """The canonical form of a bare answer."""
        if self.kind == "number":
            return canonical_number(value)
        if self.kind == "choice":
            return canonical_choice(value, self.choices, is_lenient=self.is_lenient)
        if self.kind == "boolean":
            return _canonical_boolean(value)
        text = canonical_text(value)
        while text is not None and (bare := _bare(text)) != text:  # LaTeX commands may have hidden marks
            text = canonical_text(bare)
        return text


def _stated(text: str, reader: _Reader) -> tuple[str | None, int | None]:
    """The answer that a text states last, and where that statement begins: None if it states none, -1 if all leave the
    answer open.
    """
    found = statements(text)
    place = None
    for index in reversed(range(max(0, len(found) - MAX_STATEMENTS), len(found))):
        statement = found[index]
        value = _bare(statement.text)
        if not value or (statement.is_label and _is_heading(text, statement, reader.kind)):
            continue
        place = -1
        behind = text[statement.end :] if index == len(found) - 1 else ""
        answer = _settled(value, behind, reader)
        if index and _is_beside(text, found[index - 1], statement):
            other = _settled(_bare(found[index - 1].text), "", reader)
            return (answer if answer == other else None), statement.start
        if answer is not None or not _leaves_open(value, reader.kind):
            return answer, statement.start
    return None, place


def _settled(value: str, behind: str, reader: _Reader) -> str | None:
    """The answer in a statement, unless what stands behind it takes it back.

    "5. Wait, it is 6" states 6; "5. Wait, that is wrong" nothing; "5. Wait, I check: 2 + 3 = 5" still 5.
    """
    start = len(first_sentence(value))
    correction = correction_after(value + behind, start)
    if correction is None:
        return reader.read(value)
    answer = reader.read((value + behind)[: len(value + behind) - len(correction)])
    settled = list(_SETTLED.finditer(correction))
    if settled:
        return reader.read(correction[settled[-1].end() :])
    return answer if reader.kind == "number" and agree(last_number(correction), answer) else None


def _bare(value: str) -> str:
    """A statement without the marks around it: emphasis, a colon, spaces."""
    value = value.strip().lstrip(":").strip()
    return value.strip("*").strip() or value


def _is_heading(text: str, statement: Statement, kind: AnswerKind) -> bool:
    """Whether `Answer:` stands above an explanation: "Answer: Let's see. 3 + 4 = 7"."""
    first = first_sentence(statement.text)
    has_more = bool(text[statement.end :].strip() or statement.text.strip()[len(first) :].strip(" ."))
    return has_more and kind == "number" and not re.search(r"[0-9]", first) and not Clause(first).says_nothing


def _is_beside(text: str, first: Statement, second: Statement) -> bool:
    """Whether two answers are stated side by side: "\\boxed{3} and \\boxed{4}"."""
    between = text[first.end :][: second.start - first.end].lstrip("}")
    return first.is_boxed and second.is_boxed and _SIDE_BY_SIDE.fullmatch(between) is not None


def _leaves_open(value: str, kind: AnswerKind) -> bool:
    """Whether a statement leaves an earlier one as it is: "not 5", "clear from the above"."""
    if _DENIAL.match(value):
        return True
    if kind == "number":
        return not re.search(r"[0-9]", value) and not Clause(first_sentence(value)).says_nothing
    if kind == "boolean":
        return not _BOOLEAN.search(value.casefold())
    return kind == "choice" and not _LABEL.search(value)


def _canonical_boolean(value: str) -> str | None:
    """Yes or no, if the first clause that says either says only one, and does not deny it."""
    for clause in clauses(_EITHER.sub("", value)):
        text = clause.text.casefold().replace("_", " ")
        said = [word for word in _BOOLEAN.finditer(text) if not _is_determiner(text, word)]
        if clause.is_reason or (clause.is_denied and said):
            return None
        if said:
            values = {_BOOLEANS[word["word"]] for word in said}
            return values.pop() if len(values) == 1 and not any(word["denied"] for word in said) else None
    return None


def _is_determiner(text: str, word: re.Match[str]) -> bool:
    """Whether "no" belongs to a noun: "no one knows"."""
    return word["word"] == "no" and _DETERMINER.match(text, word.end()) is not None
