"""Export a student to ONNX, check that it computes what torch computes, and quantize it.

Takes a student folder and writes an "onnx folder": the graphs (`engine.graph_files` names them), and the student's
configuration, tokenizer and prompt files unchanged. Torch, transformers, optimum and onnx are imported when a function
is called, so importing this package costs nothing and needs no extra.
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

    Parity is checked on the prompts of `parity_questions`. The standard graph runs whole prompts, alone and padded in a
    batch, then decodes greedily from its KV cache; every logit is compared with torch's. The engine's graphs run ragged
    batches and packed trees; the log-probability of every token is compared.

    Args:
        student: A student folder, with `prompt.json`.
        out: The folder to create; it appears complete or not at all.
        config: The export section of the run configuration.
        parity_questions: Questions of the pool. Those whose prompts do not fit the context are skipped; if none is
            left, a built-in question is used.
        previous: The last round's onnx folder. If its architecture is the same, the student's weights are swapped into
            its graphs, unless `config.fresh`; the files are the same as those of a fresh export.

    Raises:
        ParityError: ONNX and torch differ by `config.max_logit_difference` or more (in proportion for logits beyond
            ±10); the message has the figures.
        ModelError: The student cannot be loaded or exported.
        MissingExtraError: The `distill` extra is not installed.
        StorageError: `out` cannot be written.
    """
    with distill_extra("exporting a student"):
        from edgeelad.export import student as student_export
    return student_export.export_student(student, out, config, parity_questions, previous)
