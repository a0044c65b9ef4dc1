"""Which students have fused graphs: the families, and the settings of their configurations that are served.

What replaces a module is compared with the module first (`modules`). A module that computes something else is left
alone; if that would be wrong, the architecture is refused (`UnservedArchitectureError`) and the caller exports the
standard graph.
"""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig

from edgeelad.export.fused.modules import UnservedArchitectureError
from edgeelad.training.support import FUSED_FAMILIES

# rotary kinds whose frequencies do not depend on the sequence's length, so that they can be traced once
STATIC_ROPE_TYPES = ("default", "linear", "llama3", "yarn")


def check_family(config: PretrainedConfig) -> None:
    """Refuse what the graph would compute wrongly, before anything is loaded.

    Raises:
        UnservedArchitectureError: Another family, sliding windows, rotary frequencies that depend on the length.
    """
    if config.model_type not in FUSED_FAMILIES:
        raise UnservedArchitectureError(f"model type {config.model_type}: not one of {', '.join(FUSED_FAMILIES)}")
    if any(kind != "full_attention" for kind in getattr(config, "layer_types", None) or ()):
        raise UnservedArchitectureError(f"model type {config.model_type} with sliding-window layers")
    rope = _rope_settings(config)
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    if rope_type not in STATIC_ROPE_TYPES:
        raise UnservedArchitectureError(f"rotary embedding of type {rope_type}")
    num_heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // num_heads
    if head_dim % 8:
        raise UnservedArchitectureError(f"head size {head_dim}: GroupQueryAttention wants a multiple of 8")
    if getattr(config, "add_cross_attention", False):
        raise UnservedArchitectureError(f"model type {config.model_type} with cross-attention")


def _rope_settings(config: PretrainedConfig) -> dict[str, Any]:
    """What the configuration says of rotary embedding: `rope_parameters` in transformers 5, `rope_scaling` before.

    Raises:
        UnservedArchitectureError: The layers have rotary embeddings of several kinds.
    """
    settings = getattr(config, "rope_parameters", None) or {}
    if not settings and "rope_scaling" in vars(config):
        settings = config.rope_scaling or {}
    if any(isinstance(value, dict) for value in settings.values()):
        raise UnservedArchitectureError(f"model type {config.model_type} with several rotary embeddings")
    return dict(settings)
