"""How well does a teacher find and fix errors? Measured before money is spent on a pool.

On explanations whose first error is known: does the teacher find it (told the right answer, as in the ladder), does it
see one in a right explanation, does its corrected step lead it to the right answer, does it answer correctly by itself?
Takes rows in the form of BIG-Bench-Mistake (Tyen et al. 2024), gives shares with exact 95 % intervals, and the cost.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeelad.accuracy import interval
from edgeelad.config import TeacherConfig
from edgeelad.errors import ConfigError, InputError, TeacherReplyError
from edgeelad.records import Question, TeacherUsage
from edgeelad.teacher.protocol import FullTeacher, Teacher, UnusableReplyError, abilities_of
from edgeelad.teacher.revision.concurrent import work_side_by_side
from edgeelad.teacher.revision.work import AskTeacher, Need
from edgeelad.text.answers import agree, canonical, infer_kind


@dataclass(frozen=True, slots=True)
class CheckRow:
    """An explanation whose first error is known.

    Attributes:
        question: The question with its right answer.
        steps: The explanation.
        mistake: The first flawed step (0-based); None if there is none.
        answer: The canonical answer that the explanation reaches, if it is known.
    """

    question: Question
    steps: tuple[str, ...]
    mistake: int | None
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """What the teacher made of one row; None if it was not asked or its reply could not be used.

    `located` is the step that it named; `is_located` whether that is right, "no error" included; `is_fixed` whether it
    reaches the right answer from its corrected step; `is_answered` whether it answers the question correctly.
    """

    row: CheckRow
    located: int | None
    is_located: bool | None
    is_fixed: bool | None
    is_answered: bool | None
    usage: TeacherUsage


@dataclass(frozen=True, slots=True)
class Share:
    """A share with its exact 95 % interval (Clopper-Pearson)."""

    num_hits: int
    num: int

    @property
    def value(self) -> float:
        """The share; 0 of nothing."""
        return self.num_hits / self.num if self.num else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Its lower and upper bound."""
        return interval(self.num_hits, self.num)


@dataclass(frozen=True, slots=True)
class TeacherCheck:
    """How good a teacher is.

    Attributes:
        num_rows: Rows asked about.
        found: First errors found at the right step, of explanations that have one.
        near: The same, one step off allowed.
        cleared: Explanations without an error that it let pass.
        fixed: Errors from whose correction it reached the right answer, of those found.
        answered: Questions that it answered rightly.
        unusable: Replies that could not be used, of all that were asked for.
        usage: What its replies cost when they were bought.
    """

    num_rows: int
    found: Share
    near: Share
    cleared: Share
    fixed: Share
    answered: Share
    unusable: Share
    usage: TeacherUsage


def check_teacher(
    rows: Iterable[CheckRow],
    teacher: Teacher,
    config: TeacherConfig,
    progress: Callable[[int], None] = lambda done: None,
) -> TeacherCheck:
    """Ask the teacher about each row, many side by side.

    Raises:
        ConfigError: The teacher cannot find errors or continue from given steps.
        BudgetError, TeacherRefusedError, TeacherUnavailableError: Why not all rows could be asked about.
    """
    abilities = abilities_of(teacher)
    if not (abilities.finds_errors and abilities.completes):
        raise ConfigError("a check needs a teacher that finds errors and continues from given steps; this one does not")
    checked: list[Checked] = []
    works = (_check(row) for row in rows)
    for item in work_side_by_side(works, teacher, _no_student, config.max_concurrency):
        checked.append(item)
        progress(len(checked))
    return _summarize(checked)


def read_check_rows(path: Path) -> Iterator[CheckRow]:
    """Read rows `{input, steps, mistake_index, target}` (and `answer`, if there), as JSON lines.

    Raises:
        InputError: The file cannot be read, or a row is not of this form; names file, line and field.
    """
    try:
        # JSON may hold U+2028 and U+0085, at which splitlines() would cut; a byte-order mark is dropped
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _read_row(line, f"{path}:{number}", str(number))


class _Ask:
    """The calls about one row: what they cost, None for a reply that cannot be used."""

    def __init__(self) -> None:
        self.usage = TeacherUsage()

    def __call__(self, call: Callable[[FullTeacher], Any]) -> Generator[Need, Any, Any]:
        try:
            reply = yield AskTeacher(call)
        except UnusableReplyError as error:
            self.usage += error.usage
            return None
        except TeacherReplyError:
            return None
        self.usage += reply.usage
        return reply


def _check(row: CheckRow) -> Generator[Need, Any, Checked]:
    question, steps, ask = row.question, row.steps, _Ask()
    # the answer first, to a question that does not tell it
    given = yield from ask(lambda teacher: teacher.answer(question))
    is_answered = None if given is None else agree(given.answer, question.answer)
    found = yield from ask(lambda teacher: teacher.find_first_error(question, steps, question.answer, row.answer))
    if found is None:
        return Checked(row, None, None, None, is_answered, ask.usage)
    is_fixed = None
    if row.mistake is not None and found.step == row.mistake:
        is_fixed = found.corrected is not None
        if found.corrected is not None:
            corrected = (*steps[: row.mistake], found.corrected)
            # the answer is not told: only a right step leads to it
            rest = yield from ask(lambda teacher: teacher.complete(question, corrected, None))
            is_fixed = None if rest is None else agree(rest.answer, question.answer)
    return Checked(row, found.step, found.step == row.mistake, is_fixed, is_answered, ask.usage)


def _summarize(checked: Sequence[Checked]) -> TeacherCheck:
    flawed = [item for item in checked if item.row.mistake is not None]
    clean = [item for item in checked if item.row.mistake is None]
    found = [item for item in flawed if item.is_located]
    near = [item for item in flawed if item.located is not None and _distance(item) <= 1]
    replies = [item.is_answered for item in checked] + [item.is_located for item in checked]
    replies += [item.is_fixed for item in found]
    return TeacherCheck(
        num_rows=len(checked),
        found=Share(len(found), len(flawed)),
        near=Share(len(near), len(flawed)),
        cleared=Share(sum(item.is_located is True for item in clean), len(clean)),
        fixed=Share(sum(item.is_fixed is True for item in found), len(found)),
        answered=Share(sum(item.is_answered is True for item in checked), len(checked)),
        unusable=Share(sum(reply is None for reply in replies), len(replies)),
        usage=sum((item.usage for item in checked), TeacherUsage()),
    )


def _distance(item: Checked) -> int:
    assert item.located is not None
    assert item.row.mistake is not None
    return abs(item.located - item.row.mistake)


def _read_row(line: str, where: str, number: str) -> CheckRow:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where}: not JSON ({error})") from None
    if not isinstance(row, dict):
        raise InputError(f"{where}: expected an object with input, steps, mistake_index and target")
    text, steps, mistake = row.get("input"), row.get("steps"), row.get("mistake_index")
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"{where}: the field input must be the question's text")
    if not isinstance(steps, list) or not steps or not all(isinstance(step, str) for step in steps):
        raise InputError(f"{where}: the field steps must be a list of texts, not empty")
    if mistake is not None and (
        not isinstance(mistake, int) or isinstance(mistake, bool) or not 0 <= mistake < len(steps)
    ):
        raise InputError(f"{where}: the field mistake_index must be null or a number from 0 to {len(steps) - 1}")
    target = row.get("target")
    if isinstance(target, bool) or not isinstance(target, str | int | float):
        raise InputError(f"{where}: the field target must be the right answer")
    # options stand in the text of such tasks as "(A)", and so does their target
    kind = "choice" if str(target).strip().startswith("(") else infer_kind(str(target))
    answer = canonical(str(target), kind)
    if answer is None:
        raise InputError(f"{where}: the field target holds no answer: {target!r}")
    question = Question(f"row {row.get('id', number)}", text, kind, answer=answer)
    given = row.get("answer")
    reached = canonical(str(given), kind) if given is not None else None
    return CheckRow(question, tuple(" ".join(step.split()) for step in steps), mistake, reached)


def _no_student(items: Sequence[tuple[Question, tuple[str, ...]]]) -> list[str]:
    raise AssertionError("a check needs no student")
