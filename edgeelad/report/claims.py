"""What the page claims of a run, in words: the headline, the certificate, why it stopped. No more than was shown."""

from __future__ import annotations

from dataclasses import dataclass

from edgeelad.records import Certificate, TeacherUsage
from edgeelad.report import figures
from edgeelad.report.read import ReportedRun


@dataclass(frozen=True, slots=True)
class Headline:
    """What the run reached, in one line and a certificate sentence."""

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
    """Take the headline's figures from the summary, or from the last finished round where there is none yet."""
    first = run.metrics[0] if run.metrics and run.metrics[0].round == 0 else None
    last = run.metrics[-1] if run.metrics else None
    summary = run.summary
    state, text = certificate_sentence(summary.certificate if summary else None, is_finished=summary is not None)
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
        certificate_state=state,
        certificate_text=text,
    )


def certificate_sentence(certificate: Certificate | None, *, is_finished: bool = True) -> tuple[str, str]:
    """What the audit allows to be said: "certified", "open", "refuted" or "none", and the sentence."""
    if certificate is None:
        when = "in this run" if is_finished else "yet"
        return "none", f"No audit has been looked at {when}, so nothing is claimed about agreement with the teacher."
    found = (
        f"{certificate.num_disagreements} of {certificate.num_audited} audited questions differ"
        f" (look {certificate.look}; exact upper bound {figures.percent(certificate.upper)})"
    )
    confidence = f"{100 * certificate.confidence:g}%"
    over = "the pool" if certificate.population is not None else "questions like these"
    if certificate.is_certified:
        return "certified", (
            f"Certified at {confidence} confidence: student and teacher give different answers on at most"
            f" {figures.percent(certificate.epsilon)} of {over}. {found}."
        )
    if certificate.lower > certificate.epsilon:
        return "refuted", (
            f"Not certified, and out of reach as things are: student and teacher differ on at least"
            f" {figures.percent(certificate.lower)} of {over}, more than the"
            f" {figures.percent(certificate.epsilon)} asked for. {found}. The student is too small, or the teaching"
            " has reached its limit."
        )
    return "open", (
        f"Not certified: at {confidence} confidence the audit does not show that student and teacher differ on at most"
        f" {figures.percent(certificate.epsilon)} of {over}. {found}."
    )


def stop_sentence(reason: str | None) -> str:
    """Why the run stopped, as a clause; "" where it has not."""
    known = {
        "certified": "agreement with the teacher was certified",
        "limit_reached": "the student differs from the teacher on more than was asked for, and no longer comes closer",
        "converged": "successive students answer alike: more questions would change little",
        "flat": "the learning curve no longer rises",
        "budget": "a teacher budget was spent",
        "max_rounds": "all planned rounds were done",
        "pool_exhausted": "no question was left to ask",
        "no_annotations": "the teacher settled none of the last batch",
    }
    return "" if reason is None else known.get(reason, reason.replace("_", " "))
