"""The student's prompt: one template, saved beside the model, used identically in training, scoring and at the edge.

A template is jinja2 text that is rendered in a sandbox with `messages` (a system turn if there is a system prompt, and
a user turn), `bos_token`, `eos_token`, `add_generation_prompt` and the template's own options: a model's chat template
is rendered as transformers renders it. Other templates also read `question` (text with its choices), `instruction` and
`system_prompt`. Knows no tokens beyond the names of the special ones, and no models.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sized
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.meta
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from edgeelad.errors import ConfigError, ModelError
from edgeelad.records import Question

PROMPT_FILE = "prompt.json"
PLAIN_TEMPLATE = "Question: {{ question }}\nExplanation:\n"
# bounds on what a template may do; real ones take some kilobytes and some dozen steps
MAX_FILE_CHARS = 1_000_000
MAX_PROMPT_CHARS = 10_000_000
MAX_LOOP_STEPS = 10_000
# what expressions of a template raise
TEMPLATE_ERRORS = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
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
            compiled.globals["range"].num_left = MAX_LOOP_STEPS
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


class _BoundedSandbox(ImmutableSandboxedEnvironment):
    """jinja2's sandbox with bounds on loops over ranges and on the size of products, powers and concatenations.

    A package's template is a stranger's program: without them a line of it takes all memory or never ends.
    """

    intercepted_binops = frozenset({"*", "**", "+", "%"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Compute a binary operation if its result is of a reasonable size."""
        sizes = [len(value) if isinstance(value, Sized) else None for value in (left, right)]
        if operator == "**" or (operator == "%" and isinstance(left, str)):
            raise SecurityError(f"the operator {operator} is not available here")
        if operator == "*" and sizes != [None, None]:
            count = right if sizes[0] is not None else left
            if isinstance(count, int) and count * (sizes[0] or sizes[1] or 0) > MAX_PROMPT_CHARS:
                raise SecurityError("a repetition is too long")
        if operator == "+" and sum(size or 0 for size in sizes) > MAX_PROMPT_CHARS:
            raise SecurityError("a sum of texts or lists is too long")
        if isinstance(left, int) and isinstance(right, int) and left.bit_length() + right.bit_length() > 512:
            raise SecurityError("a number is too large")
        return super().call_binop(context, operator, left, right)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        """Parse a template, and let `~` join texts through `concatenate`."""
        tree = super()._parse(source, name, filename)
        for node in tree.find_all((nodes.Node,)):
            for name_of_field, value in list(node.iter_fields()):
                if isinstance(value, nodes.Concat):
                    setattr(node, name_of_field, _bounded(value))
                elif isinstance(value, list):
                    value[:] = [_bounded(item) if isinstance(item, nodes.Concat) else item for item in value]
        tree.set_environment(self)
        return tree

    @staticmethod
    def concatenate(*parts: Any) -> str:
        """Join the texts of `a ~ b`."""
        texts = [str(part) for part in parts]
        if sum(map(len, texts)) > MAX_PROMPT_CHARS:
            raise SecurityError("a concatenation is too long")
        return "".join(texts)


def _bounded(node: nodes.Concat) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute("concatenate"), node.nodes, [], None, None, lineno=node.lineno)


class _Ranges:
    """The `range` of one template, whose loops take MAX_LOOP_STEPS together, renewed for each rendering."""

    def __init__(self) -> None:
        self.num_left = MAX_LOOP_STEPS

    def __call__(self, *arguments: int) -> list[int]:
        found = range(*arguments)
        self.num_left -= len(found)
        if self.num_left < 0:
            raise SecurityError(f"its loops take more than {MAX_LOOP_STEPS} steps")
        return list(found)


@lru_cache(maxsize=8)
def _compiled(template: str, keep_trailing_newline: bool) -> jinja2.Template:
    try:
        return _environment(keep_trailing_newline).from_string(template)
    except jinja2.TemplateError as error:
        raise ConfigError(f"the prompt template is not valid jinja2: {error}; check student.prompt_template") from error


def _environment(keep_trailing_newline: bool) -> jinja2.Environment:
    # the same settings, filters and globals as transformers' chat templates, so that rendered bytes are equal
    environment = _BoundedSandbox(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[jinja2.ext.loopcontrols],
        keep_trailing_newline=keep_trailing_newline,
    )
    environment.globals["range"] = _Ranges()
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _tojson(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)
