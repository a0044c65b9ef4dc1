"""A student's context length and KV cache shape, as its `config.json` states them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeelad.errors import ModelError

# the model families' names, the most common first
CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")
LAYER_KEYS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
# the window of a graph's sliding layers, in its metadata: without it, a graph attends to all tokens in every layer
WINDOW_KEY = "edgeelad.window"
# model types whose graphs are written with it (`export.fused`)
WINDOW_FAMILIES = ("mistral", "phi3", "gemma2", "gemma3_text", "cohere2", "qwen2", "qwen3", "smollm3", "starcoder2")
HEAD_KEYS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
WIDTH_KEYS = ("hidden_size", "n_embd", "d_model")


@dataclass(frozen=True, slots=True)
class CacheShape:
    """Shape of the KV cache: layers, key-value heads, and head size."""

    num_layers: int
    num_heads: int
    head_dim: int

    @property
    def num_arrays(self) -> int:
        """Arrays of the cache: keys and values per layer."""
        return 2 * self.num_layers

    @property
    def num_values(self) -> int:
        """Numbers cached per token."""
        return self.num_arrays * self.num_heads * self.head_dim

    def __str__(self) -> str:
        return f"{self.num_layers} layers of {self.num_heads} heads of {self.head_dim}"


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of a model folder.

    Raises:
        ModelError: It is missing or damaged.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (FileNotFoundError, NotADirectoryError):
        raise ModelError(f"{path}: missing; export the student again with `edgeelad export`") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: cannot be read ({error}); export the student again") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path}: not a JSON object; export the student again")
    return value


def cache_shape(config: Mapping[str, Any]) -> CacheShape | None:
    """The KV cache shape by `config.json`; None if the configuration states it in no known way."""
    if config.get("multi_query") or "num_kv_heads" in config:  # Falcon and StarCoder share heads in ways of their own
        return None
    if config.get("is_encoder_decoder"):  # T5's names; of the decoder
        config = {**config, "num_layers": config.get("num_decoder_layers"), "head_dim": config.get("d_kv")}
    num_layers, num_heads = first_number(config, LAYER_KEYS), first_number(config, HEAD_KEYS)
    width = first_number(config, WIDTH_KEYS)
    if num_layers is None or num_heads is None or (width is None and config.get("head_dim") is None):
        return None
    head_dim = first_number(config, ("head_dim",)) or (width or 0) // num_heads
    return CacheShape(num_layers, first_number(config, ("num_key_value_heads",)) or num_heads, head_dim)


def window_size(config: Mapping[str, Any]) -> int | None:
    """The sliding window of a student's attention, if it has one that is smaller than its number of positions."""
    layer_types = config.get("layer_types")
    has_window = "sliding_attention" in layer_types if layer_types else config.get("use_sliding_window", True)
    window, positions = first_number(config, ("sliding_window",)), first_number(config, CONTEXT_KEYS)
    return window if has_window and window is not None and window < (positions or window) else None


def max_context(config: Mapping[str, Any], path: Path, *, has_windows: bool = False) -> int:
    """Maximum number of tokens that the student is used with.

    That is its number of positions, capped at the context before longrope's extension, up to which its rotary
    frequencies are static, and at the sliding window of its attention, up to which attention over all tokens is exact.

    Args:
        config: Its `config.json`.
        path: That file.
        has_windows: Whether its graph has sliding windows, so that it needs no cap at them.

    Raises:
        ModelError: The configuration does not name it.
    """
    positions = first_number(config, CONTEXT_KEYS)
    if positions is None:
        raise ModelError(f"{path}: no context length ({', '.join(CONTEXT_KEYS)}); add max_position_embeddings")
    window = None if has_windows else window_size(config)
    return min([positions, *([window] if window is not None else []), *_longrope_caps(config)])


def _longrope_caps(config: Mapping[str, Any]) -> Iterator[int]:
    for rope in (config.get("rope_scaling"), config.get("rope_parameters")):
        if isinstance(rope, dict) and "longrope" in (rope.get("rope_type"), rope.get("type")):
            original = first_number(rope, ("original_max_position_embeddings",))
            original = original or first_number(config, ("original_max_position_embeddings",))
            if original is not None:
                yield original


def first_number(config: Mapping[str, Any], keys: tuple[str, ...]) -> int | None:
    """The value of the first key that holds a positive integer."""
    for key in keys:
        value = config.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None
