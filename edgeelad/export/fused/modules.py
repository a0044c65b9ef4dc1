"""Replace modules by fused operators, after comparing the two on random input."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from edgeelad.errors import ModelError
from edgeelad.export.fused.ops import rms_norm, rotary, silu, tanh_gelu

SILU = ("SiLU", "SiLUActivation")
TANH_GELU = ("NewGELUActivation", "PytorchGELUTanh", "GELUTanh", "FastGELUActivation")


class UnservedArchitectureError(ModelError):
    """The architecture cannot be expressed with GroupQueryAttention; the standard graph can."""


def fused_forward(module: nn.Module) -> Callable[..., Tensor] | None:
    """A forward pass through one fused operator, if it computes the same as `module`; else None."""
    name = type(module).__name__
    candidate: Callable[..., Tensor] | None = None
    width = 8
    if name.endswith("RMSNorm") and hasattr(module, "weight"):
        eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
        if eps is None:
            return None
        epsilon, width = float(eps), int(module.weight.shape[0])

        def candidate(module: nn.Module, x: Tensor) -> Tensor:
            return rms_norm(x, module.weight, epsilon)

        if not _computes_same(module, candidate, width):  # Gemma's norms add one to their weights

            def candidate(module: nn.Module, x: Tensor) -> Tensor:
                return rms_norm(x, module.weight + 1.0, epsilon)

    elif name in SILU:

        def candidate(module: nn.Module, x: Tensor) -> Tensor:
            return silu(x)

    elif name in TANH_GELU:

        def candidate(module: nn.Module, x: Tensor) -> Tensor:
            return tanh_gelu(x)

    elif isinstance(module, Conv1D):
        width = int(module.nx)

        def candidate(module: nn.Module, x: Tensor) -> Tensor:
            return torch.matmul(x, module.weight) + module.bias

    return candidate if candidate is not None and _computes_same(module, candidate, width) else None


def _computes_same(module: nn.Module, candidate: Callable[..., Tensor], width: int) -> bool:
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(2, 3, width, generator=generator)
    with torch.no_grad():
        return bool(torch.allclose(module(sample), candidate(module, sample), rtol=1e-4, atol=1e-5))


def check_rotary_style(apply_rotary: Callable[..., tuple[Tensor, Tensor]]) -> None:
    """Refuse a rotary embedding that is not the half-rotating one over the whole head.

    Raises:
        UnservedArchitectureError: It is another one.
    """
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(1, 2, 3, 16, generator=generator), torch.randn(1, 1, 3, 16, generator=generator)
    half = torch.randn(1, 3, 8, generator=generator)
    angles = torch.cat((half, half), dim=-1)
    found = apply_rotary(query, key, angles.cos(), angles.sin())
    index = torch.arange(3).reshape(1, 3)
    for tensor, rotated in zip((query, key), found, strict=True):
        flat = tensor.transpose(1, 2).flatten(2)
        ours = rotary(flat, index, half[0].cos(), half[0].sin(), tensor.shape[1])
        if not torch.allclose(ours, rotated.transpose(1, 2).flatten(2), atol=1e-5):
            raise UnservedArchitectureError("rotary embedding that is not the half-rotating kind")
