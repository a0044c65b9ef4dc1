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
)
EXPORT_TASK = "text-generation-with-past"


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


def has_standard_export(model_type: str) -> bool:
    """Whether Optimum exports students of this type."""
    if not has_optimum():
        return False
    import optimum.exporters.onnx.model_configs  # noqa: F401  # fills the table that is read below
    from optimum.exporters.tasks import TasksManager

    supported: dict[str, Any] = TasksManager._LIBRARY_TO_SUPPORTED_MODEL_TYPES["transformers"]
    return EXPORT_TASK in supported.get(model_type, {}).get("onnx", {})


def is_exportable(model_type: str) -> bool:
    """Whether students of this type can be exported here at all."""
    return model_type in FUSED_FAMILIES or has_standard_export(model_type)
