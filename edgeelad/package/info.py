"""What a run hands over with the student that it packages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgeelad.engine.graph_files import Precision
from edgeelad.records import AnswerKind, Certificate, Question

MIN_GOLDEN = 5
# where a run gives fewer golden questions than MIN_GOLDEN, these join them: any text will do, for what is compared is
# what this graph wrote with what it writes
SPARE_GOLDEN = (
    "Tom has 3 apples and buys 4 more. How many apples does Tom have?",
    "A box holds 6 pens. How many pens are in 5 boxes?",
    "Anna had 20 euros and spent 7. How much money is left?",
    "A train goes 60 miles an hour. How far does it go in 3 hours?",
    "Ben shares 12 cookies among 4 friends. How many does each get?",
)


@dataclass(frozen=True, slots=True)
class PackageInfo:
    """What is written into a package beside the student.

    Attributes:
        base_model: The student's base model, a folder or a Hugging Face id.
        quantization: Precision of the graph that ships.
        golden_questions: Questions whose explanations are recorded, for `verify` on another device.
        metrics: Figures of the run, by name; None where one is not known.
        certificate: The outcome of the last look at the audit sample or None.
        max_explanation_tokens: Tokens after which an explanation was cut in the run.
        include_fp32: Whether the fp32 graph is put into the package beside the quantized one.
        name: What the student is called when it is served; default: after the base model.
    """

    base_model: str
    quantization: Precision
    golden_questions: tuple[Question, ...]
    metrics: Mapping[str, float | int | str | None] = field(default_factory=dict)
    certificate: Certificate | None = None
    max_explanation_tokens: int = 256
    include_fp32: bool = False
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
        """The kind of the pool's answers; "text" where they are of several kinds."""
        kinds = {question.kind for question in self.golden_questions}
        return next(iter(kinds)) if len(kinds) == 1 else "text"

    @property
    def all_golden(self) -> tuple[Question, ...]:
        """The golden questions, at least MIN_GOLDEN."""
        num_spare = max(0, MIN_GOLDEN - len(self.golden_questions))
        spare = (Question(f"spare-{i}", text, "text") for i, text in enumerate(SPARE_GOLDEN[:num_spare]))
        return (*self.golden_questions, *spare)
