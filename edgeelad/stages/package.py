"""Write the folder that ships, from a round's student."""

from __future__ import annotations

from itertools import islice

from edgeelad.package.info import PackageInfo
from edgeelad.package.write import write_package
from edgeelad.stages.run import Run

NUM_GOLDEN = 8


def package(run: Run, number: int) -> None:
    """Package a round's student."""
    metrics = run.folder.round(number).metrics.read()
    quantize, same, lost = run.config.export.quantize, metrics.package_agreement, metrics.package_accuracy_lost
    if same is not None and metrics.shipping == "fp32":
        accuracy = "" if lost is None else f" and loses {lost:.1%} of accuracy"
        run.progress.warn(
            f"the {quantize} student gives the same answer as fp32 on only {same:.1%} of questions{accuracy}; "
            f"export.min_agreement is {run.config.export.min_agreement:.0%}: fp32 is packaged instead"
        )
    run.progress.start("Packaging")
    with run.folder.stage(number, "package"):
        write_package(
            run.folder.round(number).onnx,
            run.folder.package,
            PackageInfo(
                base_model=str(run.config.student.model),
                quantization=metrics.shipping,
                include_fp32=run.config.export.include_fp32,
                include_scoring=run.config.export.include_scoring,
                golden_questions=tuple(islice(run.test or run.pool.questions, NUM_GOLDEN)),
                metrics={
                    "accuracy_fp32": metrics.accuracy,
                    f"accuracy_{quantize}": metrics.package_accuracy,
                    "same_answers_as_fp32": metrics.package_agreement,
                    "num_test": metrics.num_test,
                    "annotated": metrics.annotated,
                },
                certificate=metrics.certificate,
                max_explanation_tokens=run.config.scoring.max_explanation_tokens,
            ),
        )
    run.progress.finish(str(run.folder.package))
