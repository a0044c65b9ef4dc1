"""Export a round's student to ONNX, check it against torch, and quantize it."""

from __future__ import annotations

from itertools import islice

from edgeelad.stages.run import Run


def export(run: Run, number: int) -> None:
    """Export a round's student; from round 1 on its weights go into the last round's graphs if they fit."""
    from edgeelad.export import export_student
    from edgeelad.export.questions import NUM_TEXTS

    here = run.folder.round(number)
    if run.folder.is_done(here.onnx):
        return
    fitting = (question for question in run.pool.questions if question.id not in run.too_long)
    run.progress.start(f"Round {number}: exporting to ONNX")
    with run.folder.stage(number, "export", here.onnx):
        result = export_student(
            here.student,
            here.onnx,
            run.config.export,
            parity_questions=list(islice(fitting, max(run.config.export.num_parity_prompts, NUM_TEXTS))),
            previous=run.folder.round(number - 1).onnx if number else None,
        )
    how = ", weights put into the last round's graphs" if result.graphs == "swapped" else ""
    run.progress.finish(f"{result.summary}{how}")
    for warning in result.warnings:
        run.progress.warn(warning)
