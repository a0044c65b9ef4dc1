"""Turn examples into token rows and rows into batches: the loss is on what the student is to write, nothing else.

A row has the prompt's tokens and the completion's (encoded separately, as the engine meets them) with the end token. A
decoder's row has them in one sequence, whose labels are -100 on the prompt. A batch is padded on the right; padding is
never a label. An example with several explanations has a row for each, and is another of them in each pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch.utils.data import Dataset

from edgeelad.engine.codec import Codec
from edgeelad.records import Example
from edgeelad.text.explanation import join
from edgeelad.training.result import SkippedExample

IGNORED = -100  # the label on which torch's cross-entropy takes no loss


class Row(TypedDict):
    """One explanation as Trainer takes it."""

    input_ids: list[int]
    labels: list[int]


@dataclass(frozen=True, slots=True)
class Layout:
    """How an architecture reads examples.

    Attributes:
        make_row: Makes a row of the tokens of a prompt and its completion.
        collate: Makes a batch of rows, a padding token, and the number of which lengths are a multiple.
    """

    make_row: Callable[[Sequence[int], Sequence[int]], Row]
    collate: Callable[[Sequence[Row], int, int], dict[str, torch.Tensor]]


@dataclass(frozen=True, slots=True)
class EncodedExamples:
    """Rows to train on by example, one for each of its explanations; and the examples that gave none."""

    rows: list[tuple[Row, ...]]
    skipped: tuple[SkippedExample, ...]

    @property
    def num_label_tokens(self) -> int:
        """Tokens that the loss is taken on in the first pass."""
        return sum(label != IGNORED for row, *_ in self.rows for label in row["labels"])


class InTurn(Dataset[Row]):
    """Examples as Trainer reads them: each time that one is read, it is the next of its rows."""

    def __init__(self, rows: Sequence[Sequence[Row]]) -> None:
        self._rows = rows
        self._turns = [0] * len(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        """The first row of each, which takes no turn: a sampler reads all lengths beforehand."""
        return (row for row, *_ in self._rows)

    def __getitem__(self, index: int) -> Row:
        rows, turn = self._rows[index], self._turns[index]
        self._turns[index] = turn + 1
        return rows[turn % len(rows)]


def make_row(prompt: Sequence[int], completion: Sequence[int]) -> Row:
    """A decoder's row: prompt and completion, with labels of the same length."""
    return {"input_ids": [*prompt, *completion], "labels": [*[IGNORED] * len(prompt), *completion]}


def encode_examples(
    examples: Sequence[Example],
    codec: Codec,
    eos_id: int,
    make_row: Callable[[Sequence[int], Sequence[int]], Row] = make_row,
) -> EncodedExamples:
    """Encode examples; an explanation that is too long for the student's context is left out.

    An example without any other is skipped, with the reason.

    Args:
        examples: What to learn.
        codec: The student's tokenization.
        eos_id: The end-of-sequence token that the student learns to write after the answer.
        make_row: Makes a row of an example's tokens.
    """
    rows: list[tuple[Row, ...]] = []
    skipped: list[SkippedExample] = []
    for example in examples:
        prompt = codec.encode_prompt(example.question)
        room = codec.max_context - len(prompt)
        completions = [
            [*codec.encode_completion(join(steps, example.answer)), eos_id] for steps in example.explanations
        ]
        fitting = tuple(make_row(prompt, completion) for completion in completions if len(completion) <= room)
        if fitting:
            rows.append(fitting)
        else:
            num_tokens = len(prompt) + len(completions[0])
            reason = f"{num_tokens} tokens do not fit the student's context of {codec.max_context}"
            skipped.append(SkippedExample(example.question.id, reason))
    return EncodedExamples(rows, tuple(skipped))


def collate(rows: Sequence[Row], pad_id: int, multiple: int = 1) -> dict[str, torch.Tensor]:
    """Pad rows on the right to the longest (to a multiple of `multiple`): input_ids and labels, [batch, length].

    There is no attention mask: under causal attention no real token sees what is right of it, so the mask changes no
    loss, and without it transformers takes the faster causal path (6 % of a step of a 1M-parameter student).
    """
    length = max(len(row["input_ids"]) for row in rows)
    length += -length % multiple
    input_ids = torch.full((len(rows), length), pad_id, dtype=torch.long)
    labels = torch.full((len(rows), length), IGNORED, dtype=torch.long)
    for index, row in enumerate(rows):
        num_tokens = len(row["input_ids"])
        input_ids[index, :num_tokens] = torch.tensor(row["input_ids"])
        labels[index, :num_tokens] = torch.tensor(row["labels"])
    return {"input_ids": input_ids, "labels": labels}


CAUSAL = Layout(make_row, collate)
