"""The work that every engine gets: branches of fixed length from every step prefix of GSM8K's published solutions.

With random weights a student's own explanation has no steps and a branch no end, so the published solution stands for
the explanation, and every branch is as long as asked. Each round has questions of its own, so that nobody finds what
the round before left in a cache.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from edgeelad.engine.codec import Codec
from edgeelad.files import write_text
from edgeelad.pool import read_pool
from edgeelad.records import Question
from edgeelad.text.explanation import STEP_SEPARATOR


@dataclass(frozen=True, slots=True)
class Workload:
    """What is generated.

    Attributes:
        prompts: For each question its prompt's tokens.
        completions: For each question its explanation's tokens.
        ends: For each question how many of these each prefix has; the first is 0.
        num_branches: Branches from each prefix.
        num_new: Tokens of each branch.
        temperature, top_k: How they are sampled.
    """

    prompts: tuple[tuple[int, ...], ...]
    completions: tuple[tuple[int, ...], ...]
    ends: tuple[tuple[int, ...], ...]
    num_branches: int
    num_new: int
    temperature: float = 0.7
    top_k: int = 64

    def num_tokens(self, question: int) -> int:
        """Tokens of all branches of a question."""
        return len(self.ends[question]) * self.num_branches * self.num_new

    def save(self, path: Path) -> None:
        """Write it for runners, which know nothing of edgeelad."""
        write_text(path, json.dumps(asdict(self)))


def read_questions(path: Path, num: int, skip: int = 0) -> list[Question]:
    """Questions of a GSM8K file, as it orders them."""
    questions = list(read_pool(path, "gsm8k", limit=skip + num))[skip:]
    if len(questions) < num:
        raise SystemExit(f"{path}: {len(questions)} questions where {num} are wanted; use fewer rounds or questions")
    return questions


def training_texts(path: Path) -> Iterable[str]:
    """Questions and solutions of a GSM8K file."""
    for question in read_pool(path, "gsm8k"):
        yield "\n".join((question.text, *(question.explanation or ())))


def chain_solutions(questions: Sequence[Question], num: int, factor: int) -> list[Question]:
    """The first `num` questions, each with the solutions of `factor` questions, one after the other."""
    chained = []
    for place in range(num):
        parts = (questions[(place + num * more) % len(questions)].explanation or () for more in range(factor))
        chained.append(replace(questions[place], explanation=tuple(step for part in parts for step in part)))
    return chained


def make_workload(codec: Codec, questions: Sequence[Question], num_branches: int, num_new: int) -> Workload:
    """The trees of some questions: prompt, solution, and a prefix before each step and after the last."""
    prompts, completions, ends = [], [], []
    for question in questions:
        assert question.explanation is not None, "GSM8K has a solution for each question"
        tokens: list[int] = []
        places = [0]
        for step in question.explanation:
            tokens += codec.encode_line(step + STEP_SEPARATOR, is_first=not tokens)
            places.append(len(tokens))
        prompts.append(tuple(codec.encode_prompt(question)))
        completions.append(tuple(tokens))
        ends.append(tuple(places))
    return Workload(tuple(prompts), tuple(completions), tuple(ends), num_branches, num_new)


def divide(weights: Sequence[int], num_parts: int) -> list[list[int]]:
    """Divide items into parts of about the same weight: the heaviest first, each to the lightest part so far.

    >>> divide([5, 1, 4, 2], 2)
    [[0, 1], [2, 3]]
    """
    parts: list[list[int]] = [[] for _ in range(num_parts)]
    totals = [0] * num_parts
    for item in sorted(range(len(weights)), key=lambda i: (-weights[i], i)):
        lightest = totals.index(min(totals))
        parts[lightest].append(item)
        totals[lightest] += weights[item]
    return [sorted(part) for part in parts]
