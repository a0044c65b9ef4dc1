"""`edgeelad run`, `verify` and `push`: the commands of the device that a package runs on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeelad.cli.shared import JSON, PATH
from edgeelad.cli.terminal import write, write_json

if TYPE_CHECKING:
    from edgeelad.api.student import LoadedStudent


@click.command()
@click.argument("package", type=PATH)
@click.argument("question")
@click.option("--max-tokens", type=click.IntRange(min=1), help="Maximum tokens to generate; default: the package's.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads of the ONNX session; default: one per core.")
@JSON
def run(package: Path, question: str, max_tokens: int | None, threads: int | None, as_json: bool) -> None:
    """Ask a packaged student a question: streams the explanation, then the answer.

    PACKAGE is a folder, or a repository of the Hugging Face Hub: org/model, or org/model@revision.
    """
    from edgeelad.api.student import load
    from edgeelad.engine.options import num_cores

    with load(package, num_threads=threads or num_cores()) as student:
        if as_json:
            explanation = student.explain(question, max_tokens=max_tokens)
            names = ("question", "steps", "answer", "text", "finish_reason")
            write_json({name: getattr(explanation, name) for name in names})
            return
        for piece in explain_aloud(student, question, max_tokens):
            write(piece, newline=False)


def explain_aloud(student: LoadedStudent, question: str, max_tokens: int | None = None) -> Iterator[str]:
    """Yield an explanation as it is generated, ending with its answer and a newline.

    Raises:
        UsageError: The question is empty.
        PromptTooLongError: The question leaves no room for an explanation in the student's context.
    """
    from edgeelad.text.explanation import split

    text, finish_reason = yield from student.stream(question, max_tokens=max_tokens)
    if not text.endswith("\n"):
        yield "\n"
    # the answer line ends the text; an answer that is stated otherwise, or not at all, is reported here
    if split(text).answer_line is None:
        from edgeelad.edge.question import make_question
        from edgeelad.engine.tree import read_answer

        answer = read_answer(text, make_question(question, student.info.answer_kind), finish_reason)
        yield f"(answer: {answer})\n" if answer is not None else "(no answer was stated)\n"


@click.command()
@click.argument("package", type=PATH)
@JSON
def verify(package: Path, as_json: bool) -> int:
    """Check a package on this device: checksums, operators, golden outputs, speed and memory."""
    from edgeelad.package.hub import find_package
    from edgeelad.package.verify import verify_package

    report = verify_package(find_package(package))
    write_json(report.to_json()) if as_json else write(report.text())
    return 0 if report.is_ok else 1


@click.command()
@click.argument("package", type=PATH)
@click.argument("repository", metavar="ORG/MODEL")
@click.option("--public", "is_public", is_flag=True, help="Make a new repository public; default: private.")
@JSON
def push(package: Path, repository: str, is_public: bool, as_json: bool) -> None:
    """Verify a package and upload it to the Hugging Face Hub, with the token in HF_TOKEN."""
    from edgeelad.package.hub import push_package

    upload = push_package(package, repository, is_public=is_public)
    if as_json:
        write_json(asdict(upload))
        return
    for name, size in upload.files:
        write(f"{name}  {size:,} bytes")
    write(f"{upload.url}  {upload.commit}")
