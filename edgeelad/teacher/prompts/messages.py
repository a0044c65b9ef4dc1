"""Render the teacher's prompts: one template file per prompt, each with its id (the file's name) and hash.

A template has a block `system` (fixed for a run and a kind of answer, so that endpoints can cache it) and a block
`user` (the question, then what belongs to it); `judge_step` also has a block `next`, for the later turns.
Takes questions and steps, gives chat messages; knows no endpoints and no replies.
"""

from __future__ import annotations

import hashlib
import importlib.resources
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from edgeelad.records import AnswerKind, Question
from edgeelad.text.prompts import question_text

PROMPT_IDS = ("answer", "check", "find_first_error", "judge_step", "complete", "rationale")

ANSWER_FORMATS: dict[AnswerKind, str] = {
    "number": "a number in digits, without its unit",
    "choice": "the letter of the right choice",
    "boolean": "yes or no",
    "text": "the bare answer, as short as possible",
}


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat; `role` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Turn:
    """A step that was judged, and the teacher's reply to it word for word: a turn of the per-step conversation."""

    step: str
    reply: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt file: its id, the SHA-256 of its text, and the text."""

    id: str
    sha256: str
    text: str


@cache
def load_prompt(prompt_id: str) -> Prompt:
    """Read one of the prompt files that ship with edgeelad (`PROMPT_IDS`)."""
    assert prompt_id in PROMPT_IDS, prompt_id
    data = (
        importlib.resources.files("edgeelad.teacher.prompts")
        .joinpath("templates")
        .joinpath(f"{prompt_id}.j2")
        .read_bytes()
    )
    return Prompt(prompt_id, hashlib.sha256(data).hexdigest(), data.decode("utf-8"))


def render_messages(
    prompt_id: str,
    question: Question,
    *,
    style: str = "",
    reference: str | None = None,
    steps: Sequence[str] = (),
    student_answer: str | None = None,
) -> tuple[Message, ...]:
    """Render the system and the user turn of a prompt that is one question and one reply."""
    values = _question_values(question, style, reference)
    values.update(steps=tuple(steps), student_answer=student_answer)
    return _opening(prompt_id, values)


def render_judge_messages(
    question: Question,
    next_step: str,
    *,
    style: str = "",
    reference: str | None = None,
    steps: Sequence[str] = (),
    turns: Sequence[Turn] = (),
) -> tuple[Message, ...]:
    """Render the per-step conversation: earlier turns stay as they were, the next step is appended.

    Args:
        question: The question.
        next_step: The step to be judged now.
        style: How explanations should be written; "" for no wish.
        reference: The reference answer, or None if it is not told.
        steps: Steps known to be correct when the conversation began.
        turns: The steps judged since then, with the teacher's replies.
    """
    asked = [*(turn.step for turn in turns), next_step]
    values = _question_values(question, style, reference)
    values.update(steps=tuple(steps), next_step=asked[0])
    messages = list(_opening("judge_step", values))
    for index, (turn, step) in enumerate(zip(turns, asked[1:], strict=True)):
        number = len(steps) + index + 2
        messages.append(Message("assistant", turn.reply))
        messages.append(Message("user", _block("judge_step", "next", {"number": number, "next_step": step})))
    return tuple(messages)


def clean_text(text: str) -> str:
    """Replace what cannot be written as UTF-8 (lone surrogates, which JSON escapes can smuggle in)."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _question_values(question: Question, style: str, reference: str | None) -> dict[str, Any]:
    return {
        "answer_format": ANSWER_FORMATS[question.kind],
        "question": question_text(question),
        "style": style,
        "reference": reference,
    }


def _opening(prompt_id: str, values: dict[str, Any]) -> tuple[Message, ...]:
    return (
        Message("system", _block(prompt_id, "system", values)),
        Message("user", _block(prompt_id, "user", values)),
    )


def _block(prompt_id: str, name: str, values: dict[str, Any]) -> str:
    template = _compiled(prompt_id)
    return clean_text("".join(template.blocks[name](template.new_context(values))).strip("\n"))


@cache
def _compiled(prompt_id: str) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, autoescape=False, undefined=jinja2.StrictUndefined
    )
    return environment.from_string(load_prompt(prompt_id).text)
