"""Score the pool: the last student explains every candidate, and its uncertainty in the steps is the score."""

from __future__ import annotations

from collections.abc import Iterator

from edgeelad.engine.options import EngineOptions
from edgeelad.engine.workers import SetAside, generate_trees
from edgeelad.progress import track
from edgeelad.records import Question, ReasoningTree
from edgeelad.run.scores import ScoreRow, make_row
from edgeelad.stages.candidates import candidates
from edgeelad.stages.run import Run
from edgeelad.uncertainty import Strategy, tree_params
from edgeelad.uncertainty import score as score_trees


def score(run: Run, number: int) -> None:
    """Score every candidate of a round with the student of the round before; text strategies need no scores."""
    here, strategy = run.folder.round(number), run.strategy
    if strategy is None or run.folder.is_done(here.scores.path):
        return
    questions = candidates(run, number)
    run.progress.start(f"Round {number}: scoring the pool", len(questions))
    with run.folder.stage(number, "score", here.scores.path):
        trees = track(_trees(run, number, questions, strategy), run.progress)
        here.scores.write(_rows(run, number, trees, strategy))
    run.progress.finish()


def _trees(run: Run, number: int, questions: list[Question], strategy: Strategy) -> Iterator[ReasoningTree]:
    config = run.config.scoring
    needs = (strategy.needs_explanation, strategy.needs_branches, strategy.needs_root_branches, strategy.needs_probe)
    if not any(needs):
        return (ReasoningTree(question, "", (), None, "eos", (), (), ((),)) for question in questions)

    def without_score(aside: SetAside) -> None:
        run.progress.warn(f"question {aside.question.id} is not scored, and not asked this round: {aside.reason}")

    return generate_trees(
        run.folder.round(number - 1).onnx,
        questions,
        tree_params(strategy, config, run.seed(number, "score")),
        EngineOptions(run.num_workers, batch_size=config.batch_size, precision=config.precision),
        on_set_aside=without_score,
    )


def _rows(run: Run, number: int, trees: Iterator[ReasoningTree], strategy: Strategy) -> Iterator[ScoreRow]:
    weight, seed = run.config.scoring.inter_weight, run.seed(number, "score")
    for tree in trees:
        (scored,) = score_trees([tree], strategy, inter_weight=weight, seed=seed)
        yield make_row(tree, scored)
