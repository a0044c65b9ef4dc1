"""Draw what costs nothing: the student's own explanations of questions that were not asked, and other wordings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from edgeelad.files import storage_errors
from edgeelad.records import Example, Question, ReasoningTree
from edgeelad.run.records import OwnRow
from edgeelad.run.scores import ScoreRow
from edgeelad.stages.risks import corrected_risks, scored_with_answers
from edgeelad.stages.run import Run
from edgeelad.stages.trees import round_trees
from edgeelad.teacher.plan.own_examples import (
    ExplainAgain,
    in_other_words,
    own_examples,
    room_for_own,
    sampling_params,
)
from edgeelad.training.schedule import num_steps


def draw_own(run: Run, number: int) -> None:
    """Write what the next student is trained on for nothing; none if the pool has no answers.

    Of the explanations that were scored in this round and not asked about, right ones; and of these, and of all that
    was verified, the wordings that the student that scored them samples. The audit and test questions are not among
    them.
    """
    here = run.folder.round(number)
    outputs = (here.own.path, here.reworded.path)
    if not run.config.training.own_examples or here.student.exists() or run.folder.is_done(*outputs):
        return
    verified = run.examples(number) if run.pool.has_answers else []
    if not verified:
        return
    with run.folder.stage(number, "own", *outputs):
        own = _own(run, number, len(verified))
        run.progress.start(f"Round {number}: student explains again what is right", len(verified) + len(own))
        again = _explain_again(run, number, _num_passes(run, len(verified), len(own)))
        for file, examples, num_before in ((here.reworded, verified, 0), (here.own, own, len(verified))):
            if not file.exists():  # else the process was killed while it wrote the other
                file.extend(partial(_rows, run, examples, again, num_before))
        rows = [*here.reworded.read(), *here.own.read()]
        run.progress.finish(f"{sum(len(row.others) for row in rows):,} other wordings")


def drop_own(run: Run, number: int) -> None:
    """Drop what was drawn for a student that is not taught yet, since more of the round will be verified."""
    here = run.folder.round(number)
    files = (here.own, here.reworded)
    run.folder.digests.forget(file.path for file in files)
    for path in (path for file in files for path in (file.path, file.begun)):
        with storage_errors(path):
            path.unlink(missing_ok=True)


def _own(run: Run, number: int, num_verified: int) -> list[Example]:
    """The student's own explanations of questions that were not asked, by id of the question."""
    num, rng = _room(run, num_verified), run.rng(number, "own")
    rows = scored_with_answers(run, number) if num else []
    risks = corrected_risks(run, rows)
    asked = {row.id for row in run.folder.round(number).selected.read()}
    trees = {row.id: _tree(run.pool[row.id], row) for row in rows if row.steps and row.id not in asked}
    questions = [run.pool[id_] for id_ in trees]
    return own_examples(questions, trees, {id_: risks[id_] for id_ in trees}, num, rng)


def _rows(
    run: Run, examples: Sequence[Example], again: ExplainAgain, num_before: int, last: OwnRow | None
) -> Iterator[OwnRow]:
    """The examples that follow the last one that was written, in other words; counted after those before."""
    places = {example.question.id: place for place, example in enumerate(examples, start=1)}
    num_done = 0 if last is None else places[last.id]

    def rows() -> Iterator[OwnRow]:
        for place, item in enumerate(in_other_words(examples, again, num_done), start=num_done + 1):
            yield OwnRow(item.question.id, item.steps, item.answer, item.others)
            run.progress.update(num_before + place)

    return rows()


def _explain_again(run: Run, number: int, num_passes: float) -> ExplainAgain:
    """What samples the explanations of questions, for so many passes over the examples."""
    params = sampling_params(run.config.scoring.max_explanation_tokens, run.seed(number, "own"), num_passes)

    def explain_again(questions: Sequence[Question]) -> Iterator[ReasoningTree]:
        return round_trees(run, number, questions, params, "is taught in one wording", are_few=True)

    return explain_again


def _room(run: Run, num_verified: int) -> int:
    """How many are drawn: what the planned steps have room for, or more if their number follows the examples'."""
    config = run.config.training
    num_others, num_seen = _planned(run, num_verified)
    room = room_for_own(num_seen, num_others, num_verified)
    return room if config.max_steps is not None else max(room, int(config.own_examples * num_verified))


def _num_passes(run: Run, num_verified: int, num_own: int) -> float:
    """How often an example is seen; steps are added for the student's own unless their number is set."""
    num_others, num_seen = _planned(run, num_verified)
    return num_seen / (num_others + (num_own if run.config.training.max_steps is not None else 0))


def _planned(run: Run, num_verified: int) -> tuple[int, int]:
    """Without the student's own: the number of examples, and how many are seen, each as often as it is repeated."""
    config, num_others = run.config.training, len(run.seed_examples) + num_verified
    return num_others, num_steps(config, num_others, config.num_processes) * config.examples_per_step


def _tree(question: Question, row: ScoreRow) -> ReasoningTree:
    """The greedy explanation alone."""
    return ReasoningTree(question, row.explanation, row.steps, row.answer, "stop", (), (), ())
