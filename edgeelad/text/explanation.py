"""Split an explanation into steps and an answer line, and join steps into text.

An explanation is its steps, one a line, then the answer line `The answer is A`. A blank line is no step. Splitting and
joining are inverse on what `join` produces, so a question's text is the same in training, scoring and at the edge.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

ANSWER_PREFIX = "The answer is"
STEP_SEPARATOR = "\n"

_DRAWING, _DRAWING_END = "[asy]", "[/asy]"  # code of MATH's figures; megabytes in some solutions
_CUT_DRAWING = re.compile(r"^[^\S\n]*\[asy\].*", re.DOTALL | re.MULTILINE)  # one that a limit of tokens cut


@dataclass(frozen=True, slots=True)
class ParsedExplanation:
    """An explanation's steps, and its answer line (None where it does not state one)."""

    steps: tuple[str, ...]
    answer_line: str | None


def split(text: str) -> ParsedExplanation:
    """Split an explanation into its steps and its answer line; text after the first answer line is dropped.

    So are drawings, `[asy]...[/asy]`.

    >>> split("2 + 3 = 5 apples.\\nThe answer is 5")
    ParsedExplanation(steps=('2 + 3 = 5 apples.',), answer_line='The answer is 5')
    """
    steps: list[str] = []
    for line in without_drawings(text).split(STEP_SEPARATOR):
        line = line.strip()
        if is_answer_line(line):
            return ParsedExplanation(tuple(steps), line)
        if line:
            steps.append(line)
    return ParsedExplanation(tuple(steps), None)


def without_drawings(text: str) -> str:
    """A text without the programs of figures that MATH's solutions hold: they are not steps."""
    first, *others = text.split(_DRAWING)
    kept = [first]
    for other in others:
        _, end, rest = other.partition(_DRAWING_END)
        kept.append(rest if end else _DRAWING + other)
    return _CUT_DRAWING.sub("", "".join(kept), count=1)


def is_answer_line(line: str) -> bool:
    """Whether a line states the answer; "The answer isn't 5" does not, it is a step like any other."""
    return line.startswith(ANSWER_PREFIX) and not line[len(ANSWER_PREFIX) : len(ANSWER_PREFIX) + 1].isalpha()


def join_steps(steps: tuple[str, ...]) -> str:
    """Join steps into the text that precedes the next step: each step with a newline after it."""
    return "".join(step + STEP_SEPARATOR for step in steps)


def join(steps: tuple[str, ...], answer: str) -> str:
    """Join steps and an answer into the text that a student learns to write (without EOS).

    >>> join(("2 + 3 = 5 apples.",), "5")
    '2 + 3 = 5 apples.\\nThe answer is 5'
    """
    return f"{join_steps(steps)}{ANSWER_PREFIX} {answer}"
