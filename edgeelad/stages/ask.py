"""The stages that decide what the teacher is asked, and ask it: audit, score, select, revise."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgeelad.engine.student import Student
from edgeelad.engine.tree import TreeParams
from edgeelad.engine.workers import SetAside, generate_trees
from edgeelad.errors import BudgetError
from edgeelad.files import read_json, read_jsonl, write_json, write_jsonl
from edgeelad.progress import track
from edgeelad.records import Annotation, Question, ReasoningTree, Score
from edgeelad.run.scores import read_scores, write_scores
from edgeelad.selection import TEXT_STRATEGIES
from edgeelad.selection import select as select_batch
from edgeelad.stages.end import caps
from edgeelad.stages.run import Run, derive_seed
from edgeelad.stages.teach import audit_rows
from edgeelad.teacher.revision.annotate import GivenAnswer, annotate, answer_all
from edgeelad.uncertainty import STRATEGIES, tree_params
from edgeelad.uncertainty import score as score_trees


def audit(run: Run) -> None:
    """Have the teacher answer the audit sample once, and the first `num_self_checks` of it twice.

    What a spent budget leaves unanswered is left out: the sample is in random order, so what is answered is a sample.
    It is asked for again when the run goes on.
    """
    if len(audit_rows(run)) == len(run.audit):
        return
    num_checks = run.config.stopping.num_self_checks if run.config.teacher.kind == "openai" else 0
    asked = [*((question, 0) for question in run.audit), *((question, 1) for question in run.audit[:num_checks])]
    run.progress.start("Teacher answers the audit sample", len(asked))
    given: dict[tuple[str, int], GivenAnswer] = {}
    with run.folder.stage(0, "audit"), run.teacher() as teacher:
        try:
            for reply in track(answer_all(asked, teacher, run.config.teacher), run.progress):
                given[reply.question_id, reply.sample] = reply
        except BudgetError as error:
            run.progress.warn(str(error))
    rows = [_audit_row(question.id, given) for question in run.audit if (question.id, 0) in given]
    write_jsonl(run.folder.audit, rows)
    run.progress.finish(f"{sum(row['answer'] is not None for row in rows)} of {len(run.audit)} answered")


def _audit_row(id_: str, given: Mapping[tuple[str, int], GivenAnswer]) -> dict[str, Any]:
    """A question without a usable answer stays in; it is counted as unanswered, and the ledger holds the reply."""
    second = given.get((id_, 1))
    return {
        "id": id_,
        "answer": given[id_, 0].answer,
        "second_answer": second.answer if second is not None else None,
        "is_checked": second is not None,
    }


def score(run: Run, number: int) -> None:
    """Let the last student explain every candidate; its uncertainty in the steps is the score.

    Text strategies need no scores, so they write none.
    """
    here, before = run.folder.round(number), run.folder.round(number - 1)
    if here.scores.exists() or run.config.selection.strategy in TEXT_STRATEGIES:
        return
    config = run.config.scoring
    strategy = STRATEGIES[run.config.selection.strategy]
    candidates = _candidates(run, number)
    params = tree_params(run.config.selection.strategy, config, derive_seed(run.config.run.seed, number, "score"))
    run.progress.start(f"Round {number}: student explains and is scored", len(candidates))

    def without_score(aside: SetAside) -> None:
        run.progress.warn(f"question {aside.question.id} is not scored, and not asked this round: {aside.reason}")

    with run.folder.stage(number, "score"):
        needs = (
            strategy.needs_explanation,
            strategy.needs_branches,
            strategy.needs_root_branches,
            strategy.needs_probe,
        )
        trees = (
            generate_trees(
                before.onnx,
                candidates,
                params,
                num_workers=run.num_workers,
                batch_size=config.batch_size,
                precision=config.precision,
                on_set_aside=without_score,
            )
            if any(needs)
            else (ReasoningTree(question, "", (), None, "eos", (), (), ((),)) for question in candidates)
        )
        write_scores(here.scores, _scored(run, number, track(trees, run.progress), strategy.name))
    run.progress.finish()


def _scored(
    run: Run, number: int, trees: Iterator[ReasoningTree], strategy: str
) -> Iterator[tuple[ReasoningTree, Score]]:
    seed = derive_seed(run.config.run.seed, number, "score")
    for tree in trees:
        (scored,) = score_trees([tree], strategy, inter_weight=run.config.scoring.inter_weight, seed=seed)
        yield tree, scored


def select(run: Run, number: int) -> bool:
    """Choose the batch by score, exploration and diversity; False where no question is left."""
    here = run.folder.round(number)
    if not here.selected.exists():
        if run.config.selection.strategy in TEXT_STRATEGIES:
            scores, questions = {}, _candidates(run, number)
        else:
            scores = {row.id: Score(row.id, row.strategy, row.score) for row in read_scores(here.scores)}
            questions = [run.pool[id_] for id_ in scores]
        run.progress.start(f"Round {number}: selecting", None)
        with run.folder.stage(number, "select"):
            chosen = select_batch(
                questions,
                scores,
                run.config.selection,
                num=min(run.config.selection.batch_size, len(questions)),
                first_round=number == 1,
                rng=run.rng(number, "select"),
                already=[run.pool[row["id"]] for row in selected_rows(run, number - 1)],
            )
            write_jsonl(
                here.selected,
                (
                    {
                        "id": choice.question_id,
                        "question": run.pool[choice.question_id].text,
                        "reason": choice.reason,
                        "score": choice.score,
                        "propensity": choice.propensity,
                    }
                    for choice in chosen
                ),
            )
        run.progress.finish(f"{len(chosen)} questions")
    return any(True for _ in read_jsonl(here.selected))


def revise(run: Run, number: int) -> bool:
    """The teacher detects and corrects the flaws in the student's steps; False where nothing usable came of it.

    A round that a spent budget cut short is finished under larger caps, unless a student was taught from it already.
    """
    here = run.folder.round(number)
    stopped = here.path / "budget.json"
    is_raised = stopped.exists() and read_json(stopped)["caps"] != caps(run.config.teacher)
    if not here.annotations.exists() or (is_raised and not here.student.exists()):
        questions = [run.pool[row["id"]] for row in read_jsonl(here.selected)]
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
            stopped.unlink(missing_ok=True)
            if budget is not None:
                write_json(stopped, {"reason": budget, "caps": caps(run.config.teacher)})
            write_jsonl(here.annotations, (dataclasses.asdict(annotation) for annotation in annotations))
        run.progress.finish(f"{sum(a.is_usable for a in annotations)} verified of {len(questions)}")
    return any(row["status"] != "set_aside" for row in read_jsonl(here.annotations))


def revision_params(run: Run, number: int) -> TreeParams:
    """The trees that the teacher's work starts from: with the seed of the scores that chose the questions."""
    config = run.config.scoring
    return TreeParams(
        num_branches=config.num_branches,
        num_root_branches=config.num_explanations,
        temperature=config.temperature,
        top_k=config.top_k,
        top_p=config.top_p,
        max_explanation_tokens=config.max_explanation_tokens,
        max_branch_tokens=config.max_branch_tokens,
        probe=False,
        seed=derive_seed(run.config.run.seed, number, "score"),
    )


def _annotations(run: Run, number: int, questions: Sequence[Question]) -> Iterator[Annotation]:
    config = run.config.scoring
    onnx = run.folder.round(number - 1).onnx
    with (
        Student.open(onnx, num_threads=run.num_workers, batch_size=config.batch_size) as student,
        run.teacher() as teacher,
    ):
        trees = {tree.question.id: tree for tree in student.generate_trees(questions, revision_params(run, number))}

        def continue_from(items: Sequence[tuple[Question, tuple[str, ...]]]) -> list[str]:
            return student.continue_from(items, config.max_branch_tokens)

        yield from annotate(questions, trees, teacher, continue_from, run.config.teacher)


def _candidates(run: Run, number: int) -> list[Question]:
    """Questions not asked yet, or set aside long enough ago to be asked again; `scoring.max_questions` of them."""
    rest = run.config.selection.rest_rounds
    out: set[str] = set()
    for earlier in range(1, number):
        for row in read_jsonl(run.folder.round(earlier).annotations):
            if row["status"] != "set_aside" or number - earlier <= rest:
                out.add(row["question_id"])
    candidates = [question for question in run.askable if question.id not in out]
    maximum = run.config.scoring.max_questions
    if maximum is None or len(candidates) <= maximum:
        return candidates
    chosen = run.rng(number, "candidates").choice(len(candidates), maximum, replace=False)
    return [candidates[i] for i in sorted(chosen)]


def selected_rows(run: Run, last_round: int) -> Iterator[dict[str, Any]]:
    """Rows of all batches up to a round."""
    for number in range(1, last_round + 1):
        yield from read_jsonl(run.folder.round(number).selected)
