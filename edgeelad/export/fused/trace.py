"""Trace a transformers causal LM into ONNX with one GroupQueryAttention node a layer, through Optimum's exporter.

Optimum's `main_export` is called with the family's stock OnnxConfig, whose ModelPatcher is ours (`graph_patch`). What a
module is replaced by is compared with the module first; a module that computes something else is left alone, or, where
that would be wrong, the architecture is refused (`UnservedArchitectureError`): the caller exports the standard graph.

Takes a student folder, gives a raw graph with standard input and output names; `graph_passes` cleans it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from optimum.exporters.onnx import main_export
from optimum.exporters.tasks import TasksManager
from transformers import AutoConfig, PretrainedConfig

from edgeelad.export.fused.modules import UnservedArchitectureError
from edgeelad.export.fused.ops import register_ops
from edgeelad.export.fused.patch import FusedAttentionPatcher
from edgeelad.training.extra import quiet

# rotary kinds whose frequencies do not depend on the sequence's length, so that they can be traced once
STATIC_ROPE_TYPES = ("default", "linear", "llama3", "yarn")
FAMILIES = ("llama", "qwen2", "qwen3", "gpt2")


def check_family(config: PretrainedConfig) -> None:
    """Refuse what the graph would compute wrongly, before anything is loaded.

    Raises:
        UnservedArchitectureError: Another family, sliding windows, rotary frequencies that depend on the length.
    """
    if config.model_type not in FAMILIES:
        raise UnservedArchitectureError(f"model type {config.model_type}: not one of {', '.join(FAMILIES)}")
    if any(kind != "full_attention" for kind in getattr(config, "layer_types", None) or ()):
        raise UnservedArchitectureError(f"model type {config.model_type} with sliding-window layers")
    rope = getattr(config, "rope_scaling", None) or {}
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    if rope_type not in STATIC_ROPE_TYPES:
        raise UnservedArchitectureError(f"rotary embedding of type {rope_type}")
    num_heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // num_heads
    if head_dim % 8:
        raise UnservedArchitectureError(f"head size {head_dim}: GroupQueryAttention wants a multiple of 8")
    if getattr(config, "add_cross_attention", False):
        raise UnservedArchitectureError(f"model type {config.model_type} with cross-attention")


def trace_graph(student: Path, out: Path) -> Path:
    """Export `student` into `out`/model.onnx (and the configuration files that Optimum writes).

    Args:
        student: A transformers folder.
        out: The folder to write into; made where it is missing.

    Returns:
        The path of the raw graph.

    Raises:
        UnservedArchitectureError: See `check_family`.
    """
    config = AutoConfig.from_pretrained(student)
    check_family(config)
    register_ops()
    with quiet():
        main_export(
            str(student),
            out,
            task="text-generation-with-past",
            framework="pt",
            library_name="transformers",
            local_files_only=True,
            do_validation=False,
            no_post_process=True,
            custom_onnx_configs={"model": _onnx_config(config)},
        )
    return out / "model.onnx"


def _onnx_config(config: PretrainedConfig) -> Any:
    """The stock OnnxConfig of the family, with our patcher and without the session that fixes dynamic axes."""
    constructor = TasksManager.get_exporter_config_constructor(
        exporter="onnx", model_type=config.model_type, task="text-generation", library_name="transformers"
    )
    onnx_config = constructor(config, use_past=True, use_past_in_inputs=True)
    onnx_config._MODEL_PATCHER = FusedAttentionPatcher
    onnx_config.fix_dynamic_axes = lambda *args, **kwargs: None
    return onnx_config
