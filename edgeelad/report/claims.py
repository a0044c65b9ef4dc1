"""The claims of the page in words: headline, certificate, reason to stop."""

from __future__ import annotations

from dataclasses import dataclass

from edgeelad.certificate import certificate_sentence, certificate_state
from edgeelad.records import TeacherUsage
from edgeelad.report.read import ReportedRun


@dataclass(frozen=True, slots=True)
class Headline:
    """The result of the run: accuracy, cost and certificate."""

    base: float | None
    final: float | None
    num_rounds: int
    annotated: int
    pool: int | None
    usage: TeacherUsage
    certificate_state: str
    certificate_text: str

    @property
    def gain(self) -> float | None:
        """Final minus base accuracy."""
        return None if self.base is None or self.final is None else self.final - self.base

    @property
    def annotated_share(self) -> float | None:
        """Annotated questions as a share of the pool."""
        return self.annotated / self.pool if self.pool else None


def make_headline(run: ReportedRun) -> Headline:
    """Take the headline's figures from the summary, or from the last finished round if there is no summary yet."""
    first = run.metrics[0] if run.metrics and run.metrics[0].round == 0 else None
    last = run.metrics[-1] if run.metrics else None
    summary = run.summary
    certificate = summary.certificate if summary else (last.certificate if last else None)
    if summary is not None:
        base, final, annotated, usage = summary.base_accuracy, summary.accuracy, summary.annotated, summary.teacher
    else:
        base = first.accuracy if first else None
        final, annotated, usage = (last.accuracy, last.annotated, last.teacher) if last else (None, 0, TeacherUsage())
    return Headline(
        base=base,
        final=final,
        num_rounds=last.round if last else len(run.rounds),
        annotated=annotated,
        pool=summary.pool if summary else None,
        usage=usage,
        certificate_state=certificate_state(certificate),
        certificate_text=certificate_sentence(certificate),
    )


def stop_sentence(reason: str | None) -> str:
    """Why the run stopped, as a clause; "" if it has not."""
    known = {
        "certified": "agreement with the teacher was certified",
        "limit_reached": "the student disagrees with the teacher beyond the target, and no longer improves",
        "converged": "successive students give the same answers, so more questions would change little",
        "flat": "the learning curve no longer rises",
        "budget": "the teacher's budget was spent",
        "max_rounds": "all planned rounds are done",
        "pool_exhausted": "no question was left to ask",
        "no_annotations": "no question of the last batch could be verified",
    }
    return "" if reason is None else known.get(reason, reason.replace("_", " "))
