"""Find the places where a text states its answer.

Takes a text; gives the statements in it, in order: what follows "The answer is", `Answer:` and `####`, and what stands
in `\\boxed{}` and `<answer></answer>`. Knows no kinds of answers. Linear: no statement reaches into the next.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_MARK = re.compile(
    r"(?P<phrase>(?<![\w'’])(?:answer|(?:correct|right|best)\s(?:option|choice))(?:\s?\([^()\n]{0,80}\))?"
    r"(?:\s(?:to|for|of|in)\s[^.:;!?\n=]{1,60}?)?(?:,\s[\w ]{1,20},)?"
    r"\s{1,8}(?:is|would\sbe|should\sbe|must\sbe|will\sbe|equals)(?![\w'’])\s{0,8}:?)"
    r"|(?P<label>(?<!\w)answer(?:\s?\([^()\n]{0,80}\))?\*{0,3}\s{0,8}[:=])"
    r"|(?P<heading>^[^\w\n]{0,8}(?:final\s)?answer[^\w\n]{0,8}$)"
    r"|(?P<hash>####)"
    r"|(?P<tag><(?:final_)?answer>)"
    r"|(?P<boxed>\\(?:boxed|fbox)\s{0,8}\{?)",
    re.IGNORECASE | re.MULTILINE,
)
_WORDS = ("answer", "option", "choice", "####", "\\boxed", "\\fbox")  # one of them is in every mark
_NOT_STATED = re.compile(
    r"\b(?:if|whether|unless|suppose|supposing|assume|assuming|wrong|incorrect|an|another|his|her|their|your|previous"
    r"|initial|old|\w+['’]s)\s(?:(?:the|that|final|correct|right|first)\s){0,3}\Z",
    re.IGNORECASE,
)
_LOOK_BACK = 40
_EMPTY_LINE = re.compile(r"[\s*_:$.…-]*(?:\\[\[(])?\s*")
_BRACE = re.compile(r"[{}]")
_CORRECTION = re.compile(
    r"(?:\A|[.!?\n])[^\w\n]*(?:wait|actually|correction|oops|scratch\sthat|no[,:.]|hmm|sorry|my\smistake|on\ssecond\sthought"
    r"|i\s(?:made|mis)\w*|that(?:['’]s|\sis)\s(?:wrong|incorrect|not\s(?:right|correct))"
    r"|let\sme\s(?:re|double|correct|check|fix)|rather,|i\smean)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Statement:
    """A place that states an answer.

    Attributes:
        text: What it states, to the end of its line.
        start: Where its mark begins in the text.
        end: Where `text` ends in the text.
        is_boxed: Whether it stands in `\\boxed{}`.
        is_label: Whether its mark may be a heading of what follows, as `Answer:` is.
    """

    text: str
    start: int
    end: int
    is_boxed: bool = False
    is_label: bool = False


def statements(text: str) -> list[Statement]:
    """The statements of a text, in order.

    >>> [statement.text for statement in statements("The answer is 5. Wait, the answer is 6.\\n\\\\boxed{6}")]
    ['5. Wait, the', '6.', '6']
    """
    marks = [mark for mark in _MARK.finditer(text) if not _is_conditional(text, mark)]
    limits = [*(mark.start() for mark in marks[1:]), len(text)]
    return [_statement(text, mark, limit) for mark, limit in zip(marks, limits, strict=False)]


def may_state(text: str) -> bool:
    """Whether a text holds a word or mark with which a statement begins; quick."""
    folded = text.casefold()
    return any(word in folded for word in _WORDS)


def correction_after(text: str, start: int) -> str | None:
    """What a text says from the first word that takes an answer back ("Wait", "Actually"); None if there is none."""
    found = _CORRECTION.search(text, start)
    return text[found.start() :] if found else None


def _is_conditional(text: str, mark: re.Match[str]) -> bool:
    """Whether an answer is only spoken of: "if the answer is", "an answer is", "Tom's answer is"."""
    if mark.lastgroup not in ("phrase", "label"):
        return False
    return _NOT_STATED.search(text[max(0, mark.start() - _LOOK_BACK) : mark.start()]) is not None


def _statement(text: str, mark: re.Match[str], limit: int) -> Statement:
    start, kind = mark.end(), mark.lastgroup
    if kind == "boxed" and mark.group().endswith("{"):
        end = _closing_brace(text, start, limit)
    elif kind == "tag":
        closing = text.find("</", start, limit)
        end = limit if closing == -1 else closing
    else:
        start, end = _line(text, start, limit)
    return Statement(text[start:end], mark.start(), end, kind == "boxed", kind in ("label", "heading"))


def _line(text: str, start: int, limit: int) -> tuple[int, int]:
    """The rest of a line, or if it holds only marks the next line that holds more."""
    while True:
        newline = text.find("\n", start, limit)
        end = limit if newline == -1 else newline
        if newline == -1 or not _EMPTY_LINE.fullmatch(text, start, end):
            return start, end
        start = end + 1


def _closing_brace(text: str, start: int, limit: int) -> int:
    depth = 1
    for brace in _braces(text, start, limit):
        depth += 1 if text[brace] == "{" else -1
        if depth == 0:
            return brace
    return limit


def _braces(text: str, start: int, limit: int) -> Iterator[int]:
    return (brace.start() for brace in _BRACE.finditer(text, start, limit))
