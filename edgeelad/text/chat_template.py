"""Write a student's prompt as a chat template, for runtimes that render chats themselves.

The template is jinja2 text as transformers, transformers.js and onnxruntime-genai read it. Of a chat it takes the last
user message, as `edgeelad serve` does, and renders exactly what `PromptFormat.render` makes of a question with that
text: the student knows no other prompt.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import jinja2

from edgeelad.text.prompts import PromptFormat

NOTHING = '{{ "" }}'

_FIND_QUESTION = (
    '{%- set edgeelad = namespace(question="") -%}'
    "{%- for message in messages -%}"
    '{%- if message["role"] == "user" -%}{%- set edgeelad.question = message["content"] -%}{%- endif -%}'
    "{%- endfor -%}"
)


def chat_template(prompt: PromptFormat, special_tokens: str = "") -> str:
    """Write a prompt as a chat template.

    Args:
        prompt: The prompt.
        special_tokens: The text of the special tokens that the tokenizer puts before a prompt: runtimes encode a
            rendered chat without adding any.
    """
    content = f"{_literal(prompt.instruction + 2 * chr(10))} + edgeelad.question"
    user = f'{{"role": "user", "content": {content if prompt.instruction else "edgeelad.question"}}}'
    system = f"{_literal({'role': 'system', 'content': prompt.system_prompt})}, " if prompt.system_prompt else ""
    variables = {name: _literal(value) for name, value in prompt.template_options.items()}
    if not prompt.is_chat:
        variables |= {"question": "edgeelad.question", "instruction": _literal(prompt.instruction)}
        variables["system_prompt"] = _literal(prompt.system_prompt)
    variables |= {"bos_token": _literal(prompt.bos_token), "eos_token": _literal(prompt.eos_token)}
    variables |= {"add_generation_prompt": "true", "messages": f"[{system}{user}]"}
    settings = "".join(f"{{%- set {name} = {value} -%}}" for name, value in variables.items())
    before = (
        f"{{{{ {_literal(special_tokens)} }}}}"  # also if there are none: it keeps blanks that the template begins with
    )
    return f"{_FIND_QUESTION}{settings}{before}{_trimmed(prompt.template, prompt.is_chat)}"


def _trimmed(template: str, is_chat: bool) -> str:
    """A template without the newlines and blanks around its blocks that jinja2 trims, as transformers sets it.

    Rendered with or without trimming, it gives the same text: onnxruntime-genai does not trim.
    """
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=not is_chat)
    parts: list[str] = []
    for _, kind, text in environment.lex(template):
        if kind in ("block_end", "comment_end", "raw_end", "variable_end"):
            text = text.rstrip()
        elif kind == "data" and text.startswith("\n") and parts:
            text = NOTHING + text
        parts.append(text)
    text = "".join(parts)
    return text + NOTHING if text.endswith("\n") else text  # a newline at the end would be removed


def _literal(value: Any) -> str:
    """A JSON value as jinja2 writes it."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_literal(key)}: {_literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_literal, value)) + "]"
    return "none" if value is None else json.dumps(value, ensure_ascii=False)
