"""Golden outputs: questions with the tokens that the packaged graph generated when the package was written.

Another device compares them token for token. Processors round differently, so that a near tie may be decided
differently there: a difference is reported with its position, and is no proof of damage, which checksums find.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeelad.engine.codec import Codec
from edgeelad.engine.generate import Limits
from edgeelad.engine.graph_files import Precision
from edgeelad.engine.open import open_generator
from edgeelad.engine.options import EngineOptions
from edgeelad.errors import PackageError, RunError
from edgeelad.files import read_jsonl, write_jsonl
from edgeelad.package.manifest import printable
from edgeelad.records import Question

GOLDEN_FILE = "golden.jsonl"
GOLDEN_TOKENS = 64
MAX_GOLDEN_BYTES = 4 << 20  # a stranger's file must not keep a device busy for hours


@dataclass(frozen=True, slots=True)
class Golden:
    """One row of golden.jsonl: a question, its prompt's tokens, and the tokens written greedily after them."""

    id: str
    question: str
    choices: tuple[str, ...]
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    text: str
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A golden output that came out differently here.

    Attributes:
        id: The question.
        place: The index of the first token that differs; in the prompt if `is_prompt`.
        expected: The token there, None if the expected tokens end before.
        found: The token found there, None if the tokens end before.
        is_prompt: Whether the prompt's tokens differ already.
    """

    id: str
    place: int
    expected: int | None
    found: int | None
    is_prompt: bool


class GoldenStudent:
    """A packaged student at the level of tokens: greedy generation up to the end token."""

    def __init__(self, folder: Path, precision: Precision, num_threads: int = 1) -> None:
        self.codec = Codec.load(folder)
        self._generator = open_generator(folder, self.codec, EngineOptions.for_device(precision, num_threads))
        self._limits = Limits(self.codec.eos_ids, self.codec.max_context)

    def write(self, prompt_ids: Sequence[int], max_tokens: int) -> tuple[int, ...]:
        """The tokens after a prompt, without the end token."""
        return tuple(self._generator.stream(prompt_ids, max_tokens, self._limits))


def make_golden(student: GoldenStudent, questions: Sequence[Question]) -> list[Golden]:
    """Answer questions greedily, each alone; questions that do not fit the student's context are skipped."""
    rows = []
    for question in questions:
        prompt_ids = tuple(student.codec.encode_prompt(question))
        max_tokens = min(GOLDEN_TOKENS, student.codec.max_context - len(prompt_ids))
        if max_tokens < 1:
            continue
        ids = student.write(prompt_ids, max_tokens)
        text = student.codec.decode(ids)
        rows.append(Golden(question.id, question.text, question.choices, prompt_ids, ids, text, max_tokens))
    return rows


def write_golden(path: Path, rows: Sequence[Golden]) -> None:
    """Write golden.jsonl into a package.

    Raises:
        StorageError: It cannot be written.
    """
    write_jsonl(path / GOLDEN_FILE, (asdict(row) for row in rows))


def read_golden(path: Path) -> list[Golden]:
    """Read golden.jsonl of a package.

    Raises:
        PackageError: It is missing or damaged.
    """
    file = path / GOLDEN_FILE
    try:
        if file.stat().st_size > MAX_GOLDEN_BYTES:
            raise ValueError(f"larger than {MAX_GOLDEN_BYTES:,} bytes")
        return [_parse(row) for row in read_jsonl(file)]
    except (RunError, KeyError, TypeError, ValueError, OverflowError, OSError) as error:
        raise PackageError(f"{file}: damaged ({printable(str(error))}); copy the package again") from error


def compare(student: GoldenStudent, golden: Golden) -> Mismatch | None:
    """Compare what a student generates here with a golden output; None if they are the same."""
    question = Question(golden.id, golden.question, "text", golden.choices)
    prompt_ids = tuple(student.codec.encode_prompt(question))
    if prompt_ids != golden.prompt_ids:
        return _first_difference(golden.id, golden.prompt_ids, prompt_ids, is_prompt=True)
    found = student.write(prompt_ids, golden.max_tokens)
    if found != golden.completion_ids:
        return _first_difference(golden.id, golden.completion_ids, found, is_prompt=False)
    return None


def _first_difference(id_: str, expected: tuple[int, ...], found: tuple[int, ...], *, is_prompt: bool) -> Mismatch:
    place = next(
        (index for index, (one, other) in enumerate(zip(expected, found, strict=False)) if one != other),
        min(len(expected), len(found)),
    )
    return Mismatch(
        id_,
        place,
        expected[place] if place < len(expected) else None,
        found[place] if place < len(found) else None,
        is_prompt,
    )


def _parse(row: Any) -> Golden:
    golden = Golden(
        id=str(row["id"]),
        question=str(row["question"]),
        choices=tuple(str(choice) for choice in row["choices"]),
        prompt_ids=tuple(int(token) for token in row["prompt_ids"]),
        completion_ids=tuple(int(token) for token in row["completion_ids"]),
        text=str(row["text"]),
        max_tokens=int(row["max_tokens"]),
    )
    if not 1 <= golden.max_tokens <= GOLDEN_TOKENS:
        raise ValueError(f"max_tokens is {golden.max_tokens}")
    return golden
