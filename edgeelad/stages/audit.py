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
    They are asked when the run is resumed, as are those without a usable answer if the teacher's limits have changed.
    """
    outputs = (run.folder.audit.path, run.folder.round(0).teacher.path)
    if not run.audit or (run.folder.is_done(*outputs) and not _is_open(run)):
        return
    num_checks = 0 if run.config.teacher.kind == "dataset" else run.config.stopping.num_self_checks
    asked = [*((question, 0) for question in run.audit), *((question, 1) for question in run.audit[:num_checks])]
    run.progress.start("Teacher answers the audit sample", len(asked))
    given: dict[tuple[str, int], GivenAnswer] = {}
    budget: str | None = None
    with run.folder.stage(0, "audit", *outputs):
        with run.teacher() as teacher:
            try:
                for reply in track(answer_all(asked, teacher, run.config.teacher), run.progress):
                    given[reply.question_id, reply.sample] = reply
            except BudgetError as error:
                budget = str(error)
                run.progress.warn(budget)
        rows = [
            _row(given[question.id, 0], given.get((question.id, 1)))
            for question in run.audit
            if (question.id, 0) in given
        ]
        run.folder.audit.write(rows)
        run.record_teacher(0, budget, is_again=run.folder.round(0).metrics.exists())
    run.progress.finish(f"{sum(row.answer is not None for row in rows)} of {len(run.audit)} answered")


def _is_open(run: Run) -> bool:
    rows = run.audit_rows()
    is_changed = run.folder.round(0).teacher.read().limits != run.limits
    return len(rows) < len(run.audit) or (is_changed and any(row.answer is None for row in rows))


def _row(first: GivenAnswer, second: GivenAnswer | None) -> AuditRow:
    """A question without a usable answer stays in; the ledger holds the reply."""
    usage = first.usage if second is None else first.usage + second.usage
    answer = None if second is None else second.answer
    return AuditRow(first.question_id, first.answer, answer, second is not None, usage)
