"""What a reasoning tree is made of: its parameters, and where the steps of an explanation end in its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeelad.answers import extract
from edgeelad.engine.codec import Codec
from edgeelad.engine.generate import GeneratedTokens, Stop
from edgeelad.explanation import ANSWER_PREFIX, STEP_SEPARATOR, join_steps, split
from edgeelad.records import Question


@dataclass(frozen=True, slots=True)
class TreeParams:
    """What to grow from each question.

    Attributes:
        num_branches: m, branches from each step prefix 1..T; 0 for none.
        num_root_branches: Branches from the bare question; 0 for none.
        temperature, top_k, top_p: How branches are sampled.
        max_explanation_tokens: Tokens of the greedy explanation at most.
        max_branch_tokens: Tokens of a branch at most.
        probe: Whether to force the answer after every prefix.
        seed: The run's seed; each branch has its own from it (see `sampling.make_seed`).
    """

    num_branches: int
    num_root_branches: int
    temperature: float
    top_k: int
    top_p: float
    max_explanation_tokens: int
    max_branch_tokens: int
    probe: bool
    seed: int

    def branches_at(self, prefix: int) -> int:
        """How many branches start after `prefix` steps."""
        return self.num_root_branches if prefix == 0 else self.num_branches


def greedy_params(max_explanation_tokens: int) -> TreeParams:
    """Parameters for greedy explanations alone."""
    return TreeParams(
        num_branches=0,
        num_root_branches=0,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_explanation_tokens=max_explanation_tokens,
        max_branch_tokens=max_explanation_tokens,
        probe=False,
        seed=0,
    )


def answer_stop(codec: Codec) -> Stop:
    """Stop once the answer line is complete: what would follow it changes no answer."""

    def is_answered(ids: Sequence[int]) -> bool:
        lines = codec.decode(ids).split(STEP_SEPARATOR)
        return any(line.strip().startswith(ANSWER_PREFIX) for line in lines[:-1])

    return Stop(codec.newline_ids, is_answered)


def step_prefixes(codec: Codec, ids: Sequence[int], steps: Sequence[str]) -> list[list[int]]:
    """The tokens of each step prefix 0..T of a generated explanation.

    Prefix i ends with the token that completed step i's line. Where no token ends there (the newline came with text
    of the next line, or never), the prefix is encoded anew from its text, as a continuation is.
    """
    prefixes: list[list[int]] = [[]]
    for position, token in enumerate(ids, start=1):
        if len(prefixes) > len(steps):
            break
        if token not in codec.newline_ids:
            continue
        text = codec.decode(ids[:position])
        done = len(split(text[: text.rfind(STEP_SEPARATOR) + 1]).steps)
        while len(prefixes) <= min(done, len(steps)):
            is_clean = len(prefixes) == done and text.endswith(STEP_SEPARATOR)
            prefixes.append(list(ids[:position]) if is_clean else _encoded(codec, steps, len(prefixes)))
    while len(prefixes) <= len(steps):
        prefixes.append(_encoded(codec, steps, len(prefixes)))
    return prefixes


def read_answer(text: str, generated: GeneratedTokens, question: Question) -> str | None:
    """The answer that an explanation states; one that was cut off counts only if it states it in so many words."""
    is_cut = generated.finish_reason == "length"
    return extract(text, question.kind, question.choices, strict=is_cut)


def _encoded(codec: Codec, steps: Sequence[str], num_steps: int) -> list[int]:
    return codec.encode_completion(join_steps(tuple(steps[:num_steps])))
