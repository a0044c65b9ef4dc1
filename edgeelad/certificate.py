"""Say what a certificate shows: one sentence for the terminal, the package's card and the report."""

from __future__ import annotations

import math
from typing import Literal

from edgeelad.records import Certificate

State = Literal["certified", "open", "refuted", "none"]


def certificate_state(certificate: Certificate | None) -> State:
    """Whether the agreement is certified, still open, certainly below the target (refuted), or was not audited."""
    if certificate is None:
        return "none"
    if certificate.is_certified:
        return "certified"
    return "refuted" if certificate.lower > certificate.epsilon else "open"


def upper_bound(certificate: Certificate) -> str:
    """The upper bound on the disagreement, in percent; rounded up, so that it claims no more than was shown."""
    return f"{math.ceil(1000 * certificate.upper - 1e-9) / 10}%"


def agreement_bounds(certificate: Certificate) -> tuple[float, float]:
    """Lower and upper bound on the agreement, rounded outwards to a tenth of a percent."""
    low, high = 1 - certificate.upper, 1 - certificate.lower
    return math.floor(1000 * low + 1e-9) / 1000, math.ceil(1000 * high - 1e-9) / 1000


def certificate_sentence(certificate: Certificate | None) -> str:
    """What the last look at the audit shows, in words; claims nothing beyond the certificate.

    The lower bound is rounded down, the upper bound up, so that no figure claims more than was shown.
    """
    if certificate is None:
        return "Agreement with the teacher was not audited, so nothing is claimed about it."
    target = f"{100 * certificate.epsilon:g}%"
    confidence = f"{100 * certificate.confidence:g}%"
    over = (
        "questions like the pool's"
        if certificate.population is None
        else "the pool's questions that fit the student's context"
    )
    upper = upper_bound(certificate)
    lower = f"{math.floor(1000 * certificate.lower + 1e-9) / 10}%"
    state = certificate_state(certificate)
    if state == "certified":
        claim = f"Certified at {confidence} confidence: student and teacher disagree on at most {target} of {over}."
    elif state == "refuted":
        claim = (
            f"Not certified: at {confidence} confidence, student and teacher disagree on at least {lower} of {over};"
            f" the target is at most {target}."
        )
    else:
        claim = (
            f"Not certified: at {confidence} confidence, student and teacher may disagree on up to {upper} of {over};"
            f" the target is at most {target}."
        )
    return f"{claim} {_counts(certificate, upper)}"


def _counts(certificate: Certificate, upper: str) -> str:
    counts = f"In the audit they disagree on {certificate.num_disagreements} of {certificate.num_audited} questions"
    if certificate.num_unanswered:
        counts += f", {certificate.num_unanswered} of them because the teacher gave no usable answer"
    return f"{counts} (look {certificate.look}, upper bound {upper})."
