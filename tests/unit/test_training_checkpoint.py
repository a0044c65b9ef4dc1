"""Checkpoints that are not what their config.json says: each was taught and exported without a word."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fixtures.students import make_student
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from edgeelad.config import StudentConfig
from edgeelad.errors import ModelError
from edgeelad.training import prepare_student
from edgeelad.training.load import load_model


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = make_student(tmp_path / "raw")
    (folder / "prompt.json").unlink()
    return folder


def prepare(source: Path) -> Path:
    return prepare_student(str(source), source.with_name("student"), StudentConfig(model=str(source)))


def refusal(source: Path) -> str:
    with pytest.raises(ModelError) as caught:
        prepare(source)
    assert "\n" not in str(caught.value)
    assert not source.with_name("student").exists()
    return str(caught.value)


def change_weights(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> Path:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def change_config(folder: Path, **changes: object) -> Path:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return folder


def test_a_classifier(raw: Path) -> None:
    AutoModelForSequenceClassification.from_pretrained(raw).save_pretrained(raw)
    assert "was saved as LlamaForSequenceClassification, not as a causal language model" in refusal(raw)


def test_a_classifier_that_does_not_say_so(raw: Path) -> None:
    AutoModelForSequenceClassification.from_pretrained(raw).save_pretrained(raw)
    assert "lacks 1 of the weights in its safetensors, such as score.weight" in refusal(
        change_config(raw, architectures=["LlamaForCausalLM"])
    )


def test_a_head_that_the_configuration_says_is_tied(raw: Path) -> None:
    other = torch.randn(400, 64)
    change_weights(raw, lambda weights: weights.update({"lm_head.weight": other}))
    assert "safetensors hold a lm_head.weight of its own; set tie_word_embeddings to false" in refusal(raw)
    model = AutoModelForCausalLM.from_pretrained(prepare(change_config(raw, tie_word_embeddings=False)))
    assert torch.equal(model.lm_head.weight, other)


def test_a_tied_head_that_was_saved_as_well(raw: Path) -> None:
    change_weights(
        raw, lambda weights: weights.update({"lm_head.weight": weights["model.embed_tokens.weight"].clone()})
    )
    assert prepare(raw).is_dir()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers(raw: Path, value: float) -> None:
    change_weights(raw, lambda weights: weights["model.norm.weight"][5:6].fill_(value))
    assert "model.norm.weight contains NaN or infinity; choose another checkpoint" in refusal(raw)


@pytest.mark.parametrize(("changes", "told"), [
    ({"vocab_size": 300}, "tokens.weight is [400, 64] in its safetensors, and [300, 64] by its config.json; correct"),
    ({"vocab_size": 500}, "[400, 64] in its safetensors, and [500, 64] by its config.json; correct vocab_size"),
    ({"intermediate_size": 100}, "0.mlp.down_proj.weight is [64, 128] in its safetensors, and [64, 100] by its config"),
    ({"num_hidden_layers": 3}, "9 weights are missing from its safetensors, the first model.layers.2."),
    ({"num_hidden_layers": 1}, "lacks 9 of the weights in its safetensors, such as model.layers.1."),
])  # fmt: skip
def test_a_configuration_of_another_size(raw: Path, changes: dict[str, int], told: str) -> None:
    assert told in refusal(change_config(raw, **changes))


def test_a_tokenizer_whose_special_tokens_are_unknown(raw: Path) -> None:
    (raw / "tokenizer_config.json").unlink()
    assert "no tokenizer_config.json in this folder, so its special tokens are unknown" in refusal(raw)


def test_a_folder_without_a_tokenizer(raw: Path) -> None:
    (raw / "tokenizer.json").unlink()
    assert "no tokenizer.json in this folder" in refusal(raw)


def make_adapter(raw: Path, folder: Path) -> torch.Tensor:
    """Save a LoRA adapter of the student; returns the logits of the two together."""
    torch.manual_seed(0)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(raw),
        LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False),
    )
    model.save_pretrained(folder)
    with torch.inference_mode():
        logits: torch.Tensor = model.eval()(input_ids=torch.arange(3, 33)[None]).logits
    return logits


def test_an_adapter_is_merged_into_its_base(raw: Path, tmp_path: Path) -> None:
    expected = make_adapter(raw, tmp_path / "adapter")
    out = prepare(tmp_path / "adapter")
    with torch.inference_mode():
        model = AutoModelForCausalLM.from_pretrained(out).eval()
        assert torch.allclose(model(input_ids=torch.arange(3, 33)[None]).logits, expected, atol=1e-4)
        base = AutoModelForCausalLM.from_pretrained(raw).eval()
        assert not torch.allclose(base(input_ids=torch.arange(3, 33)[None]).logits, expected, atol=1e-2)
    assert not list(out.glob("adapter*"))


def test_adapters_that_cannot_be_merged(raw: Path, tmp_path: Path) -> None:
    make_adapter(raw, tmp_path / "adapter")
    settings = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    for base, told in (
        (None, "names no base_model_name_or_path"),
        (str(tmp_path / "gone"), "gone: no such folder"),
        (str(tmp_path / "adapter"), "holds an adapter itself"),
    ):
        changed = {**settings, "base_model_name_or_path": base}
        (tmp_path / "adapter/adapter_config.json").write_text(json.dumps(changed))
        assert told in refusal(tmp_path / "adapter")
    prompts = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    get_peft_model(AutoModelForCausalLM.from_pretrained(raw), prompts).save_pretrained(tmp_path / "prompts")
    assert "this adapter cannot be merged into its base model" in refusal(tmp_path / "prompts")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda key: key.replace("model.layers", "model.language_model.layers"),
            "lacks 4, such as base_model.model.",
        ),
        (
            lambda key: key.replace("layers.1.", "layers.0."),
            "lacks 2, such as base_model.model.",
        ),
        (
            lambda key: [key, key.replace("layers.1.", "layers.2.")],
            "has too many: 2, such as base_model.model.",
        ),
    ],
)
def test_an_adapter_of_another_model(
    raw: Path, tmp_path: Path, change: Callable[[str], str | list[str]], told: str
) -> None:
    """Peft leaves out what does not fit: the base alone would be taught."""
    make_adapter(raw, tmp_path / "adapter")
    path = tmp_path / "adapter/adapter_model.safetensors"
    changed = {}
    for key, value in load_file(path).items():
        names = change(key)
        changed |= {name: value.clone() for name in ([names] if isinstance(names, str) else names)}
    save_file(changed, path, metadata={"format": "pt"})
    assert told in refusal(tmp_path / "adapter")


def test_an_adapter_with_a_weight_that_is_no_number(raw: Path, tmp_path: Path) -> None:
    make_adapter(raw, tmp_path / "adapter")
    path = tmp_path / "adapter/adapter_model.safetensors"
    weights = load_file(path)
    next(iter(weights.values())).fill_(float("nan"))
    save_file(weights, path, metadata={"format": "pt"})
    assert "q_proj.weight contains NaN or infinity; choose another checkpoint" in refusal(tmp_path / "adapter")


def test_an_adapter_beside_a_model(raw: Path) -> None:
    make_adapter(raw, raw)
    assert "holds a model and an adapter; move adapter_config.json" in refusal(raw)


@pytest.mark.parametrize(
    "settings",
    [
        {"_attn_implementation_internal": "stranger/kernel"},
        {"_attn_implementation": "stranger/kernel@main:forward"},
        {"attn_implementation": {"": "sdpa", "text": "stranger/kernel"}},
        {"text_config": {"sub": [{"_experts_implementation_internal": "stranger/kernel"}]}},
        {"model_type": "lightglue", "trust_remote_code": True},
    ],
)
def test_a_configuration_that_asks_for_code(raw: Path, settings: dict[str, Any]) -> None:
    """Transformers 4.57 fetches and runs such code although trust_remote_code is false."""
    assert "asks for code from a repository" in refusal(change_config(raw, **settings))
    with pytest.raises(ModelError, match="asks for code from a repository"):
        load_model(str(raw))


def test_generation_code_in_the_folder_is_not_run(raw: Path, tmp_path: Path) -> None:
    """Transformers 4.57 runs it when it loads the folder."""
    (raw / "custom_generate").mkdir()
    (raw / "custom_generate/generate.py").write_text(
        f"open({str(tmp_path / 'run')!r}, 'w')\ndef generate(model): ...\n"
    )
    out = prepare(raw)
    assert not (tmp_path / "run").exists()
    assert not (out / "custom_generate").exists()
    model = load_model(str(raw))
    assert not (tmp_path / "run").exists()
    assert "generate" not in vars(model)


def test_names_of_chat_templates_are_no_paths(raw: Path, tmp_path: Path) -> None:
    """Transformers 4.57 writes each of several templates to a file named after it."""
    templates = [{"name": name, "template": "{{ messages }}"} for name in ("default", "../../../outside")]
    path = raw / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": templates}))
    (raw / "chat_template.jinja").unlink(missing_ok=True)
    out = raw.parent / "deep" / "student"
    prepare_student(str(raw), out, StudentConfig(prompt_template="{{ question }}"))
    assert not list(raw.parent.rglob("outside*"))
    assert not (out / "additional_chat_templates").exists()


def test_an_adapter_with_pickled_weights(raw: Path, tmp_path: Path) -> None:
    make_adapter(raw, tmp_path / "adapter")
    weights = load_file(tmp_path / "adapter/adapter_model.safetensors")
    torch.save(weights, tmp_path / "adapter/adapter_model.bin")
    (tmp_path / "adapter/adapter_model.safetensors").unlink()
    assert "no adapter_model.safetensors (pickled weights are never read)" in refusal(tmp_path / "adapter")
