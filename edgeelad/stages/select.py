"""Select a round's batch by score, exploration and diversity."""

from __future__ import annotations

import numpy as np

from edgeelad.pool.store import Pool, Questions
from edgeelad.run.records import SelectedRow
from edgeelad.selection import select as select_batch
from edgeelad.selection.ranking import Floats
from edgeelad.stages.candidates import candidates
from edgeelad.stages.risks import outcomes
from edgeelad.stages.run import Run


def select(run: Run, number: int) -> bool:
    """Select a round's batch; False if no question is left."""
    here = run.folder.round(number)
    if not run.folder.is_done(here.selected.path):
        left, questions, scores = _scored(run, number)
        earlier = (row.id for n in range(1, number) for row in run.folder.round(n).selected.read())
        run.progress.start(f"Round {number}: selecting")
        with run.folder.stage(number, "select", here.selected.path):
            chosen = select_batch(
                questions,
                scores,
                run.config.selection,
                num=min(run.config.selection.batch_size, len(questions)),
                first_round=number == 1,
                rng=run.rng(number, "select"),
                # one that can be chosen again is no near-duplicate of itself
                already=[run.pool[id_] for id_ in earlier if id_ not in left],
                strategy=run.strategy,
                outcomes=lambda asked: outcomes(run, number, asked),
            )
            here.selected.write(
                SelectedRow(
                    choice.question_id,
                    run.pool[choice.question_id].text,
                    run.pool[choice.question_id].choices,
                    choice.reason,
                    choice.score,
                    choice.propensity,
                )
                for choice in chosen
            )
        run.progress.finish(f"{len(chosen)} questions")
    return any(True for _ in here.selected.read())


def _scored(run: Run, number: int) -> tuple[Pool, Questions, Floats]:
    """The candidates, also in the order of their ids, and then the score of each; NaN for strategies without scores."""
    if run.strategy is None:
        left = candidates(run, number)
        return left, left.by_id(), np.full(len(left), np.nan)
    rows = run.pool.align(run.folder.round(number).scores.read())
    found = np.fromiter(
        ((place, row.score) for place, row in rows), np.dtype([("place", np.int64), ("score", np.float64)])
    )
    left = run.pool.part(found["place"])
    questions = left.by_id()
    return left, questions, found["score"][np.searchsorted(found["place"], questions.places)]
