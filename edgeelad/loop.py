"""The rounds: score, select, revise, fine-tune, export, evaluate, until there is a reason to stop; then package.

Every stage reads the files that earlier stages left in the run folder and writes its own, whole or not at all. So a
killed run resumes where it was: a stage whose files are there is skipped, and the ledger holds the teacher's replies.
The stages themselves are in `stages`.
"""

from __future__ import annotations

from pathlib import Path

from edgeelad.config import RunConfig
from edgeelad.engine.processes import check_main_guard
from edgeelad.progress import Progress
from edgeelad.run.folder import RunFolder
from edgeelad.run.records import Summary
from edgeelad.stages.audit import audit
from edgeelad.stages.evaluate import evaluate
from edgeelad.stages.export import export
from edgeelad.stages.fine_tune import fine_tune
from edgeelad.stages.open_run import open_run
from edgeelad.stages.own import draw_own
from edgeelad.stages.package import package
from edgeelad.stages.preflight import preflight
from edgeelad.stages.reason_to_stop import nothing_taught, reason_to_stop, reason_without_annotations
from edgeelad.stages.revise import revise
from edgeelad.stages.run import OwnParts
from edgeelad.stages.score import score
from edgeelad.stages.select import select
from edgeelad.stages.summarize import summarize
from edgeelad.stages.track import track
from edgeelad.stopping import StopReason


def distill(config: RunConfig, progress: Progress, own: OwnParts | None = None) -> Summary:
    """Run a distillation from pool to package, or resume one, in the run folder `config.run.out`.

    Args:
        config: The configuration.
        progress: Receives progress and warnings.
        own: Objects that take the place of the teacher or the strategy that the configuration names.

    Returns:
        What `summary.json` holds.

    Raises:
        EdgeeladError: Why the run stopped early, or that nothing could be taught; everything finished is kept, and the
            run can be resumed.
    """
    check_main_guard()
    assert config.run.out is not None, "a planned run has a folder"
    folder = RunFolder(Path(config.run.out))
    preflight(config, folder, progress, own)
    with folder.lock():
        run = open_run(config, folder, progress, own)
        export(run, 0)
        audit(run)
        evaluate(run, 0)
        track(run, 0)
        number = 0
        reason: StopReason | None = reason_to_stop(run, 0)
        while reason is None:
            number += 1
            score(run, number)
            if not select(run, number):
                number, reason = number - 1, "pool_exhausted"
                break
            if not revise(run, number):
                number, reason = number - 1, reason_without_annotations(run, number)
                break
            draw_own(run, number)
            fine_tune(run, number)
            export(run, number)
            evaluate(run, number)
            track(run, number)
            reason = reason_to_stop(run, number)
        if number == 0:
            summarize(run, 0, reason)
            raise nothing_taught(run, reason)
        package(run, number)
        return summarize(run, number, reason)
