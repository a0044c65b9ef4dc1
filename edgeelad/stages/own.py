"""Draw from the student's own explanations of questions that were not asked, where the pool has the answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgeelad.engine.options import EngineOptions
from edgeelad.engine.student import Student
from edgeelad.progress import track
from edgeelad.records import Example, Question, ReasoningTree
from edgeelad.run.records import OwnRow
from edgeelad.run.scores import ScoreRow
from edgeelad.stages.risks import corrected_risks, scored_with_answers
from edgeelad.stages.run import Run
from edgeelad.teacher.plan.own_examples import in_other_words, own_examples, room_for_own, sampling_params
from edgeelad.training.schedule import num_steps


def draw_own(run: Run, number: int) -> None:
    """Write the student's own explanations that the next student is trained on; none if the pool has no answers.

    They are those that were scored in this round and not asked, in the wordings that the student that scored them
    samples. The audit and test questions are not among them.
    """
    here = run.folder.round(number)
    num = 0 if here.student.exists() else _room(run, number)
    if not num or run.folder.is_done(here.own.path):
        return
    rng = run.rng(number, "own")
    with run.folder.stage(number, "own", here.own.path):
        rows = scored_with_answers(run, number)
        risks = corrected_risks(run, rows)
        asked = {row.id for row in here.selected.read()}
        trees = {row.id: _tree(run.pool[row.id], row) for row in rows if row.steps and row.id not in asked}
        questions = [run.pool[id_] for id_ in trees]
        found = own_examples(questions, trees, {id_: risks[id_] for id_ in trees}, num, rng)
        here.own.write(
            OwnRow(example.question.id, example.steps, example.answer, example.others)
            for example in _in_other_words(run, number, found)
        )


def _in_other_words(run: Run, number: int, examples: Sequence[Example]) -> Iterator[Example]:
    if not examples:  # no student is opened for nothing
        return
    config = run.config.scoring
    options = EngineOptions(num_threads=run.num_workers, batch_size=config.batch_size)
    params = sampling_params(config.max_explanation_tokens, run.seed(number, "own"))
    run.progress.start(f"Round {number}: student explains again what it explains rightly", len(examples))
    with Student.open(run.folder.round(number - 1).onnx, options) as student:
        found = in_other_words(examples, lambda questions: student.generate_trees(questions, params))
        num_others = 0
        for example in track(found, run.progress):
            num_others += len(example.others)
            yield example
    run.progress.finish(f"{num_others:,} other wordings")


def _room(run: Run, number: int) -> int:
    """How many are drawn: what the planned steps have room for, or more if their number follows the examples'."""
    config = run.config.training
    if not config.own_examples:
        return 0
    num_verified = sum(item.is_usable for item in run.annotations(number))
    num_others = len(run.seed_examples) + num_verified
    num_seen = num_steps(config, num_others, config.num_processes) * config.examples_per_step
    room = room_for_own(num_seen, num_others, num_verified)
    return room if config.max_steps is not None else max(room, int(config.own_examples * num_verified))


def _tree(question: Question, row: ScoreRow) -> ReasoningTree:
    """The greedy explanation alone."""
    return ReasoningTree(question, row.explanation, row.steps, row.answer, "stop", (), (), ())
