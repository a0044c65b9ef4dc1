"""Have the teacher answer the audit sample, which every round's student is compared with."""

from __future__ import annotations

from edgeelad.errors import BudgetError
from edgeelad.progress import track
from edgeelad.run.records import AuditRow
from edgeelad.stages.run import Run
from edgeelad.teacher.revision.annotate import GivenAnswer, answer_all


def audit(run: Run) -> None:
    """Have the teacher answer the audit sample once, and the first `num_self_checks` of it twice.

    Questions that the budget leaves unanswered are left out: the sample is in random order, so the rest is a sample.
    They are asked when the run is resumed.
    """
    if len(run.audit_rows()) == len(run.audit):
        return
    num_checks = 0 if run.config.teacher.kind == "dataset" else run.config.stopping.num_self_checks
    asked = [*((question, 0) for question in run.audit), *((question, 1) for question in run.audit[:num_checks])]
    run.progress.start("Teacher answers the audit sample", len(asked))
    given: dict[tuple[str, int], GivenAnswer] = {}
    with run.folder.stage(0, "audit"), run.teacher() as teacher:
        try:
            for reply in track(answer_all(asked, teacher, run.config.teacher), run.progress):
                given[reply.question_id, reply.sample] = reply
        except BudgetError as error:
            run.progress.warn(str(error))
    rows = [
        _row(given[question.id, 0], given.get((question.id, 1))) for question in run.audit if (question.id, 0) in given
    ]
    run.folder.audit.write(rows)
    run.progress.finish(f"{sum(row.answer is not None for row in rows)} of {len(run.audit)} answered")


def _row(first: GivenAnswer, second: GivenAnswer | None) -> AuditRow:
    """A question without a usable answer stays in; the ledger holds the reply."""
    return AuditRow(first.question_id, first.answer, None if second is None else second.answer, second is not None)
