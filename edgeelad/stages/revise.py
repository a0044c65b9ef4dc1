"""Have the teacher find and correct the flaws in the student's own steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from edgeelad.engine.options import EngineOptions
from edgeelad.engine.student import Student
from edgeelad.errors import BudgetError
from edgeelad.records import Annotation, Question, ReasoningTree, TeacherCall, TeachingPlan
from edgeelad.run.folder import RoundFolder
from edgeelad.stages.own import drop_own
from edgeelad.stages.risks import corrected_risks, scored_with_answers
from edgeelad.stages.run import Run
from edgeelad.stages.trees import round_trees
from edgeelad.teacher.plan.plan import Planned, Planner
from edgeelad.teacher.protocol import Abilities, abilities_of
from edgeelad.teacher.revision.annotate import annotate
from edgeelad.uncertainty.risk import risk_of


def revise(run: Run, number: int) -> bool:
    """Have the teacher revise a round's batch; False if nothing usable came of it.

    Unless a student was taught from it already, a round is finished when the run is resumed: one that the budget cut
    short, or with questions set aside, if the teacher's limits have changed; one of which nothing can be used, always.
    Replies that were bought are in the ledger.
    """
    here = run.folder.round(number)
    plan = (here.plan.path,) if run.config.teacher.mode == "auto" else ()
    outputs = (*plan, here.annotations.path, here.teacher.path)
    if run.folder.is_done(*outputs) and (here.student.exists() or not _is_open(run, here)):
        return True
    if not here.student.exists():
        drop_own(run, number)
    questions = [run.pool[row.id] for row in here.selected.read()]
    run.progress.start(f"Round {number}: teacher revises", len(questions))
    annotations: list[Annotation] = []
    budget: str | None = None
    with run.folder.stage(number, "revise", *outputs):
        try:
            for annotation in _annotations(run, number, questions):
                annotations.append(annotation)
                run.progress.update(len(annotations))
        except BudgetError as error:
            budget = str(error)
            run.progress.warn(budget)
        here.annotations.write(annotations)
        run.record_teacher(number, budget, is_again=here.student.exists())
    num_usable = sum(annotation.is_usable for annotation in annotations)
    run.progress.finish(f"{num_usable} verified of {len(questions)}")
    return num_usable > 0


def budget_stop(run: Run, number: int) -> str | None:
    """The cap that stopped a round's revision, in words; None if none did, or the limits have changed since."""
    here = run.folder.round(number)
    return None if _is_changed(run, here) else here.teacher.read().budget


def _is_open(run: Run, here: RoundFolder) -> bool:
    annotations = list(here.annotations.read())
    num_usable = sum(annotation.is_usable for annotation in annotations)
    is_whole = here.teacher.read().budget is None and num_usable == len(annotations)
    return not num_usable or (not is_whole and _is_changed(run, here))


def _is_changed(run: Run, here: RoundFolder) -> bool:
    return here.teacher.read().limits != run.limits


def _annotations(run: Run, number: int, questions: Sequence[Question]) -> Iterator[Annotation]:
    config = run.config.scoring
    trees = _trees(run, number, questions)
    onnx = run.folder.round(number - 1).onnx
    with (
        Student.open(onnx, EngineOptions(num_threads=run.num_workers, batch_size=config.batch_size)) as student,
        run.teacher() as teacher,
    ):

        def continue_from(items: Sequence[tuple[Question, tuple[str, ...]]]) -> list[str]:
            return student.continue_from(items, config.max_branch_tokens, only_finished=True)

        planned = _planned(run, number, trees, abilities_of(teacher))
        yield from annotate(questions, trees, teacher, continue_from, run.teacher_config, planned)


def _trees(run: Run, number: int, questions: Sequence[Question]) -> dict[str, ReasoningTree]:
    """The student's reasoning by question id; none where whole explanations are bought without looking at it."""
    if run.config.teacher.mode == "rationale":
        return {}
    otherwise = "is explained by the teacher alone"
    trees = round_trees(run, number, questions, run.tree_params(number), otherwise, are_few=True)
    return {tree.question.id: tree for tree in trees}


def _planned(run: Run, number: int, trees: Mapping[str, ReasoningTree], abilities: Abilities) -> Planned | None:
    """What is known for planning a round: what was paid before it, the student's risk, and plans made already."""
    if run.config.teacher.mode != "auto":
        return None
    here, planner = run.folder.round(number), Planner(run.teacher_config, abilities)
    questions = {question.id: question for question in run.audit}
    for row in run.audit_rows():
        planner.note_call(questions[row.id], TeacherCall("answer", row.usage))
    for annotation in run.annotations(number - 1):
        planner.note(run.pool[annotation.question_id], None, annotation, None)
    recorded = {plan.question_id: plan for plan in here.plan.read_if_there()}
    made: list[TeachingPlan] = []

    def record(plans: Sequence[TeachingPlan]) -> None:
        made.extend(plans)
        if any(plan.question_id not in recorded for plan in plans):
            here.plan.write(made)

    model = run.risk_model(number)
    told = corrected_risks(run, scored_with_answers(run, number))
    risks = {id_: told.get(id_, risk_of(tree, model)) for id_, tree in trees.items()}
    return Planned(planner, risks, recorded, record)
