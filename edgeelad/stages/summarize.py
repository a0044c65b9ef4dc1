"""Write the run's summary and report."""

from __future__ import annotations

from edgeelad.report import write_report
from edgeelad.run.records import SelfAgreement, Summary
from edgeelad.stages.run import Run
from edgeelad.stopping import StopReason


def summarize(run: Run, number: int, reason: StopReason) -> Summary:
    """Write the summary of a run that ends with a round's student, and its report; returns the summary."""
    metrics, base = run.folder.round(number).metrics.read(), run.folder.round(0).metrics.read()
    finished = [run.folder.round(taught).metrics.read() for taught in range(1, number + 1)]
    totals = run.totals()
    bought = [item for here in run.folder.rounds() for item in here.annotations.read_if_there()]
    is_quantized = metrics.shipping != "fp32"
    summary = Summary(
        stopped_because=reason,
        rounds=number,
        pool=len(run.pool),
        too_long=len(run.too_long),
        annotated=sum(item.is_usable for item in bought),
        set_aside=totals.num_set_aside,
        base_accuracy=base.accuracy,
        accuracy=metrics.accuracy,
        package_accuracy=metrics.package_accuracy if is_quantized else metrics.accuracy,
        package_agreement=metrics.package_agreement if is_quantized else 1.0,
        quantization=metrics.shipping,
        certificate=metrics.certificate,
        teacher=totals.usage,
        unusable_replies=totals.num_unusable,
        requests_in_doubt=totals.num_in_doubt,
        teacher_self_agreement=_self_agreement(run),
        seconds=run.folder.seconds_by_stage(),
        student=run.config.student.model,
        strategy=run.config.selection.strategy,
        seed=run.config.run.seed,
        student_tokens=sum(row.student_tokens for row in finished),
        elad_tokens=sum(row.elad_tokens for row in finished),
    )
    with run.folder.digests.recording(run.folder.summary.path, is_derived=True):
        run.folder.summary.write(summary)
    write_report(run.folder.path)
    return summary


def _self_agreement(run: Run) -> SelfAgreement | None:
    checked = [row for row in run.audit_rows() if row.is_checked and row.answer is not None]
    if not checked:
        return None
    return SelfAgreement(sum(row.answer == row.second_answer for row in checked), len(checked))
