"""Read rows that were made to train models on: instructions, prompts with completions, and chats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgeelad.pool.completion import completion
from edgeelad.pool.fields import explanation_of, id_of, is_blank, joined_of, part_of, scalar_of
from edgeelad.pool.own import Draft
from edgeelad.pool.rows import Row, type_name

ASSISTANTS = ("assistant", "gpt", "model", "bot", "chatgpt")
USERS = ("user", "human", "prompter")
SYSTEMS = ("system", "developer")
PROMPTS = ("prompt", "query", "input", "question")
REPLIES = ("completion", "response", "chosen", "output")


def alpaca(row: Row) -> Draft:
    """Alpaca (Taori et al. 2023) and Dolly: an instruction, its input or context, and the output or response."""
    asked = joined_of(row, ["instruction"])
    given = (part_of(row, name) for name in ("input", "context") if row.name_of(name))
    text = "\n\n".join(part for part in (asked, *given) if part)
    return _completed(row, text, "output" if row.name_of("output") else "response")


def prompted(row: Row) -> Draft:
    """A prompt with its completion, response or output, or the chosen one of two: texts, or lists of messages."""
    name = next((name for name in REPLIES if row.name_of(name)), REPLIES[0])
    prompt = next((name for name in PROMPTS if row.name_of(name)), PROMPTS[0])
    if isinstance(row.get(prompt), list):
        turns = [*_turns(row, prompt), *(_turns(row, name) if isinstance(row.get(name), list) else ())]
        return _chat(row, turns, prompt, None if isinstance(row.get(name), list) else scalar_of(row, name))
    if isinstance(row.get(name), list):
        return _chat(row, [("user", joined_of(row, [prompt])), *_turns(row, name)[-1:]], prompt, None)
    systems = [name for name in ("system_prompt", "system") if row.name_of(name)]
    return _completed(row, joined_of(row, [*systems, prompt]), name)


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
