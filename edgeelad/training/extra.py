"""Handle the optional libraries of the `distill` extra: name the missing one, keep them from writing to the screen.

Light: imports neither torch nor transformers.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from edgeelad.errors import MissingExtraError

NOISY_LOGGERS = ("transformers", "optimum", "accelerate", "peft", "huggingface_hub", "torch.onnx", "torch.distributed")


@contextmanager
def distill_extra(purpose: str) -> Iterator[None]:
    """Turn the failed import of an optional dependency into an error that names the command that installs it.

    Raises:
        MissingExtraError: A module of the `distill` extra is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module in ("", "edgeelad"):
            raise
        raise MissingExtraError(module, "distill", purpose) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep torch, transformers, optimum and their kin from writing to the screen; errors are still raised.

    Their warnings (deprecations, traced shapes) address developers, not users of edgeelad.
    """
    loggers = [logging.getLogger(name) for name in NOISY_LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    bars = sys.modules.get("transformers.utils.logging")  # transformers 5 shows one for loading weights
    has_bars = bars is not None and bars.is_progress_bar_enabled()
    if bars is not None and has_bars:
        bars.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if bars is not None and has_bars:
            bars.enable_progress_bar()
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
