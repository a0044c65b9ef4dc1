"""The student's prompt: one template, saved beside the model, used identically in training, scoring and at the edge.

A template is jinja2 text that is rendered in a sandbox with `messages` (a system turn if there is a system prompt, and
a user turn), `bos_token`, `eos_token`, `add_generation_prompt` and the template's own options: a model's chat template
is rendered as transformers renders it. Other templates also read `question` (text with its choices), `instruction` and
`system_prompt`. Knows no tokens beyond the names of the special ones, and no models.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.meta

from edgeelad.errors import ConfigError, ModelError
from edgeelad.records import Question
from edgeelad.text.sandbox import BoundedSandbox

PROMPT_FILE = "prompt.json"
PLAIN_TEMPLATE = "Question: {{ question }}\nExplanation:\n"
MAX_FILE_CHARS = 1_000_000  # real ones take some kilobytes
MAX_INDENT = 16
# what expressions of a template raise
TEMPLATE_ERRORS = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    SyntaxError,
    TypeError,
    ValueError,
)
# what a rendering passes besides the template's options, which cannot have these names
OWN_VARIABLES = frozenset(
    {"messages", "add_generation_prompt", "tools", "documents", "bos_token", "eos_token"}
    | {"question", "instruction", "system_prompt"}
)
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
        system_prompt: The system turn of a chat prompt, "" for none.
        template_options: Further variables of the template, such as `enable_thinking`.
    """

    template: str = PLAIN_TEMPLATE
    is_chat: bool = False
    instruction: str = ""
    bos_token: str = ""
    eos_token: str = ""
    add_special_tokens: bool = True
    system_prompt: str = ""
    template_options: Mapping[str, Any] = field(default_factory=dict)

    def render(self, question: Question) -> str:
        """Render the prompt for one question.

        Raises:
            ConfigError: The template cannot be rendered.
        """
        asked = question_text(question)
        own = {"question": asked, "instruction": self.instruction, "system_prompt": self.system_prompt}
        variables = {
            **self.template_options,
            **({} if self.is_chat else own),
            "messages": self.messages(question),
            "add_generation_prompt": True,
            "tools": None,  # transformers passes these too, and some templates ask whether they are none
            "documents": None,
            "bos_token": self.bos_token,
            "eos_token": self.eos_token,
        }
        try:
            compiled = _compiled(self.template, not self.is_chat)
            compiled.environment.renew()  # type: ignore[attr-defined]
            return compiled.render(variables)
        except TEMPLATE_ERRORS as error:
            raise ConfigError(
                f"the prompt template cannot be rendered: {error}; check student.prompt_template"
            ) from error

    def messages(self, question: Question) -> list[dict[str, str]]:
        """The turns of a chat prompt for one question: system, if there is a system prompt, and user."""
        asked = question_text(question)
        content = f"{self.instruction}\n\n{asked}" if self.instruction else asked
        system = [{"role": "system", "content": self.system_prompt}] if self.system_prompt else []
        return [*system, {"role": "user", "content": content}]

    @property
    def options(self) -> frozenset[str]:
        """Names of the options that the template reads."""
        environment = _environment(not self.is_chat)
        names = jinja2.meta.find_undeclared_variables(environment.parse(self.template))
        return frozenset(names - set(environment.globals) - OWN_VARIABLES)

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
            with path.open(encoding="utf-8-sig") as file:
                return _checked(cls(**json.loads(file.read(MAX_FILE_CHARS))))
        except FileNotFoundError:
            raise ModelError(f"{path}: missing; export the student with `edgeelad export`, which writes it") from None
        except (ValueError, TypeError, RecursionError) as error:
            raise ModelError(f"{path}: not a prompt file of edgeelad ({error}); export the student again") from error


def _checked(prompt: PromptFormat) -> PromptFormat:
    """Refuse fields of other types: the file may be a stranger's.

    Raises:
        TypeError: A field has another type than its default.
    """
    default = PromptFormat()
    for item in fields(prompt):
        value, expected = getattr(prompt, item.name), type(getattr(default, item.name))
        if type(value) is not expected:
            raise TypeError(f"{item.name} is {value!r:.40}, not {expected.__name__}")
    return prompt


def question_text(question: Question) -> str:
    """The question as it is asked: its text, and for a choice the labeled choices, one a line."""
    if not question.choices:
        return question.text
    labeled = (f"({label}) {choice}" for label, choice in zip(CHOICE_LABELS, question.choices, strict=False))
    return "\n".join((question.text, *labeled))


@lru_cache(maxsize=8)
def _compiled(template: str, keep_trailing_newline: bool) -> jinja2.Template:
    try:
        return _environment(keep_trailing_newline).from_string(template)
    except jinja2.TemplateError as error:
        raise ConfigError(f"the prompt template is not valid jinja2: {error}; check student.prompt_template") from error


def _environment(keep_trailing_newline: bool) -> jinja2.Environment:
    # the same settings, filters and globals as transformers' chat templates, so that rendered bytes are equal
    environment = BoundedSandbox(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[jinja2.ext.loopcontrols],
        keep_trailing_newline=keep_trailing_newline,
    )
    environment.add_filter("tojson", tojson)
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = strftime_now
    return environment


def tojson(value: Any, indent: int | None = None) -> str:
    """Write JSON as transformers' filter of this name does: without escapes for HTML."""
    if indent is not None and not 0 <= indent <= MAX_INDENT:
        raise ValueError(f"tojson takes an indent from 0 to {MAX_INDENT}")
    return json.dumps(value, ensure_ascii=False, indent=indent)


def raise_exception(message: str) -> NoReturn:
    """End the rendering with a message of the template's."""
    raise jinja2.TemplateError(message)


def strftime_now(pattern: str) -> str:
    """Write today's date or the time."""
    return datetime.now().strftime(pattern)
