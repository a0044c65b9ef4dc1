"""Golden outputs: questions with the tokens that the packaged graph generated when the package was written.

Another device compares them token for token. Processors and releases of onnxruntime round differently, and in int8 and
int4 a last bit can become a step of the rounding: a near tie is then decided differently. So at each difference the
student is asked how much less likely the golden token is here, and goes on from that token.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgeelad.engine.codec import Codec
from edgeelad.engine.generate import Limits, SequenceRequest
from edgeelad.engine.graph_files import Precision
from edgeelad.engine.open import open_generator
from edgeelad.engine.options import EngineOptions
from edgeelad.engine.sampling import SamplingParams
from edgeelad.errors import PackageError, RunError
from edgeelad.files import read_jsonl, write_jsonl
from edgeelad.package.manifest import GOLDEN_FILE, printable
from edgeelad.records import Question

GOLDEN_TOKENS = 64
MAX_GOLDEN_BYTES = 4 << 20  # a stranger's file must not keep a device busy for hours
NUM_TOP = 20  # most likely tokens among which the golden one is looked for
# nats by which a token may lead the golden one and both still be a near tie; SmolLM2-135M's tokens that onnxruntime
# 1.22 and 1.32 choose differently: up to 0.29 in int8, 0.17 in int4
TIE_NATS, FP32_TIE_NATS = 0.5, 0.01


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
        lead: By how many nats the token found there leads the expected one here; None if the expected one is not
            among the most likely.
        is_tie: Whether that is so little that rounding explains it.
    """

    id: str
    place: int
    expected: int | None
    found: int | None
    is_prompt: bool
    lead: float | None = None
    is_tie: bool = False


class GoldenStudent:
    """A packaged student at the level of tokens: greedy generation up to the end token.

    Attributes:
        codec: Its tokenization.
        tie_nats: Nats by which a token may lead another and both still be a near tie.
        num_written: Tokens written so far.
        seconds: That took.
    """

    def __init__(self, folder: Path, precision: Precision, num_threads: int = 1) -> None:
        self.codec = Codec.load(folder)
        self.tie_nats = FP32_TIE_NATS if precision == "fp32" else TIE_NATS
        self.num_written, self.seconds = 0, 0.0
        self._generator = open_generator(folder, self.codec, EngineOptions.for_device(precision, num_threads))
        self._limits = Limits(self.codec.eos_ids, self.codec.max_context)

    def write(self, prompt_ids: Sequence[int], max_tokens: int) -> tuple[int, ...]:
        """The tokens after a prompt, without the end token."""
        start = time.perf_counter()
        ids = tuple(self._generator.stream(prompt_ids, max_tokens, self._limits))
        self.seconds += time.perf_counter() - start
        self.num_written += len(ids)
        return ids

    def lead(self, prompt_ids: Sequence[int], token: int | None) -> float | None:
        """By how many nats the most likely next token leads another one, or the end if that is None.

        None if the other one is not among the `NUM_TOP` most likely.
        """
        batch = self._generator.open_batch(self._limits, 1)
        sequence = batch.add(SequenceRequest(tuple(prompt_ids), SamplingParams(1), num_top=NUM_TOP))
        assert sequence is not None, "an empty batch has room for any sequence"
        while not sequence.is_done:
            batch.step()
        if sequence.error is not None:
            raise sequence.error
        wanted = self.codec.eos_ids if token is None else {token}
        (top,) = sequence.top
        return next((top[0][1] - logprob for id_, logprob in top if id_ in wanted), None)


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


def compare(student: GoldenStudent, golden: Golden) -> tuple[Mismatch, ...]:
    """Compare what a student generates here with a golden output, up to the first difference that is no near tie.

    Returns:
        The differences; none if both are the same.
    """
    question = Question(golden.id, golden.question, "text", golden.choices)
    prompt_ids = tuple(student.codec.encode_prompt(question))
    if prompt_ids != golden.prompt_ids:
        return (_first_difference(golden.id, golden.prompt_ids, prompt_ids, is_prompt=True),)
    expected, differences, place = golden.completion_ids, [], 0
    while place < golden.max_tokens:
        found = student.write((*prompt_ids, *expected[:place]), golden.max_tokens - place)
        if found == expected[place:]:
            break
        first = _first_difference(golden.id, expected, (*expected[:place], *found), is_prompt=False)
        lead = student.lead((*prompt_ids, *expected[: first.place]), first.expected)
        differences.append(replace(first, lead=lead, is_tie=lead is not None and lead <= student.tie_nats))
        if first.expected is None or not differences[-1].is_tie:
            break
        place = first.place + 1  # from the golden token on
    return tuple(differences)


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
