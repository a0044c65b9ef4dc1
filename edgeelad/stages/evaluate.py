"""Evaluate a round's student: accuracy on the test questions, agreement with the teacher, the quantized student."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgeelad.accuracy import agreement, cohens_kappa
from edgeelad.accuracy import evaluate as evaluate_trees
from edgeelad.config import ScoringConfig
from edgeelad.engine.graph_files import Precision
from edgeelad.engine.options import EngineOptions
from edgeelad.engine.tree import greedy_params
from edgeelad.engine.workers import SetAside, generate_trees
from edgeelad.progress import track
from edgeelad.records import AuditCounts, Certificate, Question, ReasoningTree, TeacherUsage
from edgeelad.run.records import AnswerRow, RoundMetrics
from edgeelad.run.scores import ScoreRow
from edgeelad.stages.run import Run
from edgeelad.stopping import certify, count_disagreements
from edgeelad.text.answers import agree
from edgeelad.uncertainty.traces import elad_tokens

Answers = Mapping[str, str | None]
# a first student has hardly moved if it changed fewer than this share of the answers, while this share is still wrong
MIN_CHANGED, MIN_WRONG = 0.05, 0.1


def evaluate(run: Run, number: int) -> None:
    """Evaluate a round's student on the test questions, the audit and what it was trained on."""
    here = run.folder.round(number)
    outputs = (here.answers.path, here.metrics.path)
    if not run.folder.is_done(*outputs):
        run.progress.start(f"Round {number}: evaluating")
        with run.folder.stage(number, "evaluate", *outputs):
            taught = {example.question.id: example.answer for example in run.examples(number)}
            asked = [*run.test, *run.audit, *(run.pool[id_] for id_ in taught)]
            trees = explain(run, here.onnx, asked, "fp32")
            rows = _answer_rows(run, taught, trees, _packaged_answers(run, here.onnx))
            here.answers.write(rows)
            metrics = _metrics(run, number, rows, trees)
            here.metrics.write(metrics)
        run.progress.finish(_headline(metrics))
        if metrics.warning is not None:
            run.progress.warn(metrics.warning)
    finished = [run.folder.round(n).metrics.read() for n in range(number + 1)]
    with run.folder.digests.recording(run.folder.metrics.path, is_derived=True):
        run.folder.metrics.write(replace(row, seconds=run.folder.seconds_by_stage(row.round)) for row in finished)


def explain(run: Run, onnx: Path, questions: Sequence[Question], precision: Precision) -> dict[str, ReasoningTree]:
    """The student's greedy explanation of each question, by id; one that kills its process has none, and no answer."""
    config = run.config.scoring
    unexplained: dict[str, ReasoningTree] = {}

    def without_answer(aside: SetAside) -> None:
        run.progress.warn(f"question {aside.question.id} counts as not answered: {aside.reason}")
        unexplained[aside.question.id] = ReasoningTree(aside.question, "", (), None, "length", (), (), ())

    options = EngineOptions(
        run.num_workers if len(questions) > 64 else 1,
        batch_size=config.batch_size,
        precision=precision,
        graph="lanes" if precision == "fp32" else "engine",  # of a quantized student, the graph that ships
    )
    params = greedy_params(config.max_explanation_tokens)
    trees = generate_trees(onnx, questions, params, options, on_set_aside=without_answer)
    return {tree.question.id: tree for tree in track(trees, run.progress)} | unexplained


def _packaged_answers(run: Run, onnx: Path) -> Answers | None:
    """The quantized student's answers on test and audit; None if nothing is quantized."""
    quantize = run.config.export.quantize
    if quantize == "none":
        return None
    return {id_: tree.answer for id_, tree in explain(run, onnx, [*run.test, *run.audit], quantize).items()}


def _answer_rows(
    run: Run, taught: Answers, trees: Mapping[str, ReasoningTree], packaged: Answers | None
) -> list[AnswerRow]:
    audited = {row.id: row.answer for row in run.audit_rows()}
    splits: tuple[tuple[str, Answers], ...] = (
        ("test", {question.id: question.answer for question in run.test}),
        ("audit", {question.id: audited.get(question.id) for question in run.audit}),
        ("trained", taught),
    )
    return [
        AnswerRow(
            id=id_,
            split=split,  # type: ignore[arg-type]  # one of the three above
            reference=reference,
            answer=trees[id_].answer,
            package_answer=packaged.get(id_) if packaged is not None else None,
            is_correct=agree(trees[id_].answer, reference),
        )
        for split, references in splits
        for id_, reference in references.items()
    ]


def _metrics(run: Run, number: int, rows: Sequence[AnswerRow], trees: Mapping[str, ReasoningTree]) -> RoundMetrics:
    here, config = run.folder.round(number), run.config
    held_out = [row for row in rows if row.split != "trained"]
    fp32 = {row.id: row.answer for row in held_out}
    quantized = {row.id: row.package_answer for row in held_out}
    test = evaluate_trees([trees[question.id] for question in run.test], run.test) if run.test else None
    shipping, same, lost = "fp32", None, None
    if config.export.quantize != "none" and held_out:
        same, lost = agreement(fp32, quantized).share_of_answered, accuracy_lost(held_out)
        if is_close(same, lost, config.export.min_agreement):
            shipping = config.export.quantize
    counts = _audit_counts(run, fp32 if shipping == "fp32" else quantized)
    before = {row.id: row.answer for row in run.folder.round(number - 1).answers.read()} if number else None
    num_changed = None if before is None else sum(before.get(id_) != answer for id_, answer in fp32.items())
    annotations = list(run.annotations(number))
    scored = _ScoredPool.of(here.scores.read_if_there(), config.scoring)
    return RoundMetrics(
        round=number,
        selected=sum(1 for _ in here.selected.read_if_there()),
        annotated=sum(item.is_usable for item in annotations),
        set_aside=sum(not item.is_usable for item in annotations),
        accuracy=None if test is None else test.accuracy,
        accuracy_strict=None if test is None else test.accuracy_strict,
        low=None if test is None else test.low,
        high=None if test is None else test.high,
        num_unanswered=None if test is None else test.num_unanswered,
        num_test=len(run.test),
        by_skill=test.by_skill if test else {},
        package_accuracy=_accuracy(quantized, run.test) if same is not None and run.test else None,
        package_agreement=same,
        package_accuracy_lost=lost,
        shipping=shipping,  # type: ignore[arg-type]
        agreement=counts,
        certificate=_look(run, number, counts),
        kappa=None if before is None else _kappa(before, fp32),
        num_changed=num_changed,
        warning=hardly_moved(run, held_out, num_changed) if number == 1 and num_changed is not None else None,
        trained_wrong=sum(not row.is_correct for row in rows if row.split == "trained"),
        outliers=_outliers(run, number, rows),
        teacher=here.teacher.read().usage if here.teacher.exists() else TeacherUsage(),
        rungs=dict(Counter(item.rung for item in annotations if item.rung)),
        statuses=dict(Counter(item.status for item in annotations)),
        student_tokens=scored.student_tokens,
        mean_score=scored.mean_score,
        elad_tokens=scored.elad_tokens,
    )


def accuracy_lost(rows: Sequence[AnswerRow]) -> float | None:
    """fp32's accuracy less the quantized student's, on rows with a known answer; None if there are none."""
    known = [row for row in rows if row.reference is not None]
    if not known:
        return None
    return sum(bool(row.is_correct) - agree(row.package_answer, row.reference) for row in known) / len(known)


def is_close(same: float, lost: float | None, min_agreement: float) -> bool:
    """Whether a quantized student may ship instead of fp32.

    Equal answers on 95 % of questions mean that no more than 5 points of accuracy are lost. A weak student changes many
    of its wrong answers into other wrong ones; so where accuracy is known, it decides as well.

    Args:
        same: Share of questions with the same answer.
        lost: Accuracy lost, if known.
        min_agreement: `export.min_agreement`.
    """
    return same >= min_agreement or (lost is not None and round(lost, 9) <= round(1 - min_agreement, 9))


@dataclass(frozen=True, slots=True)
class _ScoredPool:
    """Figures over all scored questions of a round: student tokens, mean score, and what `elad` would have taken."""

    student_tokens: int = 0
    mean_score: float | None = None
    elad_tokens: int = 0

    @classmethod
    def of(cls, rows: Iterable[ScoreRow], config: ScoringConfig) -> _ScoredPool:
        """Read the rows once; they may be many."""
        count, spent, total, elad = 0, 0, 0.0, 0
        for row in rows:
            count, spent, total = count + 1, spent + row.num_tokens, total + row.score
            elad += elad_tokens(row.traces, config.num_branches, config.num_explanations)
        return cls(spent, total / count if count else None, elad)


def _accuracy(answers: Answers, test: Sequence[Question]) -> float:
    return sum(agree(answers[question.id], question.answer) for question in test) / len(test)


def _audit_counts(run: Run, answers: Answers) -> AuditCounts | None:
    teacher = {row.id: row.answer for row in run.audit_rows()}
    return count_disagreements(teacher, answers) if teacher else None


def _look(run: Run, number: int, counts: AuditCounts | None) -> Certificate | None:
    """Look at the audit, which spends the look's share of α; the base student is no candidate, so it gets none."""
    if number == 0 or counts is None:
        return None
    stopping = run.config.stopping
    # the sample was drawn from the questions that fit the student
    population = len(run.pool) - len(run.too_long) if stopping.claim == "pool" else None
    return certify(
        counts.num_disagreements,
        counts.num_audited,
        population,
        number,
        stopping.epsilon,
        stopping.alpha,
        counts.num_unanswered,
    )


def _kappa(before: Answers, answers: Answers) -> float | None:
    """Cohen's κ of this student's answers with the last one's, on questions that neither was trained on."""
    both = [id_ for id_ in answers if id_ in before]
    return cohens_kappa([before[id_] for id_ in both], [answers[id_] for id_ in both]) if both else None


def hardly_moved(run: Run, held_out: Sequence[AnswerRow], num_changed: int) -> str | None:
    """Warn of a first student that answers almost as the base student does, though there is much to learn."""
    num_wrong = sum(not row.is_correct for row in held_out if row.reference is not None)
    if num_changed >= MIN_CHANGED * len(held_out) or num_wrong < MIN_WRONG * len(held_out):
        return None
    training = run.folder.round(1).training.read()
    return (
        f"the student hardly moved: it changed its answer to {num_changed} of {len(held_out)} held-out questions and "
        f"still answers {num_wrong} wrong. It was fine-tuned for {training.num_steps} steps, "
        f"{training.num_passes:g} passes over the examples, at a learning rate of {training.learning_rate:.1e}; raise "
        "training.learning_rate, training.epochs or training.min_steps in a new run"
    )


def _outliers(run: Run, number: int, rows: Sequence[AnswerRow]) -> tuple[str, ...]:
    """Questions still answered wrong after two rounds of training on them (Karamcheti et al. 2021)."""
    if number < 2:
        return ()
    before = _trained_wrong(run.folder.round(number - 1).answers.read())
    return tuple(sorted(_trained_wrong(rows) & before))


def _trained_wrong(rows: Iterable[AnswerRow]) -> set[str]:
    return {row.id for row in rows if row.split == "trained" and not row.is_correct}


def _headline(metrics: RoundMetrics) -> str:
    parts = []
    if metrics.accuracy is not None:
        parts.append(f"accuracy {metrics.accuracy:.3f}")
    if (counts := metrics.agreement) is not None:
        num_same = counts.num_audited - counts.num_disagreements
        parts.append(f"agrees with the teacher on {num_same} of {counts.num_audited}")
    return ", ".join(parts)
