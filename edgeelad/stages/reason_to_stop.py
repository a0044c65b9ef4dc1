"""Find the reason to stop after a round, or with a round from which nothing can be taught."""

from __future__ import annotations

from collections import Counter

from edgeelad.errors import BudgetError, EdgeeladError, PoolError, TeacherReplyError
from edgeelad.stages.revise import budget_stop
from edgeelad.stages.run import Run
from edgeelad.stopping import RoundOutcome, StopReason, should_stop


def reason_to_stop(run: Run, number: int) -> StopReason | None:
    """The reason to stop after a round, or None: certified, budget, max_rounds, or more data no longer helps."""
    if number == 0:
        return None
    reason = should_stop([_outcome(run, earlier) for earlier in range(number + 1)], run.config.stopping)
    if reason is not None:
        return reason
    if budget_stop(run, number) is not None:
        return "budget"
    return "max_rounds" if number >= run.config.selection.num_rounds else None


def reason_without_annotations(run: Run, number: int) -> StopReason:
    """The reason why a round gave nothing to teach: the budget, or a teacher that settled nothing."""
    if budget_stop(run, number) is not None:
        return "budget"
    run.progress.warn(f"round {number}: {_why_nothing_settled(run, number)}")
    return "no_annotations"


def nothing_taught(run: Run, reason: StopReason) -> EdgeeladError:
    """The error that ends a run in which nothing was taught: there is no student to package."""
    if reason == "budget":
        return BudgetError(f"nothing was taught, so nothing is packaged: {budget_stop(run, 1)}")
    if reason == "no_annotations":
        return TeacherReplyError(
            f"nothing was taught, so nothing is packaged: {_why_nothing_settled(run, 1)}; change a setting with "
            "--resume --set teacher.KEY=VALUE, or start a new run with another teacher"
        )
    return PoolError("nothing was taught, so nothing is packaged: no question of the pool is left to ask")


def _why_nothing_settled(run: Run, number: int) -> str:
    reasons = Counter(item.reason for item in run.folder.round(number).annotations.read())
    ((most_common, count),) = reasons.most_common(1) or [("nothing was selected", 0)]
    return f"the teacher settled none of {reasons.total()} questions; {count} times: {most_common}"


def _outcome(run: Run, number: int) -> RoundOutcome:
    metrics = run.folder.round(number).metrics.read()
    return RoundOutcome(number, metrics.accuracy, metrics.certificate, metrics.kappa)
