"""Generate a round's reasoning trees: by the student of the round before, where the pool is scored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from edgeelad.engine.options import EngineOptions
from edgeelad.engine.tree import TreeParams
from edgeelad.engine.workers import SetAside, generate_trees
from edgeelad.records import Question, ReasoningTree
from edgeelad.stages.run import Run

# Questions that a worker gets at a time where there are few, each sampled several times: a hundred keep seven workers
# busy. Blocks of 64 take up to a tenth less time, but sixty questions would then run on one core (docs/LOG.md).
FEW_PER_BLOCK = 16


def round_trees(
    run: Run, number: int, questions: Iterable[Question], params: TreeParams, otherwise: str, *, are_few: bool = False
) -> Iterator[ReasoningTree]:
    """The trees of questions, in order, by the student that a round starts from.

    Args:
        run: Whose student it is, and whose workers or Ray cluster generate.
        number: The round.
        questions: A stream of any length.
        params: What to generate.
        otherwise: What becomes of a question that has no tree, since it does not fit the student's context or kills its
            worker; that is warned of.
        are_few: Whether smaller blocks are needed to keep all workers busy.
    """

    def warn(aside: SetAside) -> None:
        run.progress.warn(f"question {aside.question.id} {otherwise}: {aside.reason}")

    onnx, engine = run.folder.round(number - 1).onnx, _engine(run)
    block_size = min(engine.batch_size, FEW_PER_BLOCK) if are_few else engine.batch_size
    return generate_trees(onnx, questions, params, engine, on_set_aside=warn, block_size=block_size)


def _engine(run: Run) -> EngineOptions:
    config = run.config.scoring
    if config.engine == "local":
        return EngineOptions(run.num_workers, batch_size=config.batch_size, precision=config.precision)
    from edgeelad.engine.ray_actors import cluster_options

    options = cluster_options(config.ray_address, config.num_workers, precision=config.precision)
    return replace(options, batch_size=config.batch_size)
