"""The stages that end a run: the reason to stop, the package, the summary."""

from __future__ import annotations

from collections import Counter
from typing import Any

from edgeelad.config import TeacherConfig
from edgeelad.files import read_json, read_jsonl, write_json
from edgeelad.package import PackageInfo, write_package
from edgeelad.report import write_report
from edgeelad.stages.run import Run
from edgeelad.stages.teach import audit_rows, certificate
from edgeelad.stopping import RoundOutcome, should_stop

CAPS = ("max_usd", "max_requests", "max_prompt_tokens", "max_completion_tokens_total", "max_questions")
Summary = dict[str, Any]


def caps(config: TeacherConfig) -> dict[str, Any]:
    """The caps that a run was under."""
    return {name: getattr(config, name) for name in CAPS}


def reason_to_stop(run: Run, number: int) -> str | None:
    """Why the run stops after a round, or None: certified, budget, max_rounds, or more data no longer helps."""
    if number == 0:
        return None
    reason = should_stop([_outcome(run, earlier) for earlier in range(number + 1)], run.config.stopping)
    if reason is not None:
        return reason
    if _budget_stop(run, number) is not None:
        return "budget"
    return "max_rounds" if number >= run.config.selection.num_rounds else None


def reason_without_annotations(run: Run, number: int) -> str:
    """Why a round whose batch brought nothing usable ends the run: the budget, or a teacher that settled nothing."""
    if _budget_stop(run, number) is not None:
        return "budget"
    reasons = Counter(row["reason"] for row in read_jsonl(run.folder.round(number).annotations))
    ((most_common, count),) = reasons.most_common(1) or [("nothing was selected", 0)]
    run.progress.warn(f"round {number}: the teacher settled none of the questions; {count} times: {most_common}")
    return "no_annotations"


def package(run: Run, number: int) -> None:
    """Write the folder that ships, from a round's student."""
    metrics = read_json(run.folder.round(number).metrics)
    quantize, same = run.config.export.quantize, metrics["package_agreement"]
    if same is not None and metrics["shipping"] == "fp32":
        run.progress.warn(
            f"the {quantize} student gives fp32's answer on only {same:.1%} of questions (export.min_agreement is "
            f"{run.config.export.min_agreement:.0%}): fp32 is packaged instead"
        )
    run.progress.start("Packaging")
    with run.folder.stage(number, "package"):
        write_package(
            run.folder.round(number).onnx,
            run.folder.package,
            PackageInfo(
                base_model=str(run.config.student.model),
                quantization=metrics["shipping"],
                include_fp32=run.config.export.include_fp32,
                golden_questions=tuple(list(run.test or run.pool.values())[:8]),
                metrics={
                    "accuracy_fp32": metrics["accuracy"],
                    f"accuracy_{run.config.export.quantize}": metrics["package_accuracy"],
                    "same_answers_as_fp32": metrics["package_agreement"],
                    "num_test": metrics["num_test"],
                    "annotated": metrics["annotated"],
                },
                certificate=_certificate(run, number),
                max_explanation_tokens=run.config.scoring.max_explanation_tokens,
            ),
        )
    run.progress.finish(str(run.folder.package))


def summarize(run: Run, number: int, reason: str) -> Summary:
    """Write and give the run's summary, and the report."""
    metrics, base = read_json(run.folder.round(number).metrics), read_json(run.folder.round(0).metrics)
    summary: Summary = {
        "stopped_because": reason,
        "rounds": number,
        "pool": len(run.pool),
        "too_long": len(run.too_long),
        "annotated": metrics["annotated"],
        "set_aside": metrics["set_aside"],
        "base_accuracy": base["accuracy"],
        "accuracy": metrics["accuracy"],
        "package_accuracy": metrics["package_accuracy"] if metrics["shipping"] != "fp32" else metrics["accuracy"],
        "package_agreement": metrics["package_agreement"] if metrics["shipping"] != "fp32" else 1.0,
        "quantization": metrics["shipping"],
        "certificate": _certificate(run, number),
        "teacher": metrics["teacher"],
        "teacher_self_agreement": _self_agreement(run),
        "seconds": run.folder.seconds_by_stage(),
        "student": run.config.student.model,
        "strategy": run.config.selection.strategy,
        "seed": run.config.run.seed,
    }
    write_json(run.folder.summary, summary)
    write_report(run.folder.path)
    return summary


def _outcome(run: Run, number: int) -> RoundOutcome:
    metrics = read_json(run.folder.round(number).metrics)
    look = metrics["agreement"]
    is_look = number > 0 and look is not None
    return RoundOutcome(
        round=number,
        accuracy=metrics["accuracy"],
        certificate=certificate(run, number, look["k"], look["n"]) if is_look else None,
        kappa_with_previous=metrics["kappa"],
    )


def _certificate(run: Run, number: int) -> dict[str, Any] | None:
    outcome = _outcome(run, number).certificate
    if outcome is None:
        return None
    names = (
        "look",
        "num_audited",
        "num_disagreements",
        "population",
        "alpha",
        "epsilon",
        "upper",
        "lower",
        "confidence",
    )
    return {**{name: getattr(outcome, name) for name in names}, "is_certified": outcome.is_certified}


def _self_agreement(run: Run) -> dict[str, int] | None:
    checked = [row for row in audit_rows(run) if row["is_checked"] and row["answer"] is not None]
    if not checked:
        return None
    return {"same": sum(row["answer"] == row["second_answer"] for row in checked), "asked_twice": len(checked)}


def _budget_stop(run: Run, number: int) -> str | None:
    """What the budget said when it stopped a round's revision; None where it did not, or caps were changed since."""
    path = run.folder.round(number).path / "budget.json"
    if not path.exists():
        return None
    stop = read_json(path)
    return str(stop["reason"]) if stop["caps"] == caps(run.config.teacher) else None
