"""Which students can be taught here: families that have fused graphs, and those that Optimum exports as they are."""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from importlib.metadata import version
from typing import Any

# model types that GroupQueryAttention expresses (`export.fused.families` looks at their settings as well)
FUSED_FAMILIES = (
    "llama",
    "qwen2",
    "qwen3",
    "gpt2",
    "mistral",
    "phi3",
    "smollm3",
    "olmo",
    "olmo2",
    "arcee",
    "granite",
    "gemma",
    "gemma3_text",
    "gemma2",
    "gpt_neox",
    "stablelm",
    "cohere",
    "cohere2",
    "glm",
    "glm4",
    "starcoder2",
    "helium",
    "nemotron",
)
# model types whose graph by Optimum runs on the plain generator
STANDARD_FAMILIES = (
    "gptj",
    "codegen",
    "gpt_neo",
    "opt",
    "bloom",
    "gpt_bigcode",
    "falcon",
    "mpt",
    "phi",
    "qwen3_moe",
    "gpt_oss",
)
# rotary kinds whose frequencies do not depend on the sequence's length, so that they can be traced once; those of
# longrope do not up to the original context, at which `engine.shape` caps the student's
STATIC_ROPE_TYPES = ("default", "linear", "llama3", "yarn", "longrope")
# settings of configurations whose layers cache more than keys and values, or have experts
STATEFUL_LAYERS = {"linear_attention", "conv", "mamba", "mamba2", "recurrent", "hybrid"}
STATEFUL_SETTINGS = (
    "mamba_d_state", "mamba_d_conv", "ssm_state_size", "state_size", "conv_L_cache", "lru_width",
    "linear_conv_kernel_dim", "attention_hidden_size",
)  # fmt: skip
EXPERT_SETTINGS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
# encoder-decoders that are served: their positions are relative, and their graphs have one layout
ENCODER_DECODERS = ("t5", "mt5")
EXPORT_TASK, SEQ2SEQ_TASK = "text-generation-with-past", "text2text-generation-with-past"


@lru_cache(maxsize=1)
def has_optimum() -> bool:
    """Whether Optimum's ONNX exporter is installed, with a transformers that it works with (below 5)."""
    try:
        is_installed = importlib.util.find_spec("optimum.exporters.onnx") is not None
    except ModuleNotFoundError:
        return False
    return is_installed and transformers_major() < 5


def transformers_major() -> int:
    """The major version of the installed transformers."""
    return int(version("transformers").partition(".")[0])


def unfused_reason(config: Any) -> str | None:
    """Why a student has no fused graph; None if it has one.

    Args:
        config: Its transformers configuration.
    """
    kind = config.model_type
    if kind not in FUSED_FAMILIES:
        return f"model type {kind}: {_kind_of_layers(config) or 'not a fused family'}"
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if kinds:
        return f"model type {kind} with layers of type {min(kinds)}"
    for rope in _rope_settings(config):
        rope_type = rope.get("rope_type", rope.get("type", "default"))
        if rope_type not in STATIC_ROPE_TYPES:
            return f"rotary embedding of type {rope_type}"
    num_heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // num_heads
    if head_dim % 8:
        return f"head size {head_dim}: GroupQueryAttention wants a multiple of 8"
    if getattr(config, "add_cross_attention", False):
        return f"model type {kind} with cross-attention"
    return None


def has_standard_export(model_type: str) -> bool:
    """Whether students of this type can be exported by Optimum alone, to a graph that the plain generator runs."""
    if not has_optimum() or model_type not in (*STANDARD_FAMILIES, *FUSED_FAMILIES, *ENCODER_DECODERS):
        return False
    import optimum.exporters.onnx.model_configs  # noqa: F401  # fills the table that is read below
    from optimum.exporters.tasks import TasksManager

    supported: dict[str, Any] = TasksManager._LIBRARY_TO_SUPPORTED_MODEL_TYPES["transformers"]
    task = SEQ2SEQ_TASK if model_type in ENCODER_DECODERS else EXPORT_TASK
    return task in supported.get(model_type, {}).get("onnx", {})


def is_multimodal(config: Any) -> bool:
    """Whether a model reads images or sound as well."""
    return any(getattr(config, name, None) is not None for name in ("vision_config", "audio_config"))


def served_families() -> str:
    """The families that are served by this installation, for messages."""
    fused, standard = ", ".join(FUSED_FAMILIES), ", ".join((*STANDARD_FAMILIES, *ENCODER_DECODERS))
    if has_optimum():
        return f"served are, with fused graphs: {fused}; several times slower, with Optimum's: {standard}"
    return f"served are, with fused graphs: {fused}; with 'edgeelad[distill]', several times slower: {standard}"


def _kind_of_layers(config: Any) -> str | None:
    """What sets a family apart from the ones that can be served, by its configuration."""
    if is_multimodal(config):
        return "a multimodal model"
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if kinds & STATEFUL_LAYERS or any(getattr(config, name, None) is not None for name in STATEFUL_SETTINGS):
        return "its layers keep a convolution or recurrent state, not only keys and values"
    if any(getattr(config, name, None) for name in EXPERT_SETTINGS):
        return "a mixture of experts"
    return None


def _rope_settings(config: Any) -> list[dict[str, Any]]:
    """The settings of each rotary embedding: `rope_parameters` in transformers 5, `rope_scaling` before."""
    settings = getattr(config, "rope_parameters", None) or {}
    if not settings and "rope_scaling" in vars(config):
        settings = config.rope_scaling or {}
    by_layer = [value for value in settings.values() if isinstance(value, dict)]
    return by_layer or [dict(settings)]
