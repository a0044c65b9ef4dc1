"""Load a student and have it explain questions, without torch."""

from __future__ import annotations

import math
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from edgeelad.edge.question import make_question
from edgeelad.engine.engine_graph import open_engine
from edgeelad.engine.graph_files import Precision, find_graphs
from edgeelad.engine.options import EngineOptions
from edgeelad.errors import PackageError, UsageError
from edgeelad.package.hub import find_package
from edgeelad.package.open import is_package, open_package
from edgeelad.records import AnswerKind, FinishReason, Question, ReasoningTree

if TYPE_CHECKING:
    from edgeelad.engine.student import Student

MAX_TOKENS = 256  # of a student without a package


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a student writes about a question.

    Attributes:
        question: The question.
        steps: The reasoning, one step per line of the text.
        answer: The answer in canonical form; None if the text states none.
        text: The whole text as generated, with its answer line.
        mean_logprob: Mean log-probability of the tokens (nats, at most 0).
        finish_reason: "eos" or "stop": complete; "length": cut at the maximum number of tokens.
    """

    question: str
    steps: tuple[str, ...]
    answer: str | None
    text: str
    mean_logprob: float
    finish_reason: FinishReason

    @property
    def confidence(self) -> float:
        """Geometric mean probability of the tokens, from 0 to 1.

        It ranks explanations of one student; it is not the probability that the answer is right. How well sampled
        explanations agree says more and costs more: `edgeelad.score(student, pool, "disagreement")`.
        """
        return math.exp(self.mean_logprob)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class StudentInfo:
    """What a student's folder tells about it.

    Attributes:
        path: The folder.
        name: Its name; the folder's name if it is not a package.
        answer_kind: Type of its answers: "number", "choice", "boolean" or "text".
        max_tokens: Maximum tokens per explanation, unless a call says otherwise.
        precision: Precision of its weights: "fp32", "int8" or "int4".
    """

    path: Path
    name: str
    answer_kind: AnswerKind
    max_tokens: int
    precision: Precision


class LoadedStudent:
    """A student in memory, made by `load`. Use it as a context manager, or close it.

    It explains one question at a time; threads that share it must take turns.

    Attributes:
        info: Its folder, name, type of answers, limit and precision.
    """

    def __init__(self, student: Student, info: StudentInfo) -> None:
        self.info = info
        self._student: Student | None = student

    def explain(self, question: str | Question, *, max_tokens: int | None = None) -> Explanation:
        """Explain a question: steps, answer and confidence.

        Args:
            question: A text, or a `Question` (which can have choices and a type of its own).
            max_tokens: Maximum tokens to generate; default: as in the run that made the student.

        Raises:
            UsageError: The question is empty, or the student is closed.
            PromptTooLongError: The question leaves no room for an explanation.
        """
        asked = self._question(question)
        (tree,) = self._opened.explain([asked], max_tokens or self.info.max_tokens)
        return make_explanation(tree)

    def stream(
        self, question: str | Question, *, max_tokens: int | None = None
    ) -> Generator[str, None, tuple[str, FinishReason]]:
        """Yield the text of `explain` piece by piece, as it is generated.

        Args:
            question: As for `explain`.
            max_tokens: As for `explain`.

        Returns:
            The whole text, and why it ended: the value of `yield from`.

        Raises:
            UsageError, PromptTooLongError: As `explain`.
        """
        return self._opened.stream(self._question(question), max_tokens or self.info.max_tokens)

    def close(self) -> None:
        """Release the session and its memory. Idempotent."""
        if self._student is not None:
            self._student.close()
            self._student = None

    def __enter__(self) -> LoadedStudent:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        info = self.info
        return f"<edgeelad student {info.name!r}: {info.precision}, answers: {info.answer_kind}, from {info.path}>"

    @property
    def _opened(self) -> Student:
        if self._student is None:
            raise UsageError(f"the student from {self.info.path} is closed; load it again with edgeelad.load")
        return self._student

    def _question(self, question: str | Question) -> Question:
        if isinstance(question, str):
            return make_question(question, self.info.answer_kind)
        if not question.text.strip():
            raise UsageError(f"question {question.id} is empty")
        return question


def load(path: str | Path, *, num_threads: int = 1, precision: Precision | None = None) -> LoadedStudent:
    """Load a student, ready to explain questions. Needs no torch.

    >>> with edgeelad.load(package) as student:
    ...     explanation = student.explain("What is 3 + 4?")
    >>> explanation.answer is None or explanation.answer.isdigit()
    True

    Args:
        path: A package, a folder that `edgeelad export` wrote, or a package on the Hugging Face Hub: "org/model", or
            "org/model@revision" with a branch, a tag or a commit. It is kept in huggingface_hub's cache.
        num_threads: Threads of the ONNX session.
        precision: Precision to load, if the folder has several; default: what the package ships, else fp32.

    Raises:
        PackageError: No such folder, or files are missing, torn or altered in size.
        HubError: The package cannot be downloaded.
        ModelError: The student cannot be loaded.
    """
    info = describe(path, precision, is_device=precision is None)
    options = EngineOptions.for_device(info.precision, num_threads)
    # ONNX Runtime opens a graph without Python's lock: meanwhile the other modules are imported, and the tokenizer read
    with ThreadPoolExecutor(max_workers=1) as thread:
        engine = thread.submit(open_engine, info.path, options)
        from edgeelad.engine.student import Student

        return LoadedStudent(Student.open(info.path, options, engine.result), info)


def describe(path: str | Path, precision: Precision | None = None, *, is_device: bool = False) -> StudentInfo:
    """Read what a student's folder tells about it, without loading the student; see `load` and `open_package`.

    Raises:
        PackageError, HubError, ModelError: As `load`.
    """
    folder = find_package(path)
    if not folder.is_dir():
        raise PackageError(f"{folder}: no such folder; name a package or an exported student")
    if not is_package(folder):
        found = find_graphs(folder, precision).precision
        return StudentInfo(folder, folder.resolve().name, "text", MAX_TOKENS, found)
    package = open_package(folder, is_device=is_device)
    manifest = package.manifest
    found = find_graphs(folder, precision or package.precision).precision
    return StudentInfo(folder, manifest.name, manifest.answer_kind, manifest.max_explanation_tokens, found)


def make_explanation(tree: ReasoningTree) -> Explanation:
    """Take what users of the API see from a reasoning tree."""
    return Explanation(tree.question.text, tree.steps, tree.answer, tree.text, tree.mean_logprob, tree.finish_reason)
