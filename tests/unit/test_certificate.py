"""What a certificate is said to show: one sentence everywhere, and never more than was shown."""

import functools
from dataclasses import replace

import numpy as np

from edgeelad.certificate import agreement_bounds, certificate_sentence, certificate_state, upper_bound
from edgeelad.records import AuditCounts, Certificate
from edgeelad.stopping import certify, count_disagreements

HOLDS = Certificate(2, 100, 3, 2000, 0.0083, 0.1, 0.0981, 0.0049, 0.95)


def test_the_sentence_states_the_claim_and_the_figures() -> None:
    assert certificate_state(HOLDS) == "certified"
    assert certificate_sentence(HOLDS) == (
        "Certified at 95% confidence: student and teacher disagree on at most 10% of the pool's questions that fit the "
        "student's context. "
        "In the audit they disagree on 3 of 100 questions (look 2, upper bound 9.9%)."
    )
    stream = replace(HOLDS, population=None, num_disagreements=8, num_unanswered=5)
    assert certificate_sentence(stream).endswith(
        "of questions like the pool's. In the audit they disagree on 8 of 100 questions, 5 of them because the teacher "
        "gave no usable answer (look 2, upper bound 9.9%)."
    )


def test_what_is_not_shown_is_not_claimed() -> None:
    is_open = replace(HOLDS, num_disagreements=12, upper=0.1004, lower=0.06)
    assert certificate_state(is_open) == "open"
    # rounded to the nearest, the bound would seem to meet the target
    assert (
        "may disagree on up to 10.1% of the pool's questions that fit the student's context; the target is at most 10%"
        in certificate_sentence(is_open)
    )
    refuted = replace(HOLDS, num_disagreements=30, upper=0.41, lower=0.1996)
    assert certificate_state(refuted) == "refuted"
    assert "disagree on at least 19.9% of" in certificate_sentence(refuted)
    assert agreement_bounds(refuted) == (0.59, 0.801)
    # 0.901 would be more than was shown
    assert agreement_bounds(replace(HOLDS, upper=0.0992, lower=0.0041)) == (0.9, 0.996)
    assert upper_bound(replace(HOLDS, upper=0.0992)) == "10.0%"
    assert certificate_state(None) == "none"
    assert "nothing is claimed" in certificate_sentence(None)


def test_questions_without_a_teacher_answer_count_as_disagreements() -> None:
    teacher = {"a": "1", "b": None, "c": "3", "d": None}
    student = {"a": "1", "b": "2", "c": "4", "d": None, "unaudited": "5"}
    assert count_disagreements(teacher, student) == AuditCounts(4, 3, 2)


def test_a_teacher_that_often_gives_no_answer_is_rarely_certified() -> None:
    """10% without a usable answer, 2% disagreements among the rest: the true share is 11.8%, above ε."""
    rng = np.random.default_rng(5)
    runs, size, epsilon, alpha = 500, 300, 0.10, 0.05

    @functools.cache  # few of the simulated audits differ in their counts
    def is_ever_certified(counts: AuditCounts) -> bool:
        return any(
            certify(
                counts.num_disagreements, counts.num_audited, None, look, epsilon, alpha, counts.num_unanswered
            ).is_certified
            for look in (1, 2, 3)
        )

    num_false = 0
    for _ in range(runs):
        answered, differs = (rng.random(size) >= 0.1).tolist(), (rng.random(size) < 0.02).tolist()
        teacher = {str(i): "1" if answered[i] else None for i in range(size)}
        student = {str(i): "2" if differs[i] else "1" for i in range(size)}
        num_false += is_ever_certified(count_disagreements(teacher, student))
    assert num_false / runs <= alpha
