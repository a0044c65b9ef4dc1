"""Score the pool: the last student explains every candidate, and a strategy turns its explanation into a score.

With `scoring.max_branched` there are two passes: every candidate is explained once, and branches are sampled only for
those at the highest risk.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import dropwhile, islice

from edgeelad.pool.store import Pool
from edgeelad.progress import track
from edgeelad.record_files import RowFile
from edgeelad.records import Question, ReasoningTree
from edgeelad.run.scores import ScoreRow, make_row
from edgeelad.stages.candidates import candidates
from edgeelad.stages.risk import fit_risk
from edgeelad.stages.run import Run
from edgeelad.stages.trees import round_trees
from edgeelad.uncertainty import RiskModel, Strategy, find_strategy, tree_params
from edgeelad.uncertainty import score as score_trees

UNBRANCHED = 0.0  # score of a question that was not worth branches: below that of any other


def score(run: Run, number: int) -> None:
    """Score every candidate of a round with the student of the round before; text strategies need no scores."""
    here, strategy = run.folder.round(number), run.strategy
    model_if_there = [here.risk.path] if here.risk.exists() else []  # runs of earlier versions have none
    if strategy is None or run.folder.is_done(here.scores.path, *model_if_there):
        return
    questions = candidates(run, number)
    with run.folder.stage(number, "score", here.risk.path, here.scores.path):
        model = fit_risk(run, number)
        here.risk.write(model)
        limit = run.config.scoring.max_branched
        if limit is None or limit >= len(questions) or not strategy.needs_sampling:
            _write(
                run, here.scores, questions, partial(_rows, run, number, questions, strategy, model, "scoring the pool")
            )
        else:
            if not run.folder.is_done(here.greedy.path):
                explain = partial(_rows, run, number, questions, find_strategy("risk"), model, "explaining the pool")
                with run.folder.digests.recording(here.greedy.path):
                    _write(run, here.greedy, questions, explain)
                run.progress.finish()
            _write(run, here.scores, questions, partial(_in_two_passes, run, number, questions, strategy, model, limit))
    run.progress.finish()


def _write(
    run: Run, file: RowFile[ScoreRow], questions: Pool, rows: Callable[[str | None], Iterator[ScoreRow]]
) -> None:
    """Write the rows of a pass, which is given the question after which it goes on, if it was killed."""

    def rest(last: ScoreRow | None) -> Iterator[ScoreRow]:
        if last is None:
            return rows(None)
        num_done, total = questions.num_until(last.id), len(questions)
        run.progress.say(f"{file.path.name} has {num_done:,} of {total:,} questions; resuming")
        return rows(last.id)

    file.extend(rest)


def _in_two_passes(
    run: Run, number: int, questions: Pool, strategy: Strategy, model: RiskModel, limit: int, after: str | None
) -> Iterator[ScoreRow]:
    """Rows of all questions in their order; `limit` of them have branches, the others the score `UNBRANCHED`."""
    greedy = run.folder.round(number).greedy
    risks = ((row.score, row.id) for row in greedy.read())
    chosen = {id_ for _, id_ in heapq.nsmallest(limit, risks, key=lambda pair: (-pair[0], pair[1]))}
    worth = questions.only(chosen)
    branched = _rows(run, number, worth, strategy, model, "scoring the riskiest", after)
    explained = greedy.read()
    if after is not None:
        explained = islice(dropwhile(lambda row: row.id != after, explained), 1, None)
    return merge_passes(explained, branched, strategy.name)


def merge_passes(greedy: Iterable[ScoreRow], branched: Iterator[ScoreRow], strategy: str) -> Iterator[ScoreRow]:
    """Every question's row: of the second pass if it is there, else of the first."""
    following = next(branched, None)
    for row in greedy:
        if following is not None and following.id == row.id:
            # it was explained twice
            yield replace(following, num_tokens=following.num_tokens + row.num_tokens)
            following = next(branched, None)
        else:
            yield replace(row, strategy=strategy, score=UNBRANCHED, step_scores=())
    assert following is None, "the second pass is of questions of the first, in the same order"


def _rows(
    run: Run, number: int, pool: Pool, strategy: Strategy, model: RiskModel, what: str, after: str | None
) -> Iterator[ScoreRow]:
    num_done = 0 if after is None else pool.num_until(after)
    start = num_done - num_done % run.config.scoring.batch_size  # blocks as they would have been
    again = {question.id for question in pool.questions[start:num_done]}
    run.progress.start(f"Round {number}: {what}", len(pool) - num_done)
    weight, seed = run.config.scoring.inter_weight, run.seed(number, "score")
    trees = _trees(run, number, pool.questions[start:], strategy)
    for tree in track((tree for tree in trees if tree.question.id not in again), run.progress):
        (scored,) = score_trees([tree], strategy, inter_weight=weight, seed=seed, risk=model)
        yield make_row(tree, scored)


def _trees(run: Run, number: int, questions: Iterable[Question], strategy: Strategy) -> Iterator[ReasoningTree]:
    config = run.config.scoring
    if strategy.is_free:
        return (ReasoningTree(question, "", (), None, "eos", (), (), ((),)) for question in questions)
    params = tree_params(strategy, config, run.seed(number, "score"))
    return round_trees(run, number, questions, params, "is not scored, and not asked this round")
