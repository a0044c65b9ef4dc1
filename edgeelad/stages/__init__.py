"""The stages of a run, in order: each reads the run folder, calls one part of edgeelad, and writes its own file there.

A stage whose file is there returns at once, so a killed run goes on where it was. What a stage computes depends on the
configuration, the seed and the files before it alone.
"""

from edgeelad.stages.ask import audit, revise, score, select
from edgeelad.stages.end import package, reason_to_stop, reason_without_annotations, summarize
from edgeelad.stages.estimate import dry_run
from edgeelad.stages.run import Run, open_run, prepare_base
from edgeelad.stages.teach import evaluate, export, fine_tune

__all__ = [
    "Run",
    "audit",
    "dry_run",
    "evaluate",
    "export",
    "fine_tune",
    "open_run",
    "package",
    "prepare_base",
    "reason_to_stop",
    "reason_without_annotations",
    "revise",
    "score",
    "select",
    "summarize",
]
