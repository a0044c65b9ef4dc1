"""Add up what a run has bought: the one source of the figures that summary, table and report show."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edgeelad.config import TeacherConfig
from edgeelad.records import Annotation, TeacherUsage
from edgeelad.teacher.ledger.budget import PICO, prices_of
from edgeelad.teacher.ledger.ledger import Ledger


@dataclass(frozen=True, slots=True)
class RunTotals:
    """What a run has bought so far.

    Attributes:
        usage: Requests, tokens and cost, of replies that could not be used as well.
        num_replies: Replies that were paid for.
        num_unusable: Of these, those that could not be used.
        num_in_doubt: Requests that may have been billed without bringing a reply.
        max_doubtful_usd: The maximum that these could cost besides; None if prices are unknown.
        num_set_aside: Questions that the teacher worked on in vain.
    """

    usage: TeacherUsage
    num_replies: int = 0
    num_unusable: int = 0
    num_in_doubt: int = 0
    max_doubtful_usd: float | None = 0.0
    num_set_aside: int = 0


def run_totals(path: Path, run: str, config: TeacherConfig, annotations: Iterable[Annotation] = ()) -> RunTotals:
    """Count what a run has bought, as its ledger holds it.

    Args:
        path: The ledger; need not exist (nothing was bought then).
        run: The run's name in the ledger.
        config: The teacher, for the prices of what was bought without any.
        annotations: The run's annotations in the order of the rounds; a question's last one counts.

    Raises:
        RunError, StorageError: The ledger cannot be read.
    """
    last = {annotation.question_id: annotation.status for annotation in annotations}
    num_set_aside = sum(status == "set_aside" for status in last.values())
    if not path.exists():
        is_free = config.kind == "dataset"
        return RunTotals(TeacherUsage(cost_usd=0.0 if is_free else None), num_set_aside=num_set_aside)
    with Ledger(path) as ledger:
        totals = ledger.totals(run, prices_of(config))
    doubtful = totals.doubtful.cost_pico
    return RunTotals(
        usage=totals.usage,
        num_replies=totals.replies,
        num_unusable=totals.num_unusable,
        num_in_doubt=totals.num_doubtful,
        max_doubtful_usd=None if doubtful is None else doubtful / PICO,
        num_set_aside=num_set_aside,
    )
