"""Fine-tune the student on everything verified so far."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace

from edgeelad.config import TrainingConfig
from edgeelad.files import storage_errors
from edgeelad.records import Example
from edgeelad.run.records import TrainingRecord
from edgeelad.stages.run import Run
from edgeelad.teacher.plan.own_examples import MIN_PASSES
from edgeelad.training.schedule import num_steps


def fine_tune(run: Run, number: int) -> None:
    """Fine-tune a round's student, from the base student (or the last one, if so configured)."""
    from edgeelad.training import fine_tune as train

    here = run.folder.round(number)
    outputs = (here.student, here.training.path)
    if run.folder.is_done(*outputs):
        return
    if here.student.exists():  # killed before the outcome was written: one does not stand without the other
        with storage_errors(here.student):
            shutil.rmtree(here.student)
    start = 0 if run.config.training.restart else number - 1
    own = [Example(run.pool[row.id], row.steps, row.answer, row.others) for row in here.own.read_if_there()]
    others = {row.id: row.others for row in here.reworded.read_if_there()}
    verified = [replace(item, others=others.get(item.question.id, ())) for item in run.examples(number)]
    examples = [*run.seed_examples, *verified, *own]
    of_own = f" ({len(own):,} the student's own)" if own else ""
    run.progress.start(f"Round {number}: fine-tuning on {len(examples):,} examples{of_own}")
    with run.folder.stage(number, "fine-tune", *outputs):
        result = train(
            run.folder.round(start).student,
            examples,
            here.student,
            _config(run, len(examples), len(own)),
            run.seed(number, "fine-tune"),
            progress=lambda step, total, loss: run.progress.update(step, f"loss {loss:.3f}", total=total),
        )
        here.training.write(
            TrainingRecord(
                num_examples=result.num_examples,
                num_skipped=result.num_skipped,
                num_steps=result.num_steps,
                num_passes=_num_passes(run, result.num_steps, result.num_examples),
                learning_rate=result.learning_rate,
                final_loss=result.final_loss,
                losses=result.losses,
                held_out_losses=result.held_out_losses,
                warning=result.warning,
                num_own=len(own),
            )
        )
    if result.num_skipped:
        run.progress.warn(f"{result.num_skipped} examples do not fit the student's context and were not trained on")
    run.progress.finish(f"loss {result.final_loss:.3f}")
    if result.warning is not None:
        run.progress.warn(result.warning)


def _config(run: Run, num_examples: int, num_own: int) -> TrainingConfig:
    """The run's configuration, with so many steps that the student's own explanations take none from the others."""
    config, num_others = run.config.training, num_examples - num_own
    if not num_own or not num_others:
        return config
    planned = num_steps(config, num_others, config.num_processes)
    enough = min(planned * num_examples / num_others, MIN_PASSES * num_examples / config.examples_per_step)
    return config.model_copy(update={"min_steps": max(config.min_steps, math.ceil(enough))})


def _num_passes(run: Run, num_steps: int, num_examples: int) -> float:
    return round(num_steps * run.config.training.examples_per_step / num_examples, 2)
