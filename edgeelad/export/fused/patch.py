"""Patch a causal LM while it is traced: attention, cache, rotary embedding, norms and activations.

The attention function becomes `com.microsoft::GroupQueryAttention`; the cache returns the new keys and values
instead of concatenating them; rotary embedding becomes `com.microsoft::RotaryEmbedding`, which reads `position_ids`;
RMSNorm and activations become fused operators. Everything is restored afterwards.
"""

from __future__ import annotations

import functools
import inspect
import sys
from dataclasses import dataclass, field
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from edgeelad.engine.shape import window_size
from edgeelad.export.fused.modules import cos_sin, fused_forward, rotates_neighbors
from edgeelad.export.fused.ops import group_query_attention, rotary

ATTENTION_NAME = "edgeelad_group_query_attention"


@dataclass(slots=True)
class _Traced:
    """The state that the layers of a traced forward pass share."""

    position_ids: Tensor
    rotary_index: Tensor
    seqlens_k: Tensor
    total_length: Tensor
    bias: Tensor
    layer: DynamicLayer | None = None
    cos_sin: tuple[Tensor, Tensor] | None = None


@dataclass(slots=True)
class _Restore:
    """A replaced attribute, to be restored."""

    owner: object
    name: str
    value: Any
    was_own: bool = field(default=True)


class FusedAttention:
    """A context manager that patches a causal LM while it is traced, and restores everything at the end."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Take the model; nothing is changed before the context is entered."""
        self._model = model
        self._restores: list[_Restore] = []
        self._traced: _Traced | None = None
        self._is_interleaved = False
        self._has_window = window_size(model.config.to_dict()) is not None

    def __enter__(self) -> FusedAttention:
        config = self._model.config
        self._old_attention = config._attn_implementation
        ALL_ATTENTION_FUNCTIONS.register(ATTENTION_NAME, self._attention)
        config._attn_implementation = ATTENTION_NAME
        patcher = self

        def update(layer: DynamicLayer, key: Tensor, value: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
            if layer.keys is None:  # the cache is being filled from the graph's inputs
                layer.keys, layer.values, layer.is_initialized = key, value, True
            else:
                patcher._state.layer = layer
            return key, value

        self._replace(DynamicLayer, "update", update)
        for module in self._model.modules():
            replacement = fused_forward(module)
            if replacement is not None:
                self._replace(module, "forward", MethodType(replacement, module))
        self._replace(torch.Tensor, "chunk", _chunk)
        self._patch_rotary()
        self._patch_direct_attention()
        inner = self._model.forward

        @functools.wraps(inner)
        def forward(*args: Any, **kwargs: Any) -> Any:
            given = inspect.signature(inner).bind(*args, **kwargs).arguments
            patcher._traced = _begin(given["attention_mask"], given["position_ids"])
            return inner(*args, **kwargs)

        self._replace(self._model, "forward", forward)
        return self

    def __exit__(self, *error: object) -> None:
        for restore in reversed(self._restores):
            if restore.was_own:
                setattr(restore.owner, restore.name, restore.value)
            else:
                delattr(restore.owner, restore.name)
        self._restores.clear()
        self._model.config._attn_implementation = self._old_attention

    @property
    def _state(self) -> _Traced:
        assert self._traced is not None, "a layer was traced before the model's forward pass"
        return self._traced

    def _replace(self, owner: object, name: str, value: Any) -> None:
        own = vars(owner)
        self._restores.append(_Restore(owner, name, own.get(name), name in own))
        setattr(owner, name, value)

    def _patch_rotary(self) -> None:
        """Let rotary modules return the cosines and sines of the positions, and apply them in `_attention`.

        A layer that applies none (SmolLM3 has such layers) gets none, and one that is handed those of another base
        (Gemma 3's local layers) gets those.
        """
        rotaries = [module for name, module in self._model.named_modules() if "rotary_emb" in name.rpartition(".")[2]]
        if not rotaries:
            return
        modeling = sys.modules[type(self._model).__module__]
        with torch.no_grad():
            self._is_interleaved = rotates_neighbors(rotaries[0], modeling.apply_rotary_pos_emb)
        patcher = self

        def forward(
            module: nn.Module, x: Tensor, position_ids: Tensor, layer_type: str | None = None
        ) -> tuple[Tensor, Tensor]:
            return cos_sin(module, position_ids, layer_type)

        def apply(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
            patcher._state.cos_sin = cos, sin
            return query, key

        for module in rotaries:
            self._replace(module, "forward", MethodType(forward, module))
        self._replace(modeling, "apply_rotary_pos_emb", apply)

    def _patch_direct_attention(self) -> None:
        """Patch torch's attention for a family that calls it itself (StableLM in transformers 4.57)."""
        modeling = sys.modules[type(self._model).__module__]
        if hasattr(modeling, "ALL_ATTENTION_FUNCTIONS"):
            return
        patcher = self

        def attend(query: Tensor, key: Tensor, value: Tensor, **_: Any) -> Tensor:
            out, _weights = patcher._attention(patcher._model, query, key, value, None)
            return out.transpose(1, 2)

        self._replace(modeling, "repeat_kv", lambda tensor, count: tensor)
        self._replace(torch.nn.functional, "scaled_dot_product_attention", attend)

    def _attention(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **kwargs: Any
    ) -> tuple[Tensor, None]:
        """The attention function: query [B, H, S, d], key and value [B, Hkv, S, d] of the new tokens only."""
        state = self._state
        layer = state.layer
        assert layer is not None, "the cache did not hand over its layer"
        num_heads, kv_heads = query.shape[1], key.shape[1]
        flat = [tensor.transpose(1, 2).flatten(2) for tensor in (query, key, value)]
        if state.cos_sin is not None:
            (cos, sin), state.cos_sin = state.cos_sin, None  # of this layer alone
            for place, heads in enumerate((int(num_heads), int(kv_heads))):
                flat[place] = rotary(
                    flat[place], state.rotary_index, cos, sin, heads, is_interleaved=self._is_interleaved
                )
        out, layer.keys, layer.values = group_query_attention(
            *flat,
            layer.keys,
            layer.values,
            state.seqlens_k,
            state.total_length,
            state.bias,
            int(num_heads),
            int(kv_heads),
            _scale(module, kwargs, int(query.shape[-1])),
            float(kwargs.get("softcap") or 0.0),
            self._window(kwargs),
        )
        return out.unflatten(2, (int(num_heads), int(query.shape[-1]))), None

    def _window(self, kwargs: dict[str, Any]) -> int:
        """The layer's sliding window; 0 for none, or one that never ends before the context does."""
        window = kwargs.get("sliding_window")
        return int(window) if window is not None and self._has_window else 0


def _chunk(tensor: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """Equal parts along a dimension of fixed size: one Split; the tracer would record slices of computed sizes."""
    return tensor.split(int(tensor.shape[dim]) // chunks, dim)


def _begin(attention_mask: Tensor, position_ids: Tensor) -> _Traced:
    """The inputs that all layers share, from the standard inputs.

    Every row counts as full (seqlens_k = T − 1), and masked positions get a large negative bias. So left padding works,
    as in the batched generation of Optimum and transformers.
    """
    total = torch._shape_as_tensor(attention_mask)[1].to(torch.int32)
    seqlens_k = torch.zeros_like(attention_mask[:, 0], dtype=torch.int32) + (total - 1)
    lowest = torch.finfo(torch.float32).min
    row = (1.0 - attention_mask.to(torch.float32)) * lowest
    bias = row[:, None, None, :] + torch.zeros_like(position_ids, dtype=torch.float32)[:, None, :, None]
    count = torch.ones_like(position_ids).reshape(-1)
    index = (torch.cumsum(count, 0) - 1).reshape_as(position_ids)
    return _Traced(position_ids, index, seqlens_k, total.reshape(1), bias)


def _scale(module: nn.Module, kwargs: dict[str, Any], head_dim: int) -> float:
    """The factor on query · key; GPT-2 does not pass it, and may scale by layer as well."""
    scaling = kwargs.get("scaling")
    if scaling is not None:
        return float(scaling)
    scale = head_dim**-0.5 if getattr(module, "scale_attn_weights", True) else 1.0
    if getattr(module, "scale_attn_by_inverse_layer_idx", False):
        scale /= float(module.layer_idx) + 1.0
    return float(scale)
