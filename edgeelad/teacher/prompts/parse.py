"""Read the teacher's replies: tolerant of how the JSON is written (`json_reply`), strict about what it says.

Takes reply texts, gives the records of `protocol` without their cost. Anything that cannot be used raises
`TeacherReplyError` with the reason. Never guesses: a missing field is an error, not a default. Of a reply that was cut
off (`is_cut`) only a whole JSON object counts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from edgeelad.errors import TeacherReplyError
from edgeelad.records import Question
from edgeelad.teacher.prompts.json_reply import has_field, quote, read_object, read_objects, without_reasoning
from edgeelad.teacher.prompts.messages import clean_text
from edgeelad.teacher.protocol import AnswerReply, ChainReply, FirstErrorReply, JudgeReply
from edgeelad.text import answers, explanation

MAX_STEP_CHARS = 2_000

_YES = frozenset({"true", "yes", "correct", "right"})
_NO = frozenset({"false", "no", "incorrect", "wrong"})
_NOTHING = frozenset({"", "null", "none", "n/a", "no error", "no errors", "no error found", "no errors found"})
# what a step is called in an object that stands in a step's place
_STEP_FIELDS = ("step", "text", "content", "description", "explanation", "output", "value")


def parse_answer(text: str, question: Question, is_cut: bool = False) -> AnswerReply:
    """Read the reply to the prompt `answer`; a plain line `The answer is A` will do as well.

    Raises:
        TeacherReplyError: It states no answer of the question's kind.
    """
    try:
        answer = _answer(read_object(text, ("answer",), is_cut).get("answer"), question)
    except TeacherReplyError:
        if is_cut or has_field(text, ("answer",)) or read_objects(text):
            raise
        answer = answers.extract(without_reasoning(text), question.kind, question.choices, strict=True)
    if answer is None:
        raise TeacherReplyError(f"no answer of kind {question.kind} in the reply {quote(text)}")
    return AnswerReply(answer)


def parse_first_error(text: str, question: Question, num_steps: int, is_cut: bool = False) -> FirstErrorReply:
    """Read the reply to the prompt `find_first_error` about `num_steps` steps.

    Raises:
        TeacherReplyError: No JSON object with `first_error`, or a step that does not exist.
    """
    fields = read_object(text, ("first_error",), is_cut)
    number = _step_number(fields["first_error"])
    corrected, ending = _step(fields.get("corrected_step"), number, question)
    answer = _answer(fields.get("answer"), question)
    if number is None or (number <= 0 and corrected is None):
        return FirstErrorReply(None, None, answer, ending=ending)
    if not 1 <= number <= num_steps + 1:
        raise TeacherReplyError(f"first_error is {number}, but there are {num_steps} steps")
    return FirstErrorReply(number - 1, corrected, answer, ending=ending)


def parse_check(text: str, question: Question, num_steps: int, is_cut: bool = False) -> FirstErrorReply:
    """Read the reply to the prompt `check` about `num_steps` steps: as for `find_first_error`, with an answer.

    Raises:
        TeacherReplyError: No JSON object with `first_error`, no answer of the question's kind, or a step that does not
            exist.
    """
    reply = parse_first_error(text, question, num_steps, is_cut)
    if reply.answer is None:
        raise TeacherReplyError(f"no answer of kind {question.kind} in the reply {quote(text)}")
    return reply


def parse_judgment(text: str, question: Question, number: int, is_cut: bool = False) -> JudgeReply:
    """Read the reply to the prompt `judge_step` about the step numbered `number` (1-based).

    Raises:
        TeacherReplyError: No JSON object with a verdict.
    """
    fields = read_object(text, ("correct",), is_cut)
    verdict = fields.get("correct")
    if isinstance(verdict, str):
        word = verdict.strip().lower()
        verdict = True if word in _YES else False if word in _NO else None
    if not isinstance(verdict, bool):
        raise TeacherReplyError(f"no verdict true or false in the reply {quote(text)}")
    corrected, ending = (None, None) if verdict else _step(fields.get("corrected_step"), number, question)
    return JudgeReply(verdict, corrected, clean_text(text), ending=ending)


def parse_chain(text: str, question: Question, num_given: int = 0, is_cut: bool = False) -> ChainReply:
    """Read the reply to `complete` (after `num_given` steps) or `rationale`.

    A completion may have no further steps if the given ones say all. Plain text in the student's own format, steps and
    a line `The answer is A`, will do as well.

    Raises:
        TeacherReplyError: No steps.
    """
    try:
        fields = read_object(text, ("steps",), is_cut)
        lines = _lines(fields.get("steps"), text)
        answer = _answer(fields.get("answer"), question)
    except TeacherReplyError:
        lines, answer = _split_lines(without_reasoning(text)), None
        is_plain = not is_cut and not has_field(text, ("steps",)) and not read_objects(text)
        if not is_plain or explanation.split("\n".join(map(_one_line, lines))).answer_line is None:
            raise
    parsed = explanation.split("\n".join(map(_one_line, lines)))
    if answer is None and parsed.answer_line is not None:
        answer = answers.extract(parsed.answer_line, question.kind, question.choices)
    steps = tuple(_without_number(step, (index + 1, num_given + index + 1)) for index, step in enumerate(parsed.steps))
    steps = tuple(step for step in steps if step)
    if not steps and not (num_given and answer is not None):
        raise TeacherReplyError(f"no steps in the reply {quote(text)}")
    if any(len(step) > MAX_STEP_CHARS for step in steps):
        raise TeacherReplyError(f"a step of more than {MAX_STEP_CHARS} characters in the reply {quote(text)}")
    return ChainReply(steps, answer)


def _step_number(value: Any) -> int | None:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if value is None or value is False or value == []:
        return None
    if isinstance(value, str):
        word = value.strip().lower()
        if word in _NOTHING:
            return None
        match = re.fullmatch(r"(?:step\s*)?#?(-?\d{1,6})\.?", word)
        if match:
            return int(match[1])
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    raise TeacherReplyError(f"first_error is {quote(str(value))}, expected the number of a step or null")


def _step(value: Any, number: int | None, question: Question) -> tuple[str | None, str | None]:
    """The corrected step; or, if an answer line stands in its place, the answer."""
    value = _step_text(value)
    if value is None:
        return None, None
    if not isinstance(value, str):
        raise TeacherReplyError(f"corrected_step is {quote(str(value))}, expected one line of text or null")
    if value.strip().lower() in _NOTHING:
        return None, None
    # a reply of several lines corrects the step in its first one; the student writes the rest itself
    lines = [line for line in map(_one_line, _split_lines(value)) if line]
    corrected = _without_number(lines[0], (number,)) if lines else ""
    if explanation.is_answer_line(corrected):
        return None, answers.extract(corrected, question.kind, question.choices, strict=True)
    if len(corrected) > MAX_STEP_CHARS:
        raise TeacherReplyError(f"corrected_step has {len(corrected)} characters; the maximum is {MAX_STEP_CHARS}")
    return corrected or None, None


def _lines(value: Any, text: str) -> list[str]:
    if isinstance(value, str):
        return _split_lines(value)
    if isinstance(value, list):
        value = [_step_text(item) for item in value]
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return [line for item in value for line in _split_lines(item)]
    raise TeacherReplyError(f"steps is not a list of lines in the reply {quote(text)}")


def _step_text(value: Any) -> Any:
    """The text of a step that is given as an object with one text; other values as they are."""
    if not isinstance(value, dict):
        return value
    texts = [item for name, item in value.items() if name in _STEP_FIELDS and isinstance(item, str)]
    return texts[0] if len(texts) == 1 else value


def _answer(value: Any, question: Question) -> str | None:
    if isinstance(value, bool):
        value = "yes" if value else "no"
    if isinstance(value, int | float):
        value = str(value) if abs(value) < 1e300 else ""
    if not isinstance(value, str) or not value.strip():
        return None
    return answers.canonical(clean_text(value), question.kind, question.choices)


def _split_lines(text: str) -> list[str]:
    """Split where the student's explanations are split; `str.splitlines` also cuts at U+2028, form feeds and others."""
    return re.split(r"\r\n|\r|\n", text)


def _one_line(text: str) -> str:
    return " ".join(clean_text(text).replace("\x00", " ").split())


def _without_number(step: str, numbers: Sequence[int | None]) -> str:
    """Drop the number that a teacher repeats before a step, only if it is that step's number.

    >>> _without_number("2. 3 + 4 = 7", (2,)), _without_number("2.5 + 1 = 3.5", (2,))
    ('3 + 4 = 7', '2.5 + 1 = 3.5')
    """
    match = re.match(r"(?:[Ss]tep\s+)?(\d{1,6})[.):]\s+", step)
    return step[match.end() :] if match and int(match[1]) in numbers else step
