"""Have the teacher find and correct the flaws in the student's own steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from edgeelad.config import TeacherConfig
from edgeelad.engine.options import EngineOptions
from edgeelad.engine.student import Student
from edgeelad.errors import BudgetError
from edgeelad.records import Annotation, Question
from edgeelad.run.folder import RoundFolder
from edgeelad.run.records import BudgetStop
from edgeelad.stages.run import Run
from edgeelad.teacher.revision.annotate import annotate

CAPS = ("max_usd", "max_requests", "max_prompt_tokens", "max_completion_tokens_total", "max_questions")


def revise(run: Run, number: int) -> bool:
    """Have the teacher revise a round's batch; False if nothing usable came of it.

    A round that the budget cut short is finished under larger caps, unless a student was taught from it already.
    """
    here = run.folder.round(number)
    if not here.annotations.exists() or (_is_cap_raised(run, here) and not here.student.exists()):
        questions = [run.pool[row.id] for row in here.selected.read()]
        run.progress.start(f"Round {number}: teacher revises", len(questions))
        with run.folder.stage(number, "revise"):
            annotations: list[Annotation] = []
            budget: str | None = None
            try:
                for annotation in _annotations(run, number, questions):
                    annotations.append(annotation)
                    run.progress.update(len(annotations))
            except BudgetError as error:
                budget = str(error)
                run.progress.warn(budget)
            here.budget.path.unlink(missing_ok=True)
            if budget is not None:
                here.budget.write(BudgetStop(budget, caps(run.config.teacher)))
            here.annotations.write(annotations)
        run.progress.finish(f"{sum(a.is_usable for a in annotations)} verified of {len(questions)}")
    return any(annotation.is_usable for annotation in here.annotations.read())


def caps(config: TeacherConfig) -> Mapping[str, float | None]:
    """The caps that a run is under."""
    return {name: getattr(config, name) for name in CAPS}


def budget_stop(run: Run, number: int) -> bool:
    """Whether the caps that the run is under stopped a round's revision."""
    here = run.folder.round(number)
    return here.budget.exists() and not _is_cap_raised(run, here)


def _is_cap_raised(run: Run, here: RoundFolder) -> bool:
    return here.budget.exists() and here.budget.read().caps != caps(run.config.teacher)


def _annotations(run: Run, number: int, questions: Sequence[Question]) -> Iterator[Annotation]:
    config = run.config.scoring
    onnx = run.folder.round(number - 1).onnx
    with (
        Student.open(onnx, EngineOptions(num_threads=run.num_workers, batch_size=config.batch_size)) as student,
        run.teacher() as teacher,
    ):
        trees = {tree.question.id: tree for tree in student.generate_trees(questions, run.tree_params(number))}

        def continue_from(items: Sequence[tuple[Question, tuple[str, ...]]]) -> list[str]:
            return student.continue_from(items, config.max_branch_tokens)

        yield from annotate(questions, trees, teacher, continue_from, run.config.teacher)
