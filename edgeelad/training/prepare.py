"""Turn a causal LM or a T5 into a student folder: float32 safetensors, `tokenizer.json`, `prompt.json`, token ids.

`generation_config.json` keeps the ids of the end, begin and padding tokens only: a student's explanation is greedy, and
a program that loads the folder later should generate what was scored.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from transformers import GenerationConfig, PreTrainedModel
from transformers import PreTrainedTokenizerFast as FastTokenizer

from edgeelad.config import StudentConfig
from edgeelad.errors import ConfigError, ModelError
from edgeelad.files import make_folder
from edgeelad.records import Question
from edgeelad.text.prompts import PLAIN_TEMPLATE, PROMPT_FILE, PromptFormat
from edgeelad.training.characters import keep_characters
from edgeelad.training.checkpoint import adapter_base, merge_adapter
from edgeelad.training.encoder_decoder import complete_config
from edgeelad.training.extra import quiet
from edgeelad.training.load import find_model, load_config, load_model, load_tokenizer
from edgeelad.training.save import refuse_existing, save_student

# characters that templates and tokenizers treat in their own ways, and a list of choices
SAMPLE = Question("sample", 'If x < 3 & y > 2, what\'s "x + y"? Größe: 5 €', kind="choice", choices=("4", "5"))
# the date in Llama 3's own template if there is no clock; a prompt that changes with the day cannot be reproduced
TEMPLATE_DATE = date(2024, 7, 26)


def prepare_student(model: str, out: Path, config: StudentConfig) -> Path:
    """Load a causal LM and save it as a student folder; see `edgeelad.training.prepare_student`."""
    refuse_existing(out)
    source = find_model(model)
    adapted = adapter_base(source)
    base = source if adapted is None else find_model(adapted)
    with quiet():
        described = load_config(base)
        has_tokenizer = adapted is None or (Path(source) / "tokenizer.json").is_file()
        tokenizer = load_tokenizer(source if has_tokenizer else base)
        loaded = load_model(base, described)
        if adapted is not None:
            loaded = merge_adapter(loaded, source)
        _check_vocabulary(source, loaded, tokenizer)
        keep_characters(source, tokenizer, loaded)
        loaded.generation_config = _token_ids(source, loaded, tokenizer)
        prompt = _own_prompt(source, config) or choose_prompt(source, tokenizer, config)
        if described.is_encoder_decoder:
            complete_config(loaded)
            prompt = replace(prompt, add_special_tokens=True)  # an encoder reads the end token, too
        make_folder(out, lambda folder: save_student(folder, out, loaded, tokenizer, prompt))
    return out


def _own_prompt(source: str, config: StudentConfig) -> PromptFormat | None:
    """The prompt that a student folder was saved with; None for other folders, or if another one is configured."""
    wanted = (config.prompt_template, config.chat_template, config.system_prompt, config.template_options or None)
    is_kept = wanted == (None,) * len(wanted) and (Path(source) / PROMPT_FILE).is_file()
    return PromptFormat.load(Path(source)) if is_kept else None


def choose_prompt(source: str, tokenizer: FastTokenizer, config: StudentConfig) -> PromptFormat:
    """The explicit template, else the model's chat template, else a plain prompt; each is rendered once.

    A chat template is changed if it would not render the same everywhere (see `_settled`), in `tokenizer` too.

    Raises:
        ConfigError: The template cannot be rendered, leaves out the question, or does not read the system prompt or an
            option that the configuration sets; there are several chat templates, and none of the configured name.
        ModelError: The chat template renders differently in transformers.
    """
    if config.prompt_template is not None and config.chat_template is not None:
        raise ConfigError("student.prompt_template and student.chat_template exclude each other; set one of them")
    tokens = {"bos_token": tokenizer.bos_token or "", "eos_token": tokenizer.eos_token}
    settings: dict[str, Any] = {
        "system_prompt": config.system_prompt or "",
        "template_options": config.template_options,
    }
    chat = _chat_template(source, tokenizer, config.chat_template) if config.prompt_template is None else None
    if chat is not None:
        tokenizer.chat_template = _settled(chat)
        prompt = PromptFormat(tokenizer.chat_template, True, config.instruction, **tokens, **settings)
        prompt = replace(prompt, add_special_tokens=False)
        _check_settings(source, prompt)
        _check_chat(source, prompt, tokenizer)
    else:
        template = PLAIN_TEMPLATE if config.prompt_template is None else config.prompt_template
        instruction = "" if config.prompt_template is None else config.instruction
        prompt = PromptFormat(template, False, instruction, **tokens, **settings)
        _check_settings(source, prompt)
        prompt = _with_special_tokens(prompt, tokenizer)
    if SAMPLE.text not in prompt.render(SAMPLE):
        raise ConfigError(
            "the prompt template leaves out the question; put {{ question }} into student.prompt_template"
        )
    return prompt


def _chat_template(source: str, tokenizer: FastTokenizer, name: str | None) -> str | None:
    """The tokenizer's chat template of a name, or its default; None if it has none.

    Raises:
        ConfigError: It has none of this name, or several and no default.
    """
    templates = tokenizer.chat_template or {}
    if isinstance(templates, str):
        templates = {"default": templates}
    if name is None and not templates:
        return None
    chosen: str | None = templates.get("default" if name is None else name)
    if chosen is None:
        found = f"chat templates {', '.join(sorted(templates))}" if templates else "no chat template"
        advice = "set student.chat_template to one of them" if templates else "leave out student.chat_template"
        raise ConfigError(f"{source}: its tokenizer has {found}, and none named {name or 'default'}; {advice}")
    return chosen


def _check_settings(source: str, prompt: PromptFormat) -> None:
    """Check that the template renders, and reads the system prompt and the options that are set.

    Raises:
        ConfigError: It does not render, or leaves one of them out.
    """
    kind = "its chat template" if prompt.is_chat else "its prompt template"
    try:
        rendered = prompt.render(SAMPLE)
    except ConfigError as error:
        other = replace(prompt, system_prompt="" if prompt.system_prompt else "You are a helpful assistant.")
        if not prompt.is_chat or _rendered(other) is None:
            raise
        if prompt.system_prompt:
            raise ConfigError(
                f"{source}: {kind} takes no system turn; move the text of student.system_prompt to student.instruction"
            ) from error
        raise ConfigError(f"{source}: {kind} requires a system turn; set student.system_prompt") from error
    unknown = sorted(prompt.template_options.keys() - prompt.options)
    if unknown:
        known = f"it reads {', '.join(sorted(prompt.options))}" if prompt.options else "it reads none"
        raise ConfigError(f"{source}: {kind} does not read {', '.join(unknown)} of student.template_options; {known}")
    if prompt.system_prompt and _rendered(replace(prompt, system_prompt="")) == rendered:
        raise ConfigError(
            f"{source}: {kind} does not read student.system_prompt; leave it out, or set student.prompt_template to a "
            "template with {{ system_prompt }}"
        )


def _rendered(prompt: PromptFormat) -> str | None:
    try:
        return prompt.render(SAMPLE)
    except ConfigError:
        return None


def _check_chat(source: str, prompt: PromptFormat, tokenizer: FastTokenizer) -> None:
    rendered = prompt.render(SAMPLE)
    expected = tokenizer.apply_chat_template(
        prompt.messages(SAMPLE), tokenize=False, add_generation_prompt=True, **prompt.template_options
    )
    if rendered != expected:
        raise ModelError(
            f"{source}: its chat template renders differently here ({rendered[:60]!r} …) than in transformers "
            f"({expected[:60]!r} …); set student.prompt_template"
        )


def _settled(template: str) -> str:
    """Make a chat template render the same everywhere and every day.

    `strftime_now` becomes a fixed date, and transformers' own `{% generation %}` marks, which change nothing in a
    prompt, become plain conditions that jinja2 knows.
    """
    marks = re.sub(r"\{%([-+]?)\s*generation\s*([-+]?)%\}", r"{%\1 if true \2%}", template)
    marks = re.sub(r"\{%([-+]?)\s*endgeneration\s*([-+]?)%\}", r"{%\1 endif \2%}", marks)
    return re.sub(
        r"strftime_now\(\s*(['\"])(.*?)\1\s*\)", lambda match: repr(TEMPLATE_DATE.strftime(match.group(2))), marks
    )


def _with_special_tokens(prompt: PromptFormat, tokenizer: FastTokenizer) -> PromptFormat:
    """Let the tokenizer add its special tokens if they all come first; otherwise write the first ones in the template.

    After a tokenizer that appends the end token, the student would have to explain a finished text.
    """
    text = prompt.render(SAMPLE)
    if prompt.bos_token and text.startswith(prompt.bos_token):
        return replace(prompt, add_special_tokens=False)
    bare = tokenizer(text, add_special_tokens=False)["input_ids"]
    full = tokenizer(text, add_special_tokens=True)["input_ids"]
    if full[len(full) - len(bare) :] == bare:
        return replace(prompt, add_special_tokens=True)
    has_bos = full[0] == tokenizer.bos_token_id
    template = "{{ bos_token }}" + prompt.template if has_bos else prompt.template
    return replace(prompt, template=template, add_special_tokens=False)


def _token_ids(source: str, model: PreTrainedModel, tokenizer: FastTokenizer) -> GenerationConfig:
    """The end, begin and padding tokens; sets the tokenizer's end and padding tokens if it has none.

    Raises:
        ModelError: No end-of-sequence token is named anywhere: the student could never stop.
    """
    named = [_as_list(getattr(config, "eos_token_id", None)) for config in (model.generation_config, model.config)]
    eos_ids = list(dict.fromkeys([*_as_list(tokenizer.eos_token_id), *named[0], *named[1]]))
    if not eos_ids:
        raise ModelError(f"{source}: no end-of-sequence token; name one as eos_token in its tokenizer_config.json")
    if tokenizer.eos_token is None:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(eos_ids[0])
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return GenerationConfig(
        eos_token_id=eos_ids[0] if len(eos_ids) == 1 else eos_ids,
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _as_list(ids: int | list[int] | None) -> list[int]:
    if ids is None:
        return []
    return [ids] if isinstance(ids, int) else list(ids)


def _check_vocabulary(source: str, model: PreTrainedModel, tokenizer: FastTokenizer) -> None:
    rows = model.get_input_embeddings().num_embeddings
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if largest >= rows:
        raise ModelError(
            f"{source}: its tokenizer gives ids up to {largest}, the model has embeddings for {rows}; "
            "the tokenizer belongs to another model"
        )
