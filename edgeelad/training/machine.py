"""Check that this machine can train as configured, before anything is made or paid for.

Light: imports torch only if the configuration asks for what not every machine has.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from edgeelad.config import TrainingConfig
from edgeelad.errors import TrainingError
from edgeelad.training.extra import distill_extra


def check_machine(config: TrainingConfig) -> None:
    """Check that packages and GPUs that a configuration needs are there.

    Raises:
        TrainingError: One is missing; names the key and what to do.
    """
    for name in config.report_to:
        if importlib.util.find_spec(name) is None:
            raise TrainingError(f"training.report_to needs {name}, which is not installed; pip install {name}")
    if config.device != "cuda" and config.num_processes == 1 and config.optimizer == "adamw":
        return
    with distill_extra("fine-tuning"):
        import torch
    num_gpus = torch.cuda.device_count() if config.device != "cpu" and torch.cuda.is_available() else 0
    if config.device == "cuda" and not num_gpus:
        raise TrainingError("training.device is cuda, and torch sees no CUDA GPU; use auto or cpu")
    if num_gpus and config.num_processes > num_gpus:
        raise TrainingError(
            f"training.num_processes is {config.num_processes}, and torch sees {num_gpus} CUDA GPUs; each process "
            "needs one"
        )
    if config.optimizer == "adamw_8bit":
        if importlib.util.find_spec("bitsandbytes") is None:
            raise TrainingError(
                "training.optimizer = adamw_8bit needs bitsandbytes, which is not installed; pip install bitsandbytes"
            )
        if not num_gpus and not _can_step_on_cpu():
            raise TrainingError(
                "training.optimizer = adamw_8bit: the bitsandbytes here needs a CUDA GPU; upgrade it, or use adamw"
            )


def _can_step_on_cpu() -> bool:
    """Whether bitsandbytes has an 8-bit optimizer for CPUs: version 0.50 does."""
    import torch

    weight = torch.nn.Parameter(torch.zeros(4096))  # smaller ones are optimized in 32 bits
    weight.grad = torch.zeros_like(weight)
    try:
        optim: Any = importlib.import_module("bitsandbytes.optim")
        optim.AdamW8bit([weight]).step()
    except Exception:  # ImportError, NotImplementedError, RuntimeError, AttributeError, by version
        return False
    return True
