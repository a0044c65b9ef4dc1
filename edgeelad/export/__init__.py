"""Export a student to ONNX with Optimum, prove that it computes what torch computes, and quantize it.

Takes a student folder, gives an "onnx folder": the graphs (`export.graph` names them), and the student's configuration,
tokenizer and prompt files as they are. Torch, transformers, optimum and onnx are imported when a function is called, so
importing this package costs nothing and needs no extra.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgeelad.config import ExportConfig
from edgeelad.export.result import ExportResult, Parity
from edgeelad.records import Question
from edgeelad.training.extra import distill_extra

__all__ = ["ExportResult", "Parity", "export_student"]


def export_student(
    student: Path,
    out: Path,
    config: ExportConfig,
    *,
    parity_questions: Sequence[Question],
    previous: Path | None = None,
) -> ExportResult:
    """Export the student in `student` to ONNX in `out`, check it against torch, and quantize it.

    Parity is checked on the prompts of `parity_questions`. Of the standard graph: whole prompts alone and padded in a
    batch, then greedy decoding step by step from the cache, every logit compared with torch's. Of the engine's graphs:
    ragged batches and packed trees, the log-probability of every token.

    Args:
        student: A student folder, with `prompt.json`.
        out: The folder to make; it appears whole or not at all.
        config: The export section of the run configuration.
        parity_questions: Questions of the pool; those whose prompts do not fit the context are passed over, and where
            none is left, a built-in question is asked.
        previous: The last round's onnx folder: where it is of the same architecture, the student's weights are put into
            its graphs, unless `config.fresh`; the files are the same as those of an export anew.

    Raises:
        ParityError: ONNX and torch differ by `config.max_logit_difference` or more, with the figures.
        ModelError: The student cannot be loaded, or Optimum cannot export it.
        MissingExtraError: The `distill` extra is not installed.
        StorageError: `out` cannot be written.
    """
    with distill_extra("exporting a student"):
        from edgeelad.export import student as student_export
    return student_export.export_student(student, out, config, parity_questions, previous)
