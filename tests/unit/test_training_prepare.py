"""A student folder: what prepare_student writes, the prompt that it chooses, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from fixtures.students import BOS_TOKEN, EOS_TOKEN, FAMILIES, PAD_TOKEN, Family, make_student, make_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from edgeelad.config import StudentConfig
from edgeelad.engine.codec import Codec
from edgeelad.errors import ConfigError, MissingExtraError, ModelError, StorageError
from edgeelad.records import Question
from edgeelad.text.prompts import PLAIN_TEMPLATE, PromptFormat, question_text
from edgeelad.training import prepare_student
from edgeelad.training.extra import distill_extra
from edgeelad.training.load import load_tokenizer
from edgeelad.training.prepare import choose_prompt
from edgeelad.training.support import has_optimum, transformers_major

QWEN2 = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
LLAMA3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + "
    "message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
    "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
LLAMA32 = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\\n" }}
{%- endif %}
{{- "Cutting Knowledge Date: December 2023\\nToday Date: " + date_string + "\\n\\n<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou "
    "are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + "
    "message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SMOLLM3 = """{%- for message in messages -%}
    {%- if message.role == "user" -%}
        {{ "<|im_start|>user\\n" + message.content + "<|im_end|>\\n" }}
    {%- elif message.role == "assistant" -%}
        {% generation %}
        {{ "<|im_start|>assistant\\n" + message.content + "<|im_end|>\\n" }}
        {% endgeneration %}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ "<|im_start|>assistant\\n" }}
{%- endif -%}
"""
TEMPLATES = {"qwen2": QWEN2, "llama3": LLAMA3, "llama3.2": LLAMA32, "smollm2": SMOLLM2, "smollm3": SMOLLM3}
QUESTIONS = (
    Question("plain", "Tom has 3 apples and buys 4 more. How many apples does Tom have?"),
    Question("markup", "  Is 3 < 4 & 5 > 2? {{ 7 * 7 }} {% if %} <b>\"yes\"</b> 'no'\n\n"),
    Question("choice", "Wie groß ist 1 €?", kind="choice", choices=("100 ct", "10 ct", "日本")),
)


def byte_tokenizer(*, adds_bos: bool = False) -> PreTrainedTokenizerFast:
    backend = make_tokenizer(has_bos=adds_bos)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=BOS_TOKEN, eos_token=EOS_TOKEN, pad_token=PAD_TOKEN
    )


def write_raw_model(folder: Path, family: Family = "llama") -> Path:
    """A model as its author would publish it: no prompt.json."""
    make_student(folder, family, has_bos=family == "llama")
    (folder / "prompt.json").unlink()
    return folder


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_raw_model(tmp_path_factory.mktemp("raw") / "llama")


@pytest.fixture
def model(raw: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(raw)


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("instruction", ["", StudentConfig().instruction])
def test_a_chat_prompt_is_byte_for_byte_what_transformers_renders(name: str, instruction: str) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = TEMPLATES[name]
    prompt = choose_prompt("here", tokenizer, StudentConfig(instruction=instruction))
    assert prompt.is_chat
    for question in QUESTIONS:
        content = f"{instruction}\n\n{question_text(question)}" if instruction else question_text(question)
        expected = tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        assert prompt.render(question) == expected


NO_THINKING = """{%- for m in messages %}<|{{ m.role }}|>{{ m.content }}{%- endfor %}
{%- if add_generation_prompt %}<|assistant|>{%- if enable_thinking is defined and not enable_thinking %}<think></think>
{%- endif %}{%- for name in skip %}[{{ name }}]{%- endfor %}{%- endif %}"""
REQUIRED_SYSTEM = (
    "{% if messages[0].role != 'system' %}{{ raise_exception('first turn must be system') }}{% endif %}"
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
)
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
)


@pytest.mark.parametrize(
    ("template", "settings"),
    [
        (SMOLLM2, {"system_prompt": "You are a tutor, aren't you?"}),
        (LLAMA3, {"system_prompt": "Bitte auf Deutsch: Größe."}),
        (REQUIRED_SYSTEM, {"system_prompt": "Be brief."}),
        (NO_THINKING, {"template_options": {"enable_thinking": False, "skip": ["a", "b"]}}),
        (NO_THINKING, {"template_options": {"enable_thinking": True}, "system_prompt": "Be brief."}),
    ],
)
def test_system_turns_and_options_render_as_in_transformers(
    template: str, settings: dict[str, Any], model: PreTrainedModel, tmp_path: Path
) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    model.save_pretrained(tmp_path / "raw")
    tokenizer.save_pretrained(tmp_path / "raw")
    config = StudentConfig(**settings)
    student = prepare_student(str(tmp_path / "raw"), tmp_path / "student", config)
    codec, saved = (
        Codec.load(student),
        AutoTokenizer.from_pretrained(student),
    )  # as training, scoring and packages read it
    for question in QUESTIONS:
        turns = [("system", config.system_prompt)] if config.system_prompt else []
        turns.append(("user", f"{config.instruction}\n\n{question_text(question)}"))
        messages = [{"role": role, "content": content} for role, content in turns]
        expected = saved.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, **config.template_options
        )
        assert codec.prompt_format.render(question) == expected
        assert codec.encode_prompt(question) == saved(expected, add_special_tokens=False)["input_ids"]


def test_the_options_change_the_prompt() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = NO_THINKING
    plain = choose_prompt("here", tokenizer, StudentConfig())
    off = choose_prompt("here", tokenizer, StudentConfig(template_options={"enable_thinking": False}))
    assert off.render(QUESTIONS[0]) == plain.render(QUESTIONS[0]) + "<think></think>"
    assert plain.options == {"enable_thinking", "skip"}


@pytest.mark.parametrize(
    ("template", "settings", "told"),
    [
        (REQUIRED_SYSTEM, {}, "here: its chat template requires a system turn; set student.system_prompt"),
        (NO_SYSTEM, {"system_prompt": "x"}, "takes no system turn; move the text of student.system_prompt"),
        (
            NO_THINKING,
            {"template_options": {"enable_thinkin": False}},
            "does not read enable_thinkin .*reads enable_th",
        ),
        (
            SMOLLM2,
            {"template_options": {"messages": []}},
            "does not read messages of student.template_options; it reads n",
        ),
        ("{{ messages[-1].content }}", {"system_prompt": "x"}, "does not read student.system_prompt"),
        (None, {"system_prompt": "x"}, "its prompt template does not read student.system_prompt"),
        (None, {"chat_template": "rag"}, "its tokenizer has no chat template, and none named rag; leave out"),
        (
            SMOLLM2,
            {"chat_template": "rag"},
            "has chat templates default, and none named rag; set student.chat_template",
        ),
        (
            {"rag": SMOLLM2, "tool_use": QWEN2},
            {},
            "here: its tokenizer has chat templates rag, tool_use, and none named default; set student.chat_template",
        ),
    ],
)
def test_settings_that_a_template_does_not_read_are_refused(template: Any, settings: dict[str, Any], told: str) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(ConfigError, match=told) as caught:
        choose_prompt("here", tokenizer, StudentConfig(**settings))
    assert "\n" not in str(caught.value)


def test_one_of_several_chat_templates_is_chosen_and_saved(model: PreTrainedModel, tmp_path: Path) -> None:
    """Without a default, transformers' own error was a traceback."""
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = {"rag": SMOLLM2, "tool_use": QWEN2}
    model.save_pretrained(tmp_path / "raw")
    tokenizer.save_pretrained(tmp_path / "raw")
    student = prepare_student(str(tmp_path / "raw"), tmp_path / "student", StudentConfig(chat_template="rag"))
    assert PromptFormat.load(student).template == SMOLLM2
    assert AutoTokenizer.from_pretrained(student).chat_template == SMOLLM2
    tokenizer.chat_template = {"default": QWEN2, "rag": SMOLLM2}
    assert choose_prompt("here", tokenizer, StudentConfig()).template == QWEN2


def test_a_template_of_ones_own_reads_the_system_prompt_and_options() -> None:
    config = StudentConfig(
        prompt_template="{{ system_prompt }}|{{ question }}|{{ style }}",
        system_prompt="Be brief.",
        template_options={"style": "plain"},
    )
    prompt = choose_prompt("here", byte_tokenizer(), config)
    assert prompt.render(QUESTIONS[0]) == f"Be brief.|{QUESTIONS[0].text}|plain"
    both = StudentConfig(prompt_template="{{ question }}", chat_template="rag")
    with pytest.raises(ConfigError, match=r"prompt_template and student\.chat_template exclude each other"):
        choose_prompt("here", byte_tokenizer(), both)


@given(st.text(st.characters(exclude_categories=["Cs"])))
@settings(max_examples=60, deadline=None)
def test_whatever_is_asked_renders_as_in_transformers(text: str) -> None:
    tokenizer = _SHARED
    prompt = PromptFormat(QWEN2, True, "", BOS_TOKEN, EOS_TOKEN, False)
    expected = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
    )
    assert prompt.render(Question("q", text)) == expected


_SHARED = byte_tokenizer()
_SHARED.chat_template = QWEN2


def test_marks_and_dates_of_a_template_are_settled_and_nothing_else() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = LLAMA32
    rendered = choose_prompt("here", tokenizer, StudentConfig()).render(QUESTIONS[0])
    assert "Today Date: 26 Jul 2024" in rendered
    assert "Environment" not in rendered  # tools are none, as in transformers, not undefined
    for name in ("qwen2", "llama3", "smollm2"):
        tokenizer.chat_template = TEMPLATES[name]
        assert choose_prompt("here", tokenizer, StudentConfig()).template == TEMPLATES[name]


def test_an_explicit_template_comes_before_the_chat_template_which_comes_before_the_plain_prompt() -> None:
    tokenizer = byte_tokenizer()
    assert choose_prompt("here", tokenizer, StudentConfig()).template == PLAIN_TEMPLATE
    tokenizer.chat_template = SMOLLM2
    assert choose_prompt("here", tokenizer, StudentConfig()).template == SMOLLM2
    explicit = choose_prompt("here", tokenizer, StudentConfig(prompt_template="Q: {{ question }}\nA:\n"))
    assert (explicit.template, explicit.is_chat) == ("Q: {{ question }}\nA:\n", False)


def test_a_template_without_the_question_or_not_valid_is_refused() -> None:
    with pytest.raises(ConfigError, match="leaves out the question"):
        choose_prompt("here", byte_tokenizer(), StudentConfig(prompt_template="Explain!"))
    with pytest.raises(ConfigError, match="not valid jinja2"):
        choose_prompt("here", byte_tokenizer(), StudentConfig(prompt_template="{{ question "))


def test_special_tokens_are_added_once_and_only_in_front() -> None:
    from tokenizers import processors

    tokenizer = byte_tokenizer(adds_bos=True)
    assert choose_prompt("here", tokenizer, StudentConfig()).add_special_tokens
    with_bos = choose_prompt("here", tokenizer, StudentConfig(prompt_template="{{ bos_token }}{{ question }}"))
    assert not with_bos.add_special_tokens  # the template writes it
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS_TOKEN} $A {EOS_TOKEN}", special_tokens=[(BOS_TOKEN, 1), (EOS_TOKEN, 2)]
    )
    both_ends = choose_prompt("here", tokenizer, StudentConfig())
    assert (both_ends.template, both_ends.add_special_tokens) == ("{{ bos_token }}" + PLAIN_TEMPLATE, False)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prepared_student_is_a_plain_folder_with_its_prompt(family: Family, tmp_path: Path) -> None:
    source = write_raw_model(tmp_path / "raw", family)
    student = prepare_student(str(source), tmp_path / "student", StudentConfig())
    expected = {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "prompt.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    if transformers_major() < 5:
        expected.add("special_tokens_map.json")
    assert {path.name for path in student.iterdir()} == expected
    before = AutoModelForCausalLM.from_pretrained(source).state_dict()
    after = AutoModelForCausalLM.from_pretrained(student).state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    codec, tokenizer = Codec.load(student), load_tokenizer(str(student))
    question = QUESTIONS[0]
    assert codec.encode_prompt(question) == tokenizer(codec.prompt_format.render(question))["input_ids"]
    assert codec.eos_ids == {2}
    assert (codec.encode_prompt(question)[0] == 1) == (family == "llama")


def test_a_chat_student_is_encoded_as_transformers_encodes_it(model: PreTrainedModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "raw")
    tokenizer = byte_tokenizer(adds_bos=True)
    tokenizer.chat_template = LLAMA3
    tokenizer.save_pretrained(tmp_path / "raw")
    student = prepare_student(str(tmp_path / "raw"), tmp_path / "student", StudentConfig(instruction=""))
    codec, saved = Codec.load(student), AutoTokenizer.from_pretrained(student)
    for question in QUESTIONS:
        messages = [{"role": "user", "content": question_text(question)}]
        rendered = saved.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        assert codec.encode_prompt(question) == saved(rendered, add_special_tokens=False)["input_ids"]


def test_a_prepared_student_keeps_its_prompt_when_it_is_prepared_again(raw: Path, tmp_path: Path) -> None:
    config = StudentConfig(prompt_template="Q: {{ question }}\nA:\n")
    first = prepare_student(str(raw), tmp_path / "first", config)
    second = prepare_student(str(first), tmp_path / "second", StudentConfig())
    assert PromptFormat.load(second) == PromptFormat.load(first)


def test_a_prepared_student_takes_another_system_prompt(model: PreTrainedModel, tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = SMOLLM2
    model.save_pretrained(tmp_path / "raw")
    tokenizer.save_pretrained(tmp_path / "raw")
    first = prepare_student(str(tmp_path / "raw"), tmp_path / "first", StudentConfig(system_prompt="One."))
    kept = prepare_student(str(first), tmp_path / "kept", StudentConfig())
    assert PromptFormat.load(kept).system_prompt == "One."
    second = prepare_student(str(first), tmp_path / "second", StudentConfig(system_prompt="Two."))
    assert PromptFormat.load(second).system_prompt == "Two."


def test_all_end_tokens_count_and_sampling_settings_do_not_stay(model: PreTrainedModel, tmp_path: Path) -> None:
    model.generation_config = GenerationConfig(eos_token_id=[7, 8], temperature=0.6, top_p=0.9, do_sample=True)
    model.save_pretrained(tmp_path / "raw")
    byte_tokenizer().save_pretrained(tmp_path / "raw")
    student = prepare_student(str(tmp_path / "raw"), tmp_path / "student", StudentConfig())
    saved = json.loads((student / "generation_config.json").read_text())
    assert saved["eos_token_id"] == [2, 7, 8]
    assert "temperature" not in saved
    assert "do_sample" not in saved
    assert Codec.load(student).eos_ids == {2, 7, 8}


def test_a_bfloat16_student_is_saved_in_float32(model: PreTrainedModel, tmp_path: Path) -> None:
    model.to(torch.bfloat16).save_pretrained(tmp_path / "raw")
    byte_tokenizer().save_pretrained(tmp_path / "raw")
    student = prepare_student(str(tmp_path / "raw"), tmp_path / "student", StudentConfig())
    assert json.loads((student / "config.json").read_text())["dtype"] == "float32"


def _refused(folder: Path | str, tmp_path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        prepare_student(str(folder), tmp_path / "student", StudentConfig())
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(folder))
    assert not (tmp_path / "student").exists()
    return message


def _with_config(raw: Path, tmp_path: Path, **changes: object) -> Path:
    folder = tmp_path / "changed"
    folder.mkdir()
    for path in raw.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return folder


def test_a_missing_folder_a_file_and_an_empty_folder_are_refused(raw: Path, tmp_path: Path) -> None:
    assert "no such folder" in _refused(tmp_path / "nothing", tmp_path)
    assert "not a model folder" in _refused(raw / "config.json", tmp_path)
    (tmp_path / "empty").mkdir()
    assert "no config.json" in _refused(tmp_path / "empty", tmp_path)


def test_a_hub_id_that_cannot_be_fetched_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "cannot be fetched from the Hugging Face Hub" in _refused("nobody/nothing", tmp_path)


def test_pickled_weights_are_never_read(raw: Path, model: PreTrainedModel, tmp_path: Path) -> None:
    folder = _with_config(raw, tmp_path)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    assert "no safetensors" in _refused(folder, tmp_path)


def test_damaged_and_incomplete_weights_are_refused(raw: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = _with_config(raw, tmp_path)
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    del tensors["model.norm.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})
    assert "1 weights are missing from its safetensors, the first model.norm.weight" in _refused(folder, tmp_path)
    weights.write_bytes(weights.read_bytes()[:5000])
    assert "damaged safetensors" in _refused(folder, tmp_path)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model_type": "unheard_of"}, "does not know model type 'unheard_of'; served are, with fused graphs: llama,"),
        ({"model_type": "qwen3_5_text"}, "served are, with fused graphs: llama, qwen2,"),
        ({"model_type": "bart"}, "not a causal language model"),
        ({"model_type": "t5"}, "weights are missing" if has_optimum() else "exported to ONNX here"),
        ({"model_type": "reformer"}, "model type 'reformer' cannot be exported"),
        ({"model_type": "mamba"}, "its layers keep a convolution or recurrent state"),
        ({"model_type": "jamba"}, "its layers keep a convolution or recurrent state"),
        ({"model_type": "lfm2"}, "its layers keep a convolution or recurrent state"),
        ({"model_type": "qwen3_next"}, "its layers keep a convolution or recurrent state"),
        ({"model_type": "granitemoehybrid"}, "its layers keep a convolution or recurrent state"),
        ({"model_type": "mixtral"}, "a mixture of experts); served are, with fused graphs: llama, qwen2,"),
        ({"model_type": "gemma3"}, "'gemma3' is multimodal; choose a text model; served are, with fused graphs: llama"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "weights are quantized"),
        ({"num_hidden_layers": 3}, "weights are missing"),
        ({"hidden_size": 32}, "[400, 64] in its safetensors, and [400, 32] by its config.json; correct the sizes"),
        ({"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}, "code from its repository"),
    ],
)
def test_models_that_cannot_be_students_are_refused(
    raw: Path, tmp_path: Path, changes: dict[str, object], reason: str
) -> None:
    assert reason in _refused(_with_config(raw, tmp_path, **changes), tmp_path)


def test_a_tokenizer_must_be_there_be_fast_and_belong_to_the_model(raw: Path, tmp_path: Path) -> None:
    folder = _with_config(raw, tmp_path)
    larger = byte_tokenizer()
    larger.add_tokens([f"<extra {i}>" for i in range(100)])
    larger.save_pretrained(folder)
    assert "belongs to another model" in _refused(folder, tmp_path)
    (folder / "tokenizer.json").unlink()
    for name in ("PreTrainedTokenizerFast", "LlamaTokenizer", "GPT2Tokenizer"):
        (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name, "eos_token": "</s>"}))
        assert "no tokenizer.json in this folder" in _refused(folder, tmp_path)
    for path in folder.glob("*token*"):
        path.unlink()
    _refused(folder, tmp_path)


def test_a_slow_tokenizer_is_refused(raw: Path, tmp_path: Path) -> None:
    folder = _with_config(raw, tmp_path)
    for path in folder.glob("*token*"):
        path.unlink()
    # a character-level tokenizer of transformers that has no fast form
    (folder / "vocab.json").write_text(json.dumps({"[GO]": 0, "[s]": 1, "a": 2, "b": 3}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "MgpstrTokenizer"}))
    assert "no fast form" in _refused(folder, tmp_path)


def test_a_student_that_could_never_stop_is_refused(model: PreTrainedModel, tmp_path: Path) -> None:
    model.config.eos_token_id = None
    model.generation_config.eos_token_id = None
    model.save_pretrained(tmp_path / "raw")
    tokenizer = byte_tokenizer()
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path / "raw")
    assert "no end-of-sequence token" in _refused(tmp_path / "raw", tmp_path)


def test_a_folder_that_cannot_be_written_is_named(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        prepare_student(str(raw), tmp_path / "file" / "student", StudentConfig())


def test_a_missing_library_is_named_with_the_command_that_installs_it() -> None:
    missing = pytest.raises(MissingExtraError, match=r"loading a student needs no_such_library.*edgeelad\[distill\]")
    with missing, distill_extra("loading a student"):
        import no_such_library  # type: ignore[import-not-found]  # noqa: F401
