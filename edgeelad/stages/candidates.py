"""The questions that a round may score and select."""

from __future__ import annotations

from edgeelad.pool.store import Pool
from edgeelad.stages.run import Run


def candidates(run: Run, number: int) -> Pool:
    """Questions not asked yet, or set aside long enough ago to be asked again; `scoring.max_questions` of them."""
    rest = run.config.selection.rest_rounds
    out: set[str] = set()
    for earlier in range(1, number):
        for item in run.folder.round(earlier).annotations.read():
            if item.is_usable or number - earlier <= rest:
                out.add(item.question_id)
    left = run.askable.without(out)
    maximum = run.config.scoring.max_questions
    if maximum is None or len(left) <= maximum:
        return left
    chosen = run.rng(number, "candidates").choice(len(left), maximum, replace=False)
    return left.part(left.places[sorted(chosen)])
