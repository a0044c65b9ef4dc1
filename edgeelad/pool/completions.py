"""Read rows that were made to train a model on: instructions, prompts with completions, and chats.

A completion is an explanation that ends with its answer; what is not an answer is not taken for one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from edgeelad.pool.fields import explanation_of, id_of, is_blank, joined_of, part_of, scalar_of, without_drawings
from edgeelad.pool.own import Draft
from edgeelad.pool.rows import Row, type_name

MAX_BARE_ANSWER = 100  # characters of a completion of one line that is an answer without steps
ASSISTANTS = ("assistant", "gpt", "model", "bot", "chatgpt")
USERS = ("user", "human", "prompter")
SYSTEMS = ("system", "developer")

_THOUGHT = re.compile(r"</?(?:think|thinking|reasoning)>", re.IGNORECASE)
_OPEN, _CLOSE = "<answer>", "</answer>"
_STATED = re.compile(
    r"^.*(?:\bthe (?:final |correct )?answer is\b|^\W*(?:final )?answer\W*[:=]|^\s*#{4})\s*:?\s*(?P<answer>\S.*)$",
    re.IGNORECASE,
)


def completion(text: str) -> tuple[str | None, str | None]:
    """Split a completion into its answer and its explanation; None for what it lacks.

    >>> completion("2 + 3 = 5\\nThe answer is 5.")
    ('5.', '2 + 3 = 5')
    >>> completion("Paris")
    ('Paris', None)
    """
    text = without_drawings(_THOUGHT.sub("\n", text)).strip()
    if text.endswith(_CLOSE) and _OPEN in text:
        before, _, answer = text.removesuffix(_CLOSE).rpartition(_OPEN)
        return answer.strip() or None, before.strip() or None
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines:
        return None, None
    stated = _STATED.match(lines[-1].replace("*", ""))
    if stated:
        return stated["answer"].strip(), "\n".join(lines[:-1]) or None
    if "\\boxed" in text:
        return text[text.rindex("\\boxed") :], text  # `canonical` reads the braces
    if len(lines) == 1 and len(text) <= MAX_BARE_ANSWER:
        return text, None
    return None, text


def alpaca(row: Row) -> Draft:
    """Alpaca (Taori et al. 2023) and Dolly: an instruction, its input or context, and the output or response."""
    asked = joined_of(row, ["instruction"])
    given = (part_of(row, name) for name in ("input", "context") if row.name_of(name))
    text = "\n\n".join(part for part in (asked, *given) if part)
    return _completed(row, text, "output" if row.name_of("output") else "response")


def prompted(row: Row) -> Draft:
    """A prompt with its completion or response, or the chosen one of two: texts, or lists of chat messages."""
    name = next((name for name in ("completion", "response", "chosen") if row.name_of(name)), "completion")
    prompt = "prompt" if row.name_of("prompt") else "query"
    if isinstance(row.get(prompt), list):
        turns = [*_turns(row, prompt), *(_turns(row, name) if isinstance(row.get(name), list) else ())]
        return _chat(row, turns, prompt, None if isinstance(row.get(name), list) else scalar_of(row, name))
    if isinstance(row.get(name), list):
        return _chat(row, [("user", joined_of(row, [prompt])), *_turns(row, name)[-1:]], prompt, None)
    return _completed(row, joined_of(row, [prompt]), name)


def chat(row: Row) -> Draft:
    """Chat messages (`messages`, or ShareGPT's `conversations`): all before the last reply is the question."""
    name = "messages" if row.name_of("messages") else "conversations"
    return _chat(row, _turns(row, name), name, None)


def math(row: Row) -> Draft:
    """MATH (Hendrycks et al. 2021) and its kin: a problem, its solution, and the answer, else the boxed one."""
    solution = explanation_of(row, "solution")
    stated, steps = completion(solution) if solution else (None, None)
    answer = scalar_of(row, "answer") or stated
    return Draft(
        text=joined_of(row, ["problem"]),
        answer=answer,
        explanation=steps,
        skill=scalar_of(row, "subject") or scalar_of(row, "type"),
        id=id_of(row, "unique_id") or id_of(row, "id"),
    )


def _completed(row: Row, text: str, name: str) -> Draft:
    answer, explanation = completion(scalar_of(row, name) or "")
    return Draft(text=text, answer=answer, explanation=explanation, id=id_of(row, "id"), skill=scalar_of(row, "skill"))


def _chat(row: Row, turns: Sequence[tuple[str, str]], name: str, reply: str | None) -> Draft:
    if reply is None and turns and turns[-1][0] in ASSISTANTS:
        *turns, (_, reply) = turns
    if not any(role in USERS for role, _ in turns):
        row.fail(name, "no message of a user", "correct the row")
    is_one_turn = sum(role not in SYSTEMS for role, _ in turns) == 1
    texts = [
        text if is_one_turn or role in SYSTEMS else f"{'User' if role in USERS else role.capitalize()}: {text}"
        for role, text in turns
    ]
    answer, explanation = completion(reply or "")
    return Draft(text="\n\n".join(texts), answer=answer, explanation=explanation, id=id_of(row, "id"))


def _turns(row: Row, name: str) -> list[tuple[str, str]]:
    """Roles and texts of a list of messages; messages without text are refused, unless they are empty systems."""
    messages = row.get(name)
    if not isinstance(messages, list) or not messages:
        row.fail(name, f"expected a list of messages, found {type_name(messages)}", "correct the row")
    turns = []
    for message in messages:
        if not isinstance(message, dict):
            row.fail(name, f"expected messages with role and content, found {type_name(message)}", "correct the row")
        role = str(message.get("role", message.get("from", ""))).casefold()
        text = _content(row, name, message.get("content", message.get("value")))
        if not is_blank(text):
            turns.append((role, text.strip()))
        elif role not in SYSTEMS:
            row.fail(name, f"a message of {role or 'nobody'} without text", "delete the message, or the row")
    return turns


def _content(row: Row, name: str, content: Any) -> str:
    """A message's text: a string, or a list of text parts."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") if isinstance(part, dict) else None for part in parts]
    if texts and all(isinstance(text, str) for text in texts):
        return "\n".join(map(str, texts))
    return row.fail(name, "a message that is not text alone", "only texts can be asked: delete the row")
