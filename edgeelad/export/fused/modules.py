"""Replace modules by fused operators, after comparing the two on random input."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from edgeelad.errors import ModelError
from edgeelad.export.fused.ops import gelu, layer_norm, rms_norm, rotary, silu, tanh_gelu

SILU = ("SiLU", "SiLUActivation")
GELU = ("GELUActivation", "GELU")
TANH_GELU = ("NewGELUActivation", "PytorchGELUTanh", "GELUTanh", "FastGELUActivation")


class UnservedArchitectureError(ModelError):
    """The architecture cannot be expressed with GroupQueryAttention; the standard graph can."""


def fused_forward(module: nn.Module) -> Callable[..., Tensor] | None:
    """A forward pass through one fused operator, if it computes the same as `module`; else None."""
    name = type(module).__name__
    candidate: Callable[..., Tensor] | None = None
    shape: tuple[int, ...] = (8,)
    if name.endswith("RMSNorm") and hasattr(module, "weight"):
        eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
        if eps is None:
            return None
        epsilon, shape = float(eps), tuple(module.weight.shape)

        def candidate(module: nn.Module, x: Tensor) -> Tensor:
            return rms_norm(x, module.weight, epsilon)

        if not _computes_same(module, candidate, shape):  # Gemma's norms add one to their weights

            def candidate(module: nn.Module, x: Tensor) -> Tensor:
                return rms_norm(x, module.weight + 1.0, epsilon)

    elif name.endswith("LayerNorm") and not isinstance(module, nn.LayerNorm) and hasattr(module, "weight"):
        epsilon = float(getattr(module, "variance_epsilon", 0.0))
        shape = tuple(module.weight.shape)

        def candidate(module: nn.Module, x: Tensor) -> Tensor:
            if len(shape) == 1:
                return layer_norm(x, module.weight, epsilon)
            return layer_norm(x, torch.ones(shape[-1]), epsilon) * module.weight  # heads have weights of their own

    elif name in SILU:

        def candidate(module: nn.Module, x: Tensor) -> Tensor:
            return silu(x)

    elif name in TANH_GELU:

        def candidate(module: nn.Module, x: Tensor) -> Tensor:
            return tanh_gelu(x)

    elif name in GELU:

        def candidate(module: nn.Module, x: Tensor) -> Tensor:
            return gelu(x)

    elif isinstance(module, Conv1D):
        shape = (int(module.nx),)

        def candidate(module: nn.Module, x: Tensor) -> Tensor:
            return torch.matmul(x, module.weight) + module.bias

    return candidate if candidate is not None and _computes_same(module, candidate, shape) else None


def _computes_same(module: nn.Module, candidate: Callable[..., Tensor], shape: tuple[int, ...]) -> bool:
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(2, 3, *shape, generator=generator)
    with torch.no_grad():
        return bool(torch.allclose(module(sample), candidate(module, sample), rtol=1e-4, atol=1e-5))


def cos_sin(module: nn.Module, positions: Tensor, layer_type: str | None = None) -> tuple[Tensor, Tensor]:
    """Cosines and sines of positions [N], one per rotated pair, [N, r/2], by a rotary module's frequencies."""
    prefix = f"{layer_type}_" if layer_type is not None else ""
    frequencies = getattr(module, f"{prefix}inv_freq").to(torch.float32)
    angles = positions.reshape(-1, 1).to(torch.float32) * frequencies
    scale = float(getattr(module, f"{prefix}attention_scaling"))
    cos, sin = angles.cos(), angles.sin()
    return (cos, sin) if scale == 1.0 else (cos * scale, sin * scale)


def rotates_neighbors(module: nn.Module, apply_rotary: Callable[..., tuple[Tensor, Tensor]]) -> bool:
    """Whether a family's rotary embedding rotates neighboring numbers (Cohere, GLM); if not, it rotates halves.

    Args:
        module: Its rotary module.
        apply_rotary: Its function that rotates query and key.

    Raises:
        UnservedArchitectureError: It does neither.
    """
    kinds = [name.removesuffix("inv_freq").rstrip("_") for name, _ in module.named_buffers() if "original" not in name]
    layer_type = kinds[0] or None
    positions = torch.tensor([0, 3, 7])
    theirs = module(torch.zeros(1), positions[None], *([layer_type] if layer_type else []))
    ours = cos_sin(module, positions, layer_type)
    generator = torch.Generator().manual_seed(0)
    size = 2 * ours[0].shape[-1]
    tensors = [torch.randn(1, num_heads, 3, size, generator=generator) for num_heads in (2, 1)]
    found = [tensor.transpose(1, 2).flatten(2) for tensor in apply_rotary(*tensors, *theirs)]
    for is_interleaved in (False, True):
        rotated = [
            rotary(
                tensor.transpose(1, 2).flatten(2),
                torch.arange(3)[None],
                *ours,
                tensor.shape[1],
                is_interleaved=is_interleaved,
            )
            for tensor in tensors
        ]
        if all(torch.allclose(*pair, atol=1e-5) for pair in zip(rotated, found, strict=True)):
            return is_interleaved
    raise UnservedArchitectureError("rotary embedding that rotates neither halves nor neighbors")
