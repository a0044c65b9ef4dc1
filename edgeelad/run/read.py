"""Read what a run folder says of a run, into records; nothing is computed here.

Reads `summary.json`, `metrics.jsonl`, `config.toml`, `teacher_check.json` and each round's `scores.jsonl`,
`selected.jsonl` and `annotations.jsonl`. A file or field that is not there yet is None or empty, so a run under way can
be shown too; one that is damaged is an error. Scores are streamed: a pool of a million questions costs eight megabytes.
"""

from __future__ import annotations

import sys
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from edgeelad.errors import RunError
from edgeelad.files import read_json, read_jsonl
from edgeelad.records import Annotation, Certificate, Correction, TeacherUsage
from edgeelad.run.records import (
    MAX_SHOWN_PER_ROUND,
    AuditLook,
    RoundMetrics,
    RoundQuestions,
    Run,
    RunSummary,
    ScoredExplanation,
    SelectedQuestion,
    SelfAgreement,
)
from edgeelad.run.teacher_check import CHECK_FILE, check_from_json

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib

Row = TypeVar("Row")


def read_run(folder: Path) -> Run:
    """Read a run folder.

    Raises:
        RunError: It is no run folder, it has no results yet, or a file in it is damaged.
    """
    if not folder.is_dir():
        raise RunError(f"{folder}: no such run folder; give the folder that `edgeelad distill --out` wrote")
    summary_path, metrics_path = folder / "summary.json", folder / "metrics.jsonl"
    summary = _one(summary_path, read_json(summary_path), _summary) if summary_path.exists() else None
    metrics = tuple(_each(metrics_path, _round_metrics)) if metrics_path.exists() else ()
    if summary is None and not metrics:
        raise RunError(
            f"{folder}: no results to report: neither summary.json nor metrics.jsonl is there; "
            "if this is a run, go on with it: edgeelad distill FOLDER --resume"
        )
    rounds = tuple(_read_round(path) for path in sorted((folder / "rounds").glob("[0-9]*")) if _is_selected(path))
    check_path = folder / CHECK_FILE
    check = _one(check_path, read_json(check_path), check_from_json) if check_path.exists() else None
    return Run(folder, summary, metrics, rounds, _settings(folder / "config.toml"), check)


def _is_selected(path: Path) -> bool:
    return path.name.isdigit() and (path / "selected.jsonl").exists()


def _read_round(path: Path) -> RoundQuestions:
    """Read one round; of annotations and scores, only those of questions that will be shown are kept."""
    selected = list(_each(path / "selected.jsonl", _selected))
    selected.sort(key=lambda row: (-(row.score if row.score is not None else 0.0), row.id))
    annotations_path = path / "annotations.jsonl"
    annotations = (
        {row.question_id: row for row in _each(annotations_path, _annotation)} if annotations_path.exists() else {}
    )
    aside = [row for row in selected if row.id in annotations and not annotations[row.id].is_usable]
    settled = [row for row in selected if row.id in annotations and annotations[row.id].is_usable]
    shown = (*settled[:MAX_SHOWN_PER_ROUND], *aside[:MAX_SHOWN_PER_ROUND])
    explanations, pool_scores = _read_scores(path / "scores.jsonl", {row.id for row in shown})
    return RoundQuestions(
        number=int(path.name),
        num_selected=len(selected),
        shown=tuple(settled[:MAX_SHOWN_PER_ROUND]),
        set_aside=tuple(aside[:MAX_SHOWN_PER_ROUND]),
        num_settled=len(settled),
        num_set_aside=len(aside),
        statuses=Counter(row.status for row in annotations.values()),
        rungs=Counter(row.rung for row in annotations.values() if row.rung),
        reasons=Counter(row.reason for row in annotations.values() if not row.is_usable),
        annotations={row.id: annotations[row.id] for row in shown},
        explanations=explanations,
        pool_scores=pool_scores,
        selected_scores=tuple(row.score for row in selected if row.score is not None),
    )


def _read_scores(path: Path, wanted: set[str]) -> tuple[dict[str, ScoredExplanation], array[float]]:
    explanations: dict[str, ScoredExplanation] = {}
    scores: array[float] = array("d")
    if path.exists():
        for question_id, score, explanation in _each(path, lambda row: _scored(row, wanted)):
            scores.append(score)
            if explanation is not None:
                explanations[question_id] = explanation
    return explanations, scores


def _each(path: Path, parse: Callable[[Any], Row]) -> Iterator[Row]:
    for number, row in enumerate(read_jsonl(path), start=1):
        yield _one(path, row, parse, f":{number}")


def _one(path: Path, row: Any, parse: Callable[[Any], Row], place: str = "") -> Row:
    try:
        return parse(row)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"field {error} is missing" if isinstance(error, KeyError) else str(error)
        raise RunError(
            f"{path}{place}: not what edgeelad writes ({what}); restore it, or delete it and --resume"
        ) from (error)


def _summary(row: Any) -> RunSummary:
    certificate, teacher, twice = row.get("certificate"), row.get("teacher"), row.get("teacher_self_agreement")
    taken_apart = ("certificate", "teacher", "teacher_self_agreement", "seconds")
    taken_as_is = {name: row.get(name) for name in RunSummary.__dataclass_fields__ if name not in taken_apart}
    return RunSummary(
        **taken_as_is,
        certificate=None
        if certificate is None
        else Certificate(**{name: certificate[name] for name in Certificate.__dataclass_fields__}),
        teacher=None if teacher is None else _usage(teacher),
        teacher_self_agreement=None if twice is None else SelfAgreement(int(twice["same"]), int(twice["asked_twice"])),
        seconds=_seconds(row.get("seconds")),
    )


def _round_metrics(row: Any) -> RoundMetrics:
    look = row.get("agreement")
    return RoundMetrics(
        round=int(row["round"]),
        annotated=int(row.get("annotated") or 0),
        set_aside=int(row.get("set_aside") or 0),
        selected=int(row.get("selected") or 0),
        accuracy=_float(row.get("accuracy")),
        accuracy_strict=_float(row.get("accuracy_strict")),
        low=_float(row.get("low")),
        high=_float(row.get("high")),
        num_test=row.get("num_test"),
        package_accuracy=_float(row.get("package_accuracy")),
        package_agreement=_float(row.get("package_agreement")),
        by_skill={skill: (int(right), int(total)) for skill, (right, total) in (row.get("by_skill") or {}).items()},
        agreement=None
        if look is None
        else AuditLook(int(look["k"]), int(look["n"]), _float(look.get("upper")), _float(look.get("lower"))),
        kappa=_float(row.get("kappa")),
        teacher=_usage(row.get("teacher") or {}),
        student_tokens=row.get("student_tokens"),
        seconds=_seconds(row.get("seconds")),
        mean_score=_float(row.get("mean_score")),
    )


def _float(value: Any) -> float | None:
    return None if value is None else float(value)


def _selected(row: Any) -> SelectedQuestion:
    question = row["question"]
    is_record = isinstance(question, Mapping)
    return SelectedQuestion(
        id=str(row["id"]),
        text=str(question["text"] if is_record else question),
        choices=tuple(question.get("choices") or ()) if is_record else (),
        reason=str(row.get("reason") or "score"),
        score=_float(row.get("score")),
        propensity=_float(row.get("propensity")),
    )


def _annotation(row: Any) -> Annotation:
    return Annotation(
        question_id=str(row["question_id"]),
        status=row["status"],
        rung=row.get("rung") or "",
        steps=tuple(row.get("steps") or ()),
        answer=row.get("answer"),
        reason=row.get("reason") or "",
        student_steps=tuple(row.get("student_steps") or ()),
        corrections=tuple(
            Correction(int(item["step"]), item["before"], item["after"], item["source"])
            for item in row.get("corrections") or ()
        ),
        usage=_usage(row.get("usage") or {}),
    )


def _scored(row: Any, wanted: set[str]) -> tuple[str, float, ScoredExplanation | None]:
    question_id = str(row["id"])
    if question_id not in wanted:
        return question_id, float(row["score"]), None
    explanation = ScoredExplanation(
        steps=tuple(row.get("steps") or ()),
        step_scores=tuple(float(score) for score in row.get("step_scores") or ()),
        answer=row.get("answer"),
        branch_answers=tuple(tuple(group) for group in row.get("branch_answers") or ()),
    )
    return question_id, float(row["score"]), explanation


def _usage(row: Mapping[str, Any]) -> TeacherUsage:
    return TeacherUsage(
        requests=int(row.get("requests") or 0),
        prompt_tokens=int(row.get("prompt_tokens") or 0),
        completion_tokens=int(row.get("completion_tokens") or 0),
        cost_usd=_float(row.get("cost_usd")),
        num_estimated=int(row.get("num_estimated") or 0),
    )


def _seconds(row: Mapping[str, Any] | None) -> dict[str, float]:
    return {stage: float(seconds) for stage, seconds in (row or {}).items()}


def _settings(path: Path) -> dict[str, dict[str, Any]]:
    if not path.exists():
        return {}
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RunError(
            f"{path}: damaged ({error}); restore it, or delete it to have the report made without"
        ) from error
    return {section: keys for section, keys in data.items() if isinstance(keys, dict)}
