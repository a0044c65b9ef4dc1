"""A run in progress: the record that every stage is given, and what several stages read from the run folder."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgeelad.config import RunConfig, TeacherConfig
from edgeelad.engine.codec import Codec
from edgeelad.engine.options import num_cores
from edgeelad.engine.tree import TreeParams
from edgeelad.pool.store import Pool
from edgeelad.progress import Progress
from edgeelad.records import Annotation, Example, Question
from edgeelad.run.folder import RunFolder
from edgeelad.run.records import AuditRow, TeacherStage
from edgeelad.run.scores import read_risk
from edgeelad.selection import selection_strategy
from edgeelad.teacher import open_teacher
from edgeelad.teacher.ledger.totals import RunTotals, run_totals
from edgeelad.teacher.protocol import Teacher
from edgeelad.teacher.style import with_examples
from edgeelad.uncertainty import COLD_START, RiskModel, Strategy, full_tree_params


@dataclass(frozen=True, slots=True)
class OwnParts:
    """Python objects that a caller brings instead of naming a built-in or installed part in the configuration."""

    teacher: Teacher | None = None
    strategy: Strategy | None = None


# what decides whether the teacher is asked, and whether its replies can be used
LIMITS = (
    "model", "fallback_url", "fallback_model",
    "max_usd", "max_requests", "max_prompt_tokens", "max_completion_tokens_total", "max_questions",
    "max_completion_tokens", "max_reasoning_tokens", "reasoning_effort", "structured", "token_parameter",
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """A run in progress.

    Attributes:
        config: The configuration as resolved.
        folder: The run folder.
        progress: Receives progress and warnings.
        pool: Every question of the pool that is not held out for testing.
        test: Labeled questions held out for testing; empty if there are none.
        audit: The audit sample: never selected, never trained on.
        too_long: Ids of questions that leave no room for an explanation in the student's context.
        seed_examples: Examples mixed into every fine-tuning.
        id: Distinguishes the run's spending from that of others in a shared ledger.
        own: Objects of the caller's that take the place of what the configuration names.
        copies: Ids of questions with the text of a test or audit question, which would be known by heart there.
    """

    config: RunConfig
    folder: RunFolder
    progress: Progress
    pool: Pool
    test: tuple[Question, ...]
    audit: tuple[Question, ...]
    too_long: frozenset[str]
    seed_examples: tuple[Example, ...]
    id: str
    own: OwnParts = field(default_factory=OwnParts)
    copies: frozenset[str] = frozenset()

    @property
    def strategy(self) -> Strategy | None:
        """The strategy that scores the pool; None if questions are selected by their texts."""
        return self.own.strategy or selection_strategy(self.config.selection.strategy)

    @property
    def askable(self) -> Pool:
        """Questions that may be selected: not audited, not too long, no copies of test or audit questions."""
        return self.pool.without({question.id for question in self.audit} | self.too_long | self.copies)

    @property
    def num_workers(self) -> int:
        """Worker processes for scoring."""
        return self.config.scoring.num_workers or num_cores()

    @property
    def ledger(self) -> Path:
        """Where the teacher's exchanges are kept."""
        return ledger_path(self.config, self.folder)

    @property
    def limits(self) -> dict[str, float | str | None]:
        """The teacher's caps, and the settings that decide whether its replies can be used."""
        return {name: getattr(self.config.teacher, name) for name in LIMITS}

    def totals(self) -> RunTotals:
        """What the run has bought so far, by its ledger."""
        annotations = (item for here in self.folder.rounds() for item in here.annotations.read_if_there())
        return run_totals(self.ledger, self.id, self.config.teacher, annotations)

    def record_teacher(self, number: int, budget: str | None, *, is_again: bool) -> None:
        """Record how the teacher's work on a round ended; work that was only done again leaves the figures."""
        file = self.folder.round(number).teacher
        if not (is_again and file.exists() and file.read().limits == self.limits):
            file.write(TeacherStage(self.totals().usage, self.limits, budget))

    def seed(self, round_number: int, stage: str) -> int:
        """The seed of one stage of one round."""
        return derive_seed(self.config.run.seed, round_number, stage)

    def rng(self, round_number: int, stage: str) -> np.random.Generator:
        """The generator of one stage of one round: the same whatever ran before it."""
        return np.random.default_rng(self.seed(round_number, stage))

    @property
    def teacher_config(self) -> TeacherConfig:
        """The teacher's configuration, with the examples of style that it is shown."""
        return with_examples(self.config.teacher, self.seed_examples)

    def teacher(self) -> AbstractContextManager[Teacher]:
        """Open the run's teacher; the student's tokenizer counts tokens for endpoints that do not report usage."""
        codec = Codec.load(self.folder.round(0).student)
        return open_teacher(
            self.teacher_config,
            self.ledger,
            self.pool,
            run=self.id,
            count_tokens=lambda text: len(codec.encode_completion(text)),
            is_replay=self.config.run.replay,
            say=self.progress.warn,
            own=self.own.teacher,
        )

    def audit_rows(self) -> list[AuditRow]:
        """The teacher's answers to the audit sample; empty if there is no audit."""
        return list(self.folder.audit.read_if_there())

    def annotations(self, last_round: int) -> Iterator[Annotation]:
        """All annotations up to a round, in the order in which they were bought."""
        for number in range(1, last_round + 1):
            yield from self.folder.round(number).annotations.read_if_there()

    def examples(self, last_round: int) -> list[Example]:
        """Every verified explanation up to a round."""
        return [
            Example(self.pool[item.question_id], item.steps, item.answer)
            for item in self.annotations(last_round)
            if item.is_usable and item.answer is not None
        ]

    def risk_model(self, number: int) -> RiskModel:
        """The model of a round that estimates how likely the student is wrong; the cold start if nothing was scored."""
        file = self.folder.round(number).risk
        return read_risk(file.path) if file.exists() else COLD_START

    def tree_params(self, number: int) -> TreeParams:
        """The trees that the teacher's work starts from: with the seed of the scores that chose the questions."""
        return full_tree_params(self.config.scoring, self.seed(number, "score"))


def ledger_path(config: RunConfig, folder: RunFolder) -> Path:
    """Where a run's exchanges with the teacher are kept."""
    return Path(config.run.ledger) if config.run.ledger else folder.ledger


def derive_seed(seed: int, round_number: int, stage: str) -> int:
    """A seed for one stage of one round, in [0, 2^31)."""
    state = np.random.SeedSequence([seed, round_number, zlib.crc32(stage.encode())]).generate_state(1)
    return int(state[0] >> 1)
