"""Find the reason to stop after a round, or with a round from which nothing can be taught."""

from __future__ import annotations

from collections import Counter

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
    if budget_stop(run, number):
        return "budget"
    return "max_rounds" if number >= run.config.selection.num_rounds else None


def reason_without_annotations(run: Run, number: int) -> StopReason:
    """The reason why a round gave nothing to teach: the budget, or a teacher that settled nothing."""
    if budget_stop(run, number):
        return "budget"
    reasons = Counter(item.reason for item in run.folder.round(number).annotations.read())
    ((most_common, count),) = reasons.most_common(1) or [("nothing was selected", 0)]
    run.progress.warn(f"round {number}: the teacher settled none of the questions; {count} times: {most_common}")
    return "no_annotations"


def _outcome(run: Run, number: int) -> RoundOutcome:
    metrics = run.folder.round(number).metrics.read()
    return RoundOutcome(number, metrics.accuracy, metrics.certificate, metrics.kappa)
