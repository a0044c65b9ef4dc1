"""The facts about a student that its package states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgeelad.engine.graph_files import Precision
from edgeelad.records import AnswerKind, Certificate, Question

MIN_GOLDEN = 5
# these fill up fewer golden questions than MIN_GOLDEN; any text will do, because a graph is compared with itself
SPARE_GOLDEN = (
    "Tom has 3 apples and buys 4 more. How many apples does Tom have?",
    "A box holds 6 pens. How many pens are in 5 boxes?",
    "Anna had 20 euros and spent 7. How much money is left?",
    "A train goes 60 miles an hour. How far does it go in 3 hours?",
    "Ben shares 12 cookies among 4 friends. How many does each get?",
)


@dataclass(frozen=True, slots=True)
class PackageInfo:
    """The facts about a student that its package states.

    Attributes:
        base_model: The student's base model, a folder or a Hugging Face id.
        quantization: Precision of the graph that ships.
        golden_questions: Questions whose explanations are recorded, for `verify` on another device.
        metrics: Figures of the run by name; None for an unknown one.
        certificate: The outcome of the last look at the audit sample, or None.
        max_explanation_tokens: Maximum tokens per explanation in the run.
        include_fp32: Whether the package contains the fp32 graph as well as the quantized one.
        include_scoring: Whether the package contains the weights for scoring pools and serving several clients at full
            speed, if they are not those for one question at a time.
        name: Name under which the student is served; default: after the base model.
    """

    base_model: str
    quantization: Precision
    golden_questions: tuple[Question, ...]
    metrics: Mapping[str, float | int | str | None] = field(default_factory=dict)
    certificate: Certificate | None = None
    max_explanation_tokens: int = 256
    include_fp32: bool = False
    include_scoring: bool = False
    name: str | None = None

    @property
    def served_name(self) -> str:
        """The student's name: as given, else after the base model's last path component."""
        if self.name:
            return self.name
        base = self.base_model.replace("\\", "/").rstrip("/").rpartition("/")[2]
        return f"{base}-edgeelad" if base else "edgeelad-student"

    @property
    def answer_kind(self) -> AnswerKind:
        """The kind of the pool's answers; "text" if they are of several kinds."""
        kinds = {question.kind for question in self.golden_questions}
        return next(iter(kinds)) if len(kinds) == 1 else "text"

    @property
    def all_golden(self) -> tuple[Question, ...]:
        """The golden questions, at least MIN_GOLDEN."""
        num_spare = max(0, MIN_GOLDEN - len(self.golden_questions))
        spare = (Question(f"spare-{i}", text, "text") for i, text in enumerate(SPARE_GOLDEN[:num_spare]))
        return (*self.golden_questions, *spare)
