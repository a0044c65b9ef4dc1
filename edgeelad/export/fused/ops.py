"""Torch operators that the exporter turns into the fused ONNX nodes of a student's graph.

TorchScript's exporter records each call of a registered torch operator, and the symbolic function registered for it
writes the ONNX node (an autograd.Function fails in the tracer). Every operator but attention computes what its node
computes, so that `modules` can compare it with the module that it replaces. Attention only returns the right shapes
while it is traced; its values are checked after the export by `export.parity`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.onnx import symbolic_helper

from edgeelad.export.fused.edit import WINDOW_ATTRIBUTE

NAMESPACE = "edgeelad"
OPSET = 18
SCHEMAS = (
    "rms_norm(Tensor x, Tensor weight, float eps) -> Tensor",
    "silu(Tensor x) -> Tensor",
    "tanh_gelu(Tensor x) -> Tensor",
    "gelu(Tensor x) -> Tensor",
    "layer_norm(Tensor x, Tensor weight, float eps) -> Tensor",
    "rotary(Tensor x, Tensor index, Tensor cos, Tensor sin, int num_heads, int rotary_dim, bool is_interleaved) "
    "-> Tensor",
    "group_query_attention(Tensor query, Tensor key, Tensor value, Tensor past_key, Tensor past_value, "
    "Tensor seqlens_k, Tensor total_length, Tensor bias, int num_heads, int kv_heads, float scale, float softcap, "
    "int window) "
    "-> (Tensor, Tensor, Tensor)",
)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root-mean-square normalization over the last axis, times `weight`."""
    return torch.ops.edgeelad.rms_norm(x, weight, eps)


def layer_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Layer normalization over the last axis, times `weight`, without a bias."""
    return torch.ops.edgeelad.layer_norm(x, weight, eps)


def silu(x: Tensor) -> Tensor:
    """x · sigmoid(x)."""
    return torch.ops.edgeelad.silu(x)


def tanh_gelu(x: Tensor) -> Tensor:
    """GELU in its tanh approximation."""
    return torch.ops.edgeelad.tanh_gelu(x)


def gelu(x: Tensor) -> Tensor:
    """GELU with the error function."""
    return torch.ops.edgeelad.gelu(x)


def rotary(
    x: Tensor, index: Tensor, cos: Tensor, sin: Tensor, num_heads: int, *, is_interleaved: bool = False
) -> Tensor:
    """Rotary embedding of x [B, S, H·d] by rows `index` [B, S] of cos and sin [rows, r/2].

    Rotates the first r numbers of each head: number i with number i + r/2, or neighbors if `is_interleaved`.
    """
    rotary_dim = 2 * int(cos.shape[-1])
    if rotary_dim * num_heads == int(x.shape[-1]):
        rotary_dim = 0  # the whole head, as the node's attribute says it
    return torch.ops.edgeelad.rotary(x, index, cos, sin, num_heads, rotary_dim, is_interleaved)


def group_query_attention(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Attention of query [B, S, H·d] over past and new keys and values; returns output, present key, present value."""
    return torch.ops.edgeelad.group_query_attention(*args)


@lru_cache(maxsize=1)
def register_ops() -> torch.library.Library:
    """Register the operators and their ONNX nodes with torch, once per process."""
    library = torch.library.Library(NAMESPACE, "DEF")
    kernels = {
        "rms_norm": _rms_norm,
        "layer_norm": lambda x, weight, eps: torch.nn.functional.layer_norm(x, x.shape[-1:], weight, None, eps),
        "silu": torch.nn.functional.silu,
        "tanh_gelu": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
        "gelu": torch.nn.functional.gelu,
        "rotary": _rotary,
        "group_query_attention": _attention_shapes,
    }
    symbolics = {
        "rms_norm": _rms_norm_node,
        "layer_norm": _layer_norm_node,
        "silu": _silu_node,
        "tanh_gelu": _tanh_gelu_node,
        "gelu": _gelu_node,
        "rotary": _rotary_node,
        "group_query_attention": _attention_node,
    }
    for schema in SCHEMAS:
        name = schema.partition("(")[0]
        library.define(schema)
        library.impl(name, kernels[name], "CPU")
        torch.onnx.register_custom_op_symbolic(f"{NAMESPACE}::{name}", symbolics[name], OPSET)
    return library


def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def _rotary(
    x: Tensor, index: Tensor, cos: Tensor, sin: Tensor, num_heads: int, rotary_dim: int, is_interleaved: bool
) -> Tensor:
    heads = x.unflatten(2, (num_heads, -1))
    rotary_dim = rotary_dim or heads.shape[-1]
    rotated, rest = heads[..., :rotary_dim], heads[..., rotary_dim:]
    pairs = rotated.unflatten(-1, (-1, 2)) if is_interleaved else rotated.unflatten(-1, (2, -1)).transpose(-1, -2)
    first, second = pairs.unbind(-1)
    c, s = cos[index].unsqueeze(2), sin[index].unsqueeze(2)
    pairs = torch.stack((first * c - second * s, second * c + first * s), dim=-1)
    rotated = (pairs if is_interleaved else pairs.transpose(-1, -2)).flatten(-2)
    return torch.cat((rotated, rest), dim=-1).flatten(2)


def _attention_shapes(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    past_key: Tensor,
    past_value: Tensor,
    seqlens_k: Tensor,
    total_length: Tensor,
    bias: Tensor,
    num_heads: int,
    kv_heads: int,
    scale: float,
    softcap: float,
    window: int,
) -> tuple[Tensor, Tensor, Tensor]:
    def grow(past: Tensor, new: Tensor) -> Tensor:
        return torch.cat((past, new.unflatten(2, (kv_heads, -1)).transpose(1, 2)), dim=2)

    return query.clone(), grow(past_key, key), grow(past_value, value)


@symbolic_helper.parse_args("v", "v", "f")
def _rms_norm_node(g: Any, x: Any, weight: Any, eps: float) -> Any:
    node = g.op("SimplifiedLayerNormalization", x, weight, axis_i=-1, epsilon_f=eps, stash_type_i=1)
    return node.setType(x.type())


@symbolic_helper.parse_args("v", "v", "f")
def _layer_norm_node(g: Any, x: Any, weight: Any, eps: float) -> Any:
    return g.op("LayerNormalization", x, weight, axis_i=-1, epsilon_f=eps).setType(x.type())


@symbolic_helper.parse_args("v")
def _silu_node(g: Any, x: Any) -> Any:
    return g.op("com.microsoft::QuickGelu", x, alpha_f=1.0).setType(x.type())


@symbolic_helper.parse_args("v")
def _tanh_gelu_node(g: Any, x: Any) -> Any:
    return g.op("com.microsoft::FastGelu", x).setType(x.type())


@symbolic_helper.parse_args("v")
def _gelu_node(g: Any, x: Any) -> Any:
    return g.op("com.microsoft::Gelu", x).setType(x.type())


@symbolic_helper.parse_args("v", "v", "v", "v", "i", "i", "b")
def _rotary_node(
    g: Any, x: Any, index: Any, cos: Any, sin: Any, num_heads: int, rotary_dim: int, is_interleaved: bool
) -> Any:
    part = {"rotary_embedding_dim_i": rotary_dim} if rotary_dim else {}
    node = g.op(
        "com.microsoft::RotaryEmbedding",
        *(x, index, cos, sin),
        num_heads_i=num_heads,
        interleaved_i=int(is_interleaved),
        **part,
    )
    return node.setType(x.type())


@symbolic_helper.parse_args("v", "v", "v", "v", "v", "v", "v", "v", "i", "i", "f", "f", "i")
def _attention_node(
    g: Any,
    query: Any,
    key: Any,
    value: Any,
    past_key: Any,
    past_value: Any,
    seqlens_k: Any,
    total_length: Any,
    bias: Any,
    num_heads: int,
    kv_heads: int,
    scale: float,
    softcap: float,
    window: int,
) -> Any:
    absent = [symbolic_helper._optional_input_placeholder_tensor(g) for _ in range(3)]
    out, present_key, present_value = g.op(
        "com.microsoft::GroupQueryAttention",
        *(query, key, value, past_key, past_value, seqlens_k, total_length, *absent, bias),
        num_heads_i=num_heads,
        kv_num_heads_i=kv_heads,
        scale_f=scale,
        outputs=3,
        **({"softcap_f": softcap} if softcap else {}),
        **({f"{WINDOW_ATTRIBUTE}_i": window} if window else {}),
    )
    present = past_key.type().with_sizes([None] * 4)  # longer than the past
    return out.setType(query.type()), present_key.setType(present), present_value.setType(present)
