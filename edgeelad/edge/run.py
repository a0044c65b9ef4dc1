"""Ask a packaged student one question: `edgeelad run`.

Takes a question as text, gives the explanation as it is written, or the whole of it with the answer that it states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from edgeelad.engine.options import EngineOptions
from edgeelad.engine.student import Student
from edgeelad.errors import UsageError
from edgeelad.files import dump_json
from edgeelad.package.open import Package, open_package
from edgeelad.records import AnswerKind, Question, ReasoningTree
from edgeelad.text.answers import extract
from edgeelad.text.explanation import split


def open_student(package: Package, *, num_threads: int = 1) -> AbstractContextManager[Student]:
    """The package's student, on the graph that ships."""
    return Student.open(package.path, EngineOptions.for_device(package.precision, num_threads))


def make_question(text: str, kind: AnswerKind) -> Question:
    """A question that was typed in, with its choices, if any, in its text.

    Raises:
        UsageError: It is empty or not text.
    """
    if not text.strip():
        raise UsageError('the question is empty; give it in quotes, for example: edgeelad run PACKAGE "What is 2 + 3?"')
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(f"the question is not UTF-8 at character {error.start}; set a UTF-8 locale") from error
    return Question("question", text, kind)


def answer_question(student: Student, question: Question, max_tokens: int) -> ReasoningTree:
    """The student's greedy explanation of a question, with its steps and answer.

    Raises:
        PromptTooLongError: The question leaves no room for an explanation in the student's context.
    """
    (tree,) = student.explain([question], max_tokens)
    return tree


def stream_answer(student: Student, question: Question, max_tokens: int) -> Iterator[str]:
    """The same explanation, piece by piece as it is written; the pieces joined are its text.

    Raises:
        PromptTooLongError: The question leaves no room for an explanation in the student's context.
    """
    return student.stream(question, max_tokens)


def answer_text(package: Path, question: str, max_tokens: int | None = None) -> str:
    """The explanation that a packaged student gives, as text.

    Raises:
        PackageError, ModelError: The package cannot be used.
    """
    pieces: list[str] = []
    run_question(package, question, max_tokens=max_tokens, as_json=False, write=pieces.append)
    return "".join(pieces).rstrip("\n")


def run_question(
    package: Path, question: str, *, max_tokens: int | None = None, as_json: bool = False, write: Callable[[str], None]
) -> None:
    """Ask a packaged student a question and write its explanation as it comes, ending with the answer.

    Args:
        package: The package folder.
        question: The question.
        max_tokens: Tokens to generate at most; default: as in the run that made the package.
        as_json: Write one JSON object (question, steps, answer, text, finish_reason) in the end, and no stream.
        write: Receives the text, newlines included.

    Raises:
        UsageError: The question is empty.
        PackageError, ModelError: The package cannot be used.
        PromptTooLongError: The question leaves no room for an explanation in the student's context.
    """
    opened = open_package(package)
    asked = make_question(question, opened.manifest.answer_kind)
    limit = max_tokens or opened.manifest.max_explanation_tokens
    with open_student(opened) as student:
        if as_json:
            tree = answer_question(student, asked, limit)
            row = {"question": question, "steps": tree.steps, "answer": tree.answer, "text": tree.text}
            write(dump_json({**row, "finish_reason": tree.finish_reason}) + "\n")
            return
        text = ""
        for piece in stream_answer(student, asked, limit):
            text += piece
            write(piece)
    write("" if text.endswith("\n") else "\n")
    # the answer line ends the stream; where the student stated its answer otherwise, or not at all, this says so
    if split(text).answer_line is None:
        answer = extract(text, asked.kind, asked.choices)
        write(f"(answer: {answer})\n" if answer is not None else "(no answer was stated)\n")
