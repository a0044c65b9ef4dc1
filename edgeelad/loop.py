"""The rounds: score, select, revise, fine-tune, export, evaluate, until there is a reason to stop; then package.

Every stage reads what earlier stages left in the run folder and writes its own file there, whole or not at all. So a
run that was killed goes on where it was: a stage whose file is there is not done again, and what the teacher said is in
the ledger. The stages themselves are in `stages`.
"""

from __future__ import annotations

from pathlib import Path

from edgeelad import stages
from edgeelad.config import RunConfig
from edgeelad.progress import Progress
from edgeelad.run.folder import RunFolder
from edgeelad.stages.end import Summary


def distill(config: RunConfig, progress: Progress) -> Summary:
    """Run a distillation from pool to package, or go on with one, in the run folder `config.run.out`.

    Gives the summary that `summary.json` holds.

    Raises:
        EdgeeladError: What went wrong, in one line; everything finished until then is kept and `--resume` goes on.
    """
    folder = RunFolder(Path(config.run.out))
    with folder.lock():
        run = stages.open_run(config, folder, progress)
        stages.prepare_base(run)
        stages.audit(run)
        stages.evaluate(run, 0)
        number, reason = 0, stages.reason_to_stop(run, 0)
        while reason is None:
            number += 1
            stages.score(run, number)
            if not stages.select(run, number):
                number, reason = number - 1, "pool_exhausted"
                break
            if not stages.revise(run, number):
                number, reason = number - 1, stages.reason_without_annotations(run, number)
                break
            stages.fine_tune(run, number)
            stages.export(run, number)
            stages.evaluate(run, number)
            reason = stages.reason_to_stop(run, number)
        stages.package(run, number)
        return stages.summarize(run, number, reason)
