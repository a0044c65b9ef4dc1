"""What transformers 5 saved, translated to 4.57: the frequencies are those that transformers 5.24 computes."""

import json
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import torch
from fixtures.students import make_student
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from edgeelad.config import StudentConfig
from edgeelad.errors import ModelError
from edgeelad.training import prepare_student
from edgeelad.training.support import transformers_major
from edgeelad.training.translate import UntranslatableError, translate_config, translate_tokenizer

pytestmark = pytest.mark.skipif(transformers_major() >= 5, reason="transformers 5 reads its own files")

SIZES = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2, "max_position_embeddings": 128}
LLAMA3_FREQUENCIES = [
    1.0, 0.0242403448, 0.00470075384, 0.000911583134, 0.000176776681, 3.42810235e-05, 6.64786967e-06, 1.28917316e-06,
]  # fmt: skip
YARN_FREQUENCIES = [
    1.0, 0.0444569848, 0.00790569466, 0.00140585331, 0.000250000012, 4.44569851e-05, 7.90569356e-06, 1.40585337e-06,
]  # fmt: skip
# rope_parameters as transformers 5.24 saves them, then inv_freq and the attention's scaling in its models
ROPES: dict[str, tuple[str, dict[str, Any], list[float], float]] = {
    "theta 1e5": (
        "llama",
        {"rope_theta": 1e5, "rope_type": "default"},
        [1.0, 0.237137362, 0.0562341288, 0.0133352149, 0.00316227786, 0.000749894185, 0.00017782794, 4.21696532e-05],
        1.0,
    ),
    "theta 1e6": (
        "qwen2",
        {"rope_theta": 1e6, "rope_type": "default"},
        [1.0, 0.177827939, 0.0316227786, 0.00562341325, 0.00100000005, 0.00017782794, 3.16227743e-05, 5.62341347e-06],
        1.0,
    ),
    "llama3": (
        "llama",
        {"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 32}
        | {"rope_theta": 5e5, "rope_type": "llama3"},
        LLAMA3_FREQUENCIES,
        1.0,
    ),
    "yarn": (
        "llama",
        {"factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 1e6, "rope_type": "yarn"},
        YARN_FREQUENCIES,
        1.138629436111989,
    ),
    "yarn without a factor": (
        "llama",
        {"factor": None, "original_max_position_embeddings": 32, "rope_theta": 1e6, "rope_type": "yarn"},
        YARN_FREQUENCIES,
        1.138629436111989,
    ),
    "linear": (
        "llama",
        {"factor": 2.0, "rope_theta": 1e4, "rope_type": "linear"},
        [0.5, 0.158113882, 0.0500000007, 0.0158113893, 0.00499999989, 0.00158113893, 0.000500000024, 0.000158113893],
        1.0,
    ),
    "longrope": (
        "phi3",
        {"original_max_position_embeddings": 64, "partial_rotary_factor": 1.0, "rope_theta": 1e4}
        | {"rope_type": "longrope", "long_factor": [2.0] * 8, "short_factor": [1 + i / 10 for i in range(8)]},
        [1.0, 0.287479758, 0.0833333358, 0.0243252143, 0.00714285718, 0.00210818532, 0.000624999986, 0.000186016332],
        1.0801234497346435,
    ),
    "a part of each head, theta under another name": (
        "gpt_neox",
        {"rope_theta": 5e4, "rope_type": "default", "partial_rotary_factor": 0.25},
        [1.0, 0.00447213603],
        1.0,
    ),
    "a part of each head": (
        "stablelm",
        {"rope_theta": 1e5, "rope_type": "default", "partial_rotary_factor": 0.5},
        [1.0, 0.0562341288, 0.00316227786, 0.00017782794],
        1.0,
    ),
}


def accepted(model_type: str) -> frozenset[str]:
    return frozenset(signature(CONFIG_MAPPING[model_type].__init__).parameters)


@pytest.mark.parametrize("name", ROPES)
def test_the_frequencies_are_those_of_transformers_5(name: str) -> None:
    model_type, rope, expected, scaling = ROPES[name]
    data = {"model_type": model_type, **SIZES, "rope_parameters": rope}
    translated = translate_config(data, accepted(model_type))
    assert "rope_parameters" not in translated
    config = CONFIG_MAPPING[model_type].from_dict(translated)
    settings = config.rope_scaling or {}
    found, found_scaling = ROPE_INIT_FUNCTIONS[settings.get("rope_type", settings.get("type", "default"))](
        config, "cpu"
    )
    assert torch.allclose(found, torch.tensor(expected), rtol=1e-6, atol=0)
    assert found_scaling == pytest.approx(scaling)
    assert data["rope_parameters"] is rope  # what was given is left as it is


def test_longrope_scales_by_its_own_factor() -> None:
    """4.57 always takes the ratio of the two contexts, 2; transformers 5 takes the factor: √(1 + ln 4 / ln 64)."""
    rope = {"original_max_position_embeddings": 64, "rope_theta": 1e4, "rope_type": "longrope", "factor": 4.0}
    rope |= {"long_factor": [2.0] * 8, "short_factor": [1.0] * 8}
    translated = translate_config({"model_type": "llama", **SIZES, "rope_parameters": rope}, accepted("llama"))
    assert translated["rope_scaling"]["attention_factor"] == pytest.approx(1.1547005)
    assert translated["original_max_position_embeddings"] == 64
    with pytest.raises(UntranslatableError, match="a factor of its own"):
        translate_config({"model_type": "phi3", **SIZES, "rope_parameters": rope}, accepted("phi3"))


def test_layer_types_with_their_own_parameters() -> None:
    full, sliding = {"rope_theta": 1e6, "rope_type": "default"}, {"rope_theta": 1e4, "rope_type": "default"}
    by_type = {"full_attention": full, "sliding_attention": sliding}
    gemma = translate_config({"model_type": "gemma3_text", "rope_parameters": by_type}, accepted("gemma3_text"))
    assert (gemma["rope_theta"], gemma["rope_local_base_freq"], gemma["rope_scaling"]) == (1e6, 1e4, None)
    same = {"full_attention": full, "sliding_attention": full}
    assert translate_config({"rope_parameters": same}, accepted("qwen3"))["rope_theta"] == 1e6
    with pytest.raises(UntranslatableError, match=r"differ by layer type \(full_attention, sliding_attention\)"):
        translate_config({"rope_parameters": by_type}, accepted("qwen3"))
    scaled = {"full_attention": full, "sliding_attention": {**sliding, "rope_type": "linear", "factor": 2.0}}
    with pytest.raises(UntranslatableError, match="differ by layer type"):
        translate_config({"rope_parameters": scaled}, accepted("gemma3_text"))


@pytest.mark.parametrize(
    ("model_type", "data", "told"),
    [
        ("llama", {"rope_parameters": {"rope_type": "proportional"}}, "'proportional' is unknown"),
        (
            "llama",
            {"rope_parameters": {"partial_rotary_factor": 0.5}},
            "partial_rotary_factor = 0.5, which 4.57",
        ),
        ("gpt2", {"rope_parameters": {"rope_theta": 1e5}}, "rope_theta = 100000.0, which 4.57 does not read"),
        ("llama", {"rope_theta": 1e4, "rope_parameters": {"rope_theta": 1e5}}, "rope_theta = 10000.0, and 100000.0 in"),
        ("llama", {"rope_parameters": [1e5]}, "not an object"),
        ("llama", {"rope_parameters": {"rope_type": "longrope", "long_factor": [1.0]}}, "original_max_position_emb"),
    ],
)
def test_what_4_57_cannot_express_is_refused(model_type: str, data: dict[str, Any], told: str) -> None:
    with pytest.raises(UntranslatableError, match=told):
        translate_config(data, accepted(model_type))


def test_other_configurations_stay_as_they_are() -> None:
    for data in ({"model_type": "gpt2", "n_embd": 64}, {"rope_theta": 1e5, "rope_scaling": None}):
        assert translate_config(data, accepted("llama")) == data


def test_tokenizer_settings() -> None:
    assert translate_tokenizer({"tokenizer_class": "GPT2Tokenizer", "extra_special_tokens": {"image": "<i>"}}) == {}
    assert translate_tokenizer({"tokenizer_class": "TokenizersBackend"}) == {"extra_special_tokens": {}}
    new = {"tokenizer_class": "Qwen2Tokenizer", "backend": "tokenizers", "extra_special_tokens": ["<a>", "<b>"]}
    assert translate_tokenizer(new) == {"extra_special_tokens": {}, "additional_special_tokens": ["<a>", "<b>"]}
    named = {"backend": "tokenizers", "model_specific_special_tokens": {"image_token": "<i>"}}
    assert translate_tokenizer(named) == {"extra_special_tokens": {"image_token": "<i>"}}


def as_transformers_5(folder: Path, rope: dict[str, Any]) -> Path:
    """Rewrite the files of a student folder in the form in which transformers 5.24 saves them."""
    config = json.loads((folder / "config.json").read_text())
    for key in ("rope_theta", "rope_scaling"):
        config.pop(key)
    config |= {"rope_parameters": rope, "transformers_version": "5.24.0", "dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(config))
    tokens = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
    settings = {"backend": "tokenizers", "tokenizer_class": "TokenizersBackend", "extra_special_tokens": ["<pad>"]}
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, **tokens}))
    for name in ("special_tokens_map.json", "prompt.json"):
        (folder / name).unlink()
    return folder


def test_a_student_that_transformers_5_saved_is_the_same_student(tmp_path: Path) -> None:
    """It was loaded with theta 10,000, and its tokenizer's class did not exist."""
    raw = as_transformers_5(make_student(tmp_path / "raw"), {"rope_theta": 1e6, "rope_type": "default"})
    out = prepare_student(str(raw), tmp_path / "student", StudentConfig(model=str(raw)))
    config = AutoConfig.from_pretrained(out)
    assert config.rope_theta == 1e6
    assert not hasattr(config, "rope_parameters")
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<bos>", "<eos>", "<pad>")
    assert tokenizer.additional_special_tokens == ["<pad>"]
    ids = torch.arange(3, 43)[None]
    found = AutoModelForCausalLM.from_pretrained(out)(input_ids=ids).logits
    reference = AutoModelForCausalLM.from_pretrained(make_student(tmp_path / "same"), rope_theta=1e6)
    assert torch.allclose(found, reference(input_ids=ids).logits, atol=1e-5)


def test_a_student_that_cannot_be_translated_is_refused_in_one_line(tmp_path: Path) -> None:
    raw = as_transformers_5(make_student(tmp_path / "raw"), {"rope_theta": 1e6, "rope_type": "proportional"})
    with pytest.raises(ModelError, match=r"saved by transformers 5: .*'proportional'.*choose another model") as caught:
        prepare_student(str(raw), tmp_path / "student", StudentConfig(model=str(raw)))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "student").exists()
