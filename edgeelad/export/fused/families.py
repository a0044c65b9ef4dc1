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

# rotary kinds whose frequencies do not depend on the sequence's length, so that they can be traced once; those of
# longrope do not up to the original context, at which `engine.shape` caps the student's
STATIC_ROPE_TYPES = ("default", "linear", "llama3", "yarn", "longrope")


def check_family(config: PretrainedConfig) -> None:
    """Refuse what the graph would compute wrongly, before anything is loaded.

    Raises:
        UnservedArchitectureError: Another family or kind of layer, or rotary frequencies that depend on the length.
    """
    if config.model_type not in FUSED_FAMILIES:
        raise UnservedArchitectureError(f"model type {config.model_type}: not one of {', '.join(FUSED_FAMILIES)}")
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if kinds:
        raise UnservedArchitectureError(f"model type {config.model_type} with layers of type {min(kinds)}")
    for rope in _rope_settings(config):
        rope_type = rope.get("rope_type", rope.get("type", "default"))
        if rope_type not in STATIC_ROPE_TYPES:
            raise UnservedArchitectureError(f"rotary embedding of type {rope_type}")
        if rope.get("partial_rotary_factor", getattr(config, "partial_rotary_factor", None)) not in (None, 1.0):
            raise UnservedArchitectureError("rotary embedding of a part of each head")
    num_heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // num_heads
    if head_dim % 8:
        raise UnservedArchitectureError(f"head size {head_dim}: GroupQueryAttention wants a multiple of 8")
    if getattr(config, "add_cross_attention", False):
        raise UnservedArchitectureError(f"model type {config.model_type} with cross-attention")


def _rope_settings(config: PretrainedConfig) -> list[dict[str, Any]]:
    """The settings of each rotary embedding: `rope_parameters` in transformers 5, `rope_scaling` before."""
    settings = getattr(config, "rope_parameters", None) or {}
    if not settings and "rope_scaling" in vars(config):
        settings = config.rope_scaling or {}
    by_layer = [value for value in settings.values() if isinstance(value, dict)]
    return by_layer or [dict(settings)]
