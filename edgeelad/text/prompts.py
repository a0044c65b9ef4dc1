"""The student's prompt: one template, saved beside the model, used identically in training, scoring and at the edge.

A template is jinja2 text that is rendered in a sandbox with `question` (text with its choices), `instruction`,
`messages` (one user turn), `bos_token`, `eos_token` and `add_generation_prompt`: so a model's own chat template is
rendered as transformers renders it. Knows no tokens beyond the names of the special ones, and no models.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from edgeelad.errors import ConfigError, ModelError
from edgeelad.records import Question

PROMPT_FILE = "prompt.json"
PLAIN_TEMPLATE = "Question: {{ question }}\nExplanation:\n"
CHOICE_LABELS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True, slots=True)
class PromptFormat:
    """How a question becomes the student's prompt.

    Attributes:
        template: The jinja2 template.
        is_chat: Whether `template` is the model's chat template (special tokens are in its text).
        instruction: What is put before the question in a chat prompt.
        bos_token: The model's beginning-of-sequence token, "" where it has none.
        eos_token: The model's end-of-sequence token.
        add_special_tokens: Whether encoding the rendered prompt adds the tokenizer's special tokens.
    """

    template: str = PLAIN_TEMPLATE
    is_chat: bool = False
    instruction: str = ""
    bos_token: str = ""
    eos_token: str = ""
    add_special_tokens: bool = True

    def render(self, question: Question) -> str:
        """Render the prompt for one question.

        Raises:
            ConfigError: The template cannot be rendered.
        """
        asked = question_text(question)
        content = f"{self.instruction}\n\n{asked}" if self.instruction else asked
        try:
            return _compiled(self.template, not self.is_chat).render(
                question=asked,
                instruction=self.instruction,
                messages=[{"role": "user", "content": content}],
                add_generation_prompt=True,
                tools=None,  # transformers passes these too, and some templates ask whether they are none
                documents=None,
                bos_token=self.bos_token,
                eos_token=self.eos_token,
            )
        except jinja2.TemplateError as error:
            raise ConfigError(
                f"the prompt template cannot be rendered: {error}; check student.prompt_template"
            ) from error

    def save(self, folder: Path) -> None:
        """Write `prompt.json` into a model folder."""
        (folder / PROMPT_FILE).write_text(
            json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )

    @classmethod
    def load(cls, folder: Path) -> PromptFormat:
        """Read `prompt.json` from a model folder.

        Raises:
            ModelError: It is missing or not what `save` writes.
        """
        path = folder / PROMPT_FILE
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise ModelError(f"{path}: missing; export the student with `edgeelad export`, which writes it") from None
        except (ValueError, TypeError) as error:
            raise ModelError(f"{path}: not a prompt file of edgeelad ({error}); export the student again") from error


def question_text(question: Question) -> str:
    """The question as it is asked: its text, and for a choice the labeled choices, one a line."""
    if not question.choices:
        return question.text
    labeled = (f"({label}) {choice}" for label, choice in zip(CHOICE_LABELS, question.choices, strict=False))
    return "\n".join((question.text, *labeled))


@lru_cache(maxsize=8)
def _compiled(template: str, keep_trailing_newline: bool) -> jinja2.Template:
    # the same settings, filters and globals as transformers' chat templates, so that rendered bytes are equal
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[jinja2.ext.loopcontrols],
        keep_trailing_newline=keep_trailing_newline,
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    try:
        return environment.from_string(template)
    except jinja2.TemplateError as error:
        raise ConfigError(f"the prompt template is not valid jinja2: {error}; check student.prompt_template") from error


def _tojson(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)
