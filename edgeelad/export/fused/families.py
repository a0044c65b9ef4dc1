"""Refuse students that the fused graphs would compute wrongly, before anything is loaded.

What replaces a module is compared with the module first (`modules`). A module that computes something else is left
alone; if that would be wrong, the architecture is refused (`UnservedArchitectureError`) and the caller exports the
standard graph.
"""

from __future__ import annotations

from transformers import PretrainedConfig

from edgeelad.export.fused.modules import UnservedArchitectureError
from edgeelad.training.support import unfused_reason


def check_family(config: PretrainedConfig) -> None:
    """Raise UnservedArchitectureError if the student's family or settings have no fused graph."""
    reason = unfused_reason(config)
    if reason is not None:
        raise UnservedArchitectureError(reason)
