"""Write annotations in the forms that other training tools read (TRL's).

Forms: `sft` a chat of question and explanation; `prompt-completion` the same as two texts; `stepwise` the student's
steps with a label each, for process reward models; `preference` the corrected step against the flawed one, after the
steps before it (Step-DPO). Takes annotations with their questions; writes JSON lines or Parquet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from edgeelad.errors import MissingExtraError, UsageError
from edgeelad.files import atomic_file, storage_errors, write_jsonl
from edgeelad.records import Annotation, Question
from edgeelad.text import explanation
from edgeelad.text.prompts import question_text

Row = dict[str, Any]


def export_annotations(
    annotations: Iterable[tuple[Question, Annotation]],
    form: str,
    out: Path,
    prompt: Callable[[Question], str] = question_text,
) -> int:
    """Write annotations in one of `FORMS`; returns the number of rows. Questions set aside have none.

    Args:
        annotations: Annotations with their questions.
        form: A name in `FORMS`.
        out: Ends in .jsonl or .parquet.
        prompt: How a question is put; default: its text with its choices.

    Raises:
        UsageError: An unknown form or ending.
        StorageError: `out` cannot be written.
        MissingExtraError: pyarrow is not installed (parquet only).
    """
    if form not in FORMS:
        raise UsageError(f"--format {form}: expected one of {', '.join(FORMS)}")
    rows = (
        row
        for question, annotation in annotations
        if annotation.is_usable
        for row in FORMS[form](prompt(question), annotation)
    )
    if out.suffix == ".jsonl":
        return write_jsonl(out, rows)
    if out.suffix == ".parquet":
        return _write_parquet(out, list(rows))
    raise UsageError(f"{out}: expected a name that ends in .jsonl or .parquet")


def _sft(prompt: str, annotation: Annotation) -> list[Row]:
    chat = [{"role": "user", "content": prompt}, {"role": "assistant", "content": _text(annotation)}]
    return [{"messages": chat}]


def _prompt_completion(prompt: str, annotation: Annotation) -> list[Row]:
    return [{"prompt": prompt, "completion": _text(annotation)}]


def _stepwise(prompt: str, annotation: Annotation) -> list[Row]:
    """The accepted chain, all of it right; and the student's steps up to the first one that the teacher corrected."""
    rows = [{"prompt": prompt, "completions": list(annotation.steps), "labels": [True] * len(annotation.steps)}]
    first = next((item for item in annotation.corrections if item.source == "teacher"), None)
    if first is not None and annotation.student_steps[first.step : first.step + 1] == (first.before,):
        shown = annotation.student_steps[: first.step + 1]
        rows.append({"prompt": prompt, "completions": list(shown), "labels": [True] * first.step + [False]})
    return rows


def _preference(prompt: str, annotation: Annotation) -> list[Row]:
    """A row for each correction that stands in the accepted chain."""
    return [
        {
            "prompt": f"{prompt}\n{explanation.join_steps(annotation.steps[: item.step])}",
            "chosen": item.after,
            "rejected": item.before,
        }
        for item in annotation.corrections
        if item.before and annotation.steps[item.step : item.step + 1] == (item.after,)
    ]


FORMS: dict[str, Callable[[str, Annotation], list[Row]]] = {
    "sft": _sft,
    "prompt-completion": _prompt_completion,
    "stepwise": _stepwise,
    "preference": _preference,
}


def _text(annotation: Annotation) -> str:
    assert annotation.answer is not None, "a usable annotation has an answer"
    return explanation.join(annotation.steps, annotation.answer)


def _write_parquet(out: Path, rows: list[Row]) -> int:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError("pyarrow", "data", "writing parquet") from None
    with atomic_file(out) as file, storage_errors(out):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return len(rows)
