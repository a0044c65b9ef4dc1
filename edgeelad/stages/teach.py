"""The stages that change the student and look at what became of it: fine-tune, export, evaluate."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeelad.accuracy import agreement, cohens_kappa
from edgeelad.accuracy import evaluate as evaluate_trees
from edgeelad.engine.tree import greedy_params
from edgeelad.engine.workers import SetAside, generate_trees
from edgeelad.files import read_json, read_jsonl, write_json, write_jsonl
from edgeelad.progress import track
from edgeelad.records import Certificate, Evaluation, Example, Question, ReasoningTree
from edgeelad.stages.run import Run, derive_seed, ledger_path
from edgeelad.stopping import certify
from edgeelad.teacher.ledger.totals import run_totals
from edgeelad.text.answers import agree


def fine_tune(run: Run, number: int) -> None:
    """Teach the student everything verified so far, from the base student (or the last, if so configured)."""
    from edgeelad.training import fine_tune as train

    here = run.folder.round(number)
    if here.student.exists():
        return
    start = 0 if run.config.training.restart else number - 1
    examples = [*run.seed_examples, *annotated_examples(run, number)]
    run.progress.start(f"Round {number}: fine-tuning on {len(examples):,} examples")
    with run.folder.stage(number, "fine-tune"):
        result = train(
            run.folder.round(start).student,
            examples,
            here.student,
            run.config.training,
            derive_seed(run.config.run.seed, number, "fine-tune"),
            progress=lambda step, total, loss: run.progress.update(step, f"loss {loss:.3f}", total=total),
        )
    if result.num_skipped:
        run.progress.warn(f"{result.num_skipped} examples do not fit the student's context and were not trained on")
    run.progress.finish(f"loss {result.final_loss:.3f}")
    if result.warning is not None:
        run.progress.warn(result.warning)


def annotated_examples(run: Run, last_round: int) -> list[Example]:
    """Every verified explanation bought up to a round, in the order it was bought."""
    return [
        Example(run.pool[row["question_id"]], tuple(row["steps"]), row["answer"])
        for number in range(1, last_round + 1)
        for row in read_jsonl(run.folder.round(number).annotations)
        if row["status"] != "set_aside"
    ]


def export(run: Run, number: int) -> None:
    """Export a round's student to ONNX, check it against torch, and quantize it."""
    from edgeelad.export import export_student

    here = run.folder.round(number)
    if here.onnx.exists():
        return
    questions = [question for question in run.pool.values() if question.id not in run.too_long]
    run.progress.start(f"Round {number}: exporting to ONNX")
    with run.folder.stage(number, "export"):
        result = export_student(
            here.student,
            here.onnx,
            run.config.export,
            parity_questions=questions[: run.config.export.num_parity_prompts],
            previous=run.folder.round(number - 1).onnx if number else None,
        )
    how = ", weights put into the last round's graphs" if result.graphs == "swapped" else ""
    run.progress.finish(f"parity {result.max_logit_difference:.1e}{how}")
    if result.warning is not None:
        run.progress.warn(result.warning)


def evaluate(run: Run, number: int) -> None:
    """Accuracy on the test questions, agreement with the teacher on the audit, and whether quantization keeps both."""
    here = run.folder.round(number)
    if not here.metrics.exists():
        run.progress.start(f"Round {number}: evaluating")
        with run.folder.stage(number, "evaluate"):
            trained = [example.question for example in annotated_examples(run, number)]
            trees = _explain(run, here.onnx, [*run.test, *run.audit, *trained], "fp32")
            packaged = _packaged_answers(run, here.onnx)
            rows = _answer_rows(run, number, trees, packaged)
            write_jsonl(here.answers, rows)
        write_json(here.metrics, _metrics(run, number, rows, trees))
        run.progress.finish(_headline(read_json(here.metrics)))
    write_jsonl(run.folder.metrics, (read_json(run.folder.round(n).metrics) for n in range(number + 1)))


def _explain(run: Run, onnx: Path, questions: Sequence[Question], precision: str) -> dict[str, ReasoningTree]:
    """The student's greedy explanation of each question, by id; one that kills its process has none, and no answer."""
    config = run.config.scoring
    unexplained: dict[str, ReasoningTree] = {}

    def without_answer(aside: SetAside) -> None:
        run.progress.warn(f"question {aside.question.id} counts as not answered: {aside.reason}")
        unexplained[aside.question.id] = ReasoningTree(aside.question, "", (), None, "length", (), (), ())

    trees = generate_trees(
        onnx,
        questions,
        greedy_params(config.max_explanation_tokens),
        num_workers=run.num_workers if len(questions) > 64 else 1,
        batch_size=config.batch_size,
        precision="int8" if precision == "int8" else "fp32",
        on_set_aside=without_answer,
    )
    return {tree.question.id: tree for tree in track(trees, run.progress)} | unexplained


def _packaged_answers(run: Run, onnx: Path) -> dict[str, str | None] | None:
    """The quantized student's answers on test and audit; None where nothing is quantized."""
    if run.config.export.quantize == "none":
        return None
    return {id_: tree.answer for id_, tree in _explain(run, onnx, [*run.test, *run.audit], "int8").items()}


def _answer_rows(
    run: Run, number: int, trees: dict[str, ReasoningTree], packaged: dict[str, str | None] | None
) -> list[dict[str, Any]]:
    """One row an evaluated question: its split, the reference answer, the student's and the quantized student's."""
    references = {row["id"]: row["answer"] for row in audit_rows(run)}
    taught = {example.question.id: example.answer for example in annotated_examples(run, number)}
    rows = []
    for split, questions in (("test", run.test), ("audit", run.audit), ("trained", [run.pool[id_] for id_ in taught])):
        for question in questions:
            reference = {"test": question.answer, "audit": references.get(question.id)}.get(
                split, taught.get(question.id)
            )
            rows.append(
                {
                    "id": question.id,
                    "split": split,
                    "reference": reference,
                    "answer": trees[question.id].answer,
                    "package_answer": packaged.get(question.id) if packaged is not None else None,
                    "is_correct": agree(trees[question.id].answer, reference),
                }
            )
    return rows


def _metrics(run: Run, number: int, rows: list[dict[str, Any]], trees: dict[str, ReasoningTree]) -> dict[str, Any]:
    here, config = run.folder.round(number), run.config
    held_out = [row for row in rows if row["split"] != "trained"]
    fp32 = {row["id"]: row["answer"] for row in held_out}
    quantized = {row["id"]: row["package_answer"] for row in held_out}
    test = evaluate_trees([trees[question.id] for question in run.test], run.test) if run.test else None
    shipping, same = "fp32", None
    if config.export.quantize != "none" and held_out:
        same = agreement(fp32, quantized).share_of_answered
        shipping = config.export.quantize if same >= config.export.min_agreement else "fp32"
    shipped = fp32 if shipping == "fp32" else quantized
    annotations = [row for n in range(1, number + 1) for row in read_jsonl(run.folder.round(n).annotations)]
    scores = list(read_jsonl(here.scores)) if number and here.scores.exists() else []  # text strategies write none
    usage = run_totals(ledger_path(config, run.folder), run.id, config.teacher).usage
    return {
        "round": number,
        "selected": sum(1 for _ in read_jsonl(here.selected)) if number else 0,
        "annotated": sum(row["status"] != "set_aside" for row in annotations),
        "set_aside": sum(row["status"] == "set_aside" for row in annotations),
        **_test_figures(test),
        "package_accuracy": _accuracy(quantized, run.test) if same is not None and run.test else None,
        "package_agreement": same,
        "shipping": shipping,
        "agreement": _look(run, number, shipped),
        "kappa": _kappa(run, number, fp32),
        "trained_wrong": sum(not row["is_correct"] for row in rows if row["split"] == "trained"),
        "outliers": _outliers(run, number, rows),
        "teacher": dataclasses.asdict(usage),
        "rungs": dict(Counter(row["rung"] for row in annotations if row["rung"])),
        "statuses": dict(Counter(row["status"] for row in annotations)),
        "student_tokens": sum(row["num_tokens"] for row in scores),
        "mean_score": sum(row["score"] for row in scores) / len(scores) if scores else None,
        "seconds": run.folder.seconds_by_stage(number),
    }


def _test_figures(test: Evaluation | None) -> dict[str, Any]:
    if test is None:
        return {"accuracy": None, "accuracy_strict": None, "low": None, "high": None, "num_test": 0, "by_skill": {}}
    return {
        "accuracy": test.accuracy,
        "accuracy_strict": test.accuracy_strict,
        "low": test.low,
        "high": test.high,
        "num_test": test.num_questions,
        "num_unanswered": test.num_unanswered,
        "by_skill": {skill: list(counts) for skill, counts in test.by_skill.items()},
    }


def _accuracy(answers: dict[str, str | None], test: Sequence[Question]) -> float:
    return sum(agree(answers[question.id], question.answer) for question in test) / len(test)


def _look(run: Run, number: int, answers: dict[str, str | None]) -> dict[str, Any] | None:
    """Compare student and teacher on the audit; from round 1 on, each look spends its share of α."""
    audited = [row for row in audit_rows(run) if row["answer"] is not None]
    if not audited:
        return None
    disagreements = sum(not agree(answers[row["id"]], row["answer"]) for row in audited)
    if number == 0:  # the base student is not a candidate: looking at it spends nothing and certifies nothing
        return {"k": disagreements, "n": len(audited), "upper": None, "lower": None, "alpha": None}
    look = certificate(run, number, disagreements, len(audited))
    return {
        "k": disagreements,
        "n": len(audited),
        "upper": look.upper,
        "lower": look.lower,
        "alpha": look.alpha,
        "is_certified": look.is_certified,
    }


def certificate(run: Run, look: int, num_disagreements: int, num_audited: int) -> Certificate:
    """The certificate of one look at the audit, under the run's claim."""
    stopping = run.config.stopping
    population = len(run.pool) if stopping.claim == "pool" else None
    return certify(num_disagreements, num_audited, population, look, stopping.epsilon, stopping.alpha)


def _kappa(run: Run, number: int, answers: dict[str, str | None]) -> float | None:
    """Cohen's κ of this student's answers with the last one's, on questions that neither was trained on."""
    if number == 0:
        return None
    before = {row["id"]: row["answer"] for row in read_jsonl(run.folder.round(number - 1).answers)}
    both = [id_ for id_ in answers if id_ in before]
    return cohens_kappa([before[id_] for id_ in both], [answers[id_] for id_ in both]) if both else None


def _outliers(run: Run, number: int, rows: list[dict[str, Any]]) -> list[str]:
    """Questions still answered wrongly after two rounds of training on them (Karamcheti et al. 2021)."""
    if number < 2:
        return []
    before = read_jsonl(run.folder.round(number - 1).answers)
    wrong = {row["id"] for row in before if row["split"] == "trained" and not row["is_correct"]}
    return sorted(
        row["id"] for row in rows if row["split"] == "trained" and not row["is_correct"] and row["id"] in wrong
    )


def audit_rows(run: Run) -> list[dict[str, Any]]:
    """The audit sample's rows; empty where there is no audit."""
    return list(read_jsonl(run.folder.audit)) if run.folder.audit.exists() else []


def _headline(metrics: dict[str, Any]) -> str:
    parts = []
    if metrics["accuracy"] is not None:
        parts.append(f"accuracy {metrics['accuracy']:.3f}")
    if metrics["agreement"] is not None:
        parts.append(
            f"agrees with the teacher on {metrics['agreement']['n'] - metrics['agreement']['k']}"
            f" of {metrics['agreement']['n']}"
        )
    return ", ".join(parts)
