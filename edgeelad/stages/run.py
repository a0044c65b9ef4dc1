"""Open a run: read the pool once, split it into test, audit and askable questions, and prepare the base student."""

from __future__ import annotations

import platform
import shutil
import uuid
import zlib
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

import edgeelad
from edgeelad.config import RunConfig, dump_toml
from edgeelad.engine.codec import Codec
from edgeelad.engine.student import fits
from edgeelad.engine.workers import num_cores
from edgeelad.errors import ConfigError, PoolError, RunError
from edgeelad.files import read_json, storage_errors, write_json, write_text
from edgeelad.pool import load_pool, read_examples
from edgeelad.pool.fingerprint import pool_fingerprint
from edgeelad.progress import Progress
from edgeelad.records import Example, Question
from edgeelad.run.folder import RunFolder
from edgeelad.selection import check_strategy
from edgeelad.stopping import draw_audit
from edgeelad.teacher import open_teacher
from edgeelad.teacher.protocol import Teacher


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """A run under way: what every stage needs to know.

    Attributes:
        config: The configuration as resolved.
        folder: The run folder.
        progress: Where progress is told.
        pool: Every question of the pool that is not held out for testing.
        test: Labeled questions held out for testing; empty where the pool has no answers.
        audit: The audit sample: never selected, never trained on.
        too_long: Ids of questions that leave no room for an explanation in the student's context.
        seed_examples: Examples mixed into every fine-tuning.
        id: Tells the run's spending from that of others in a shared ledger.
    """

    config: RunConfig
    folder: RunFolder
    progress: Progress
    pool: dict[str, Question]
    test: tuple[Question, ...]
    audit: tuple[Question, ...]
    too_long: frozenset[str]
    seed_examples: tuple[Example, ...]
    id: str

    @property
    def askable(self) -> list[Question]:
        """Questions that may be selected: in the pool, not audited, not too long; in the pool's order."""
        audited = {question.id for question in self.audit}
        return [q for q in self.pool.values() if q.id not in audited and q.id not in self.too_long]

    def rng(self, round_number: int, stage: str) -> np.random.Generator:
        """The generator of one stage of one round: the same whatever ran before it."""
        return np.random.default_rng(derive_seed(self.config.run.seed, round_number, stage))

    def teacher(self) -> AbstractContextManager[Teacher]:
        """The run's teacher, opened; tokens that an endpoint does not tell are counted with the student's tokenizer."""
        codec = Codec.load(self.folder.round(0).student)
        return open_teacher(
            self.config.teacher,
            ledger_path(self.config, self.folder),
            self.pool,
            run=self.id,
            count_tokens=lambda text: len(codec.encode_completion(text)),
            is_replay=self.config.run.replay,
        )

    @property
    def num_workers(self) -> int:
        """Worker processes for scoring."""
        return self.config.scoring.num_workers or num_cores()


def derive_seed(seed: int, round_number: int, stage: str) -> int:
    """A seed for one stage of one round, in [0, 2^31)."""
    state = np.random.SeedSequence([seed, round_number, zlib.crc32(stage.encode())]).generate_state(1)
    return int(state[0] >> 1)


def open_run(config: RunConfig, folder: RunFolder, progress: Progress) -> Run:
    """Read the pool, prepare the base student, and draw the test and audit samples; or find them as they were drawn.

    Raises:
        ConfigError: The configuration lacks a pool or a student.
        PoolError: The pool cannot be read, or nothing in it can be asked.
        RunError: The run folder belongs to another pool.
    """
    if config.pool.path is None:
        raise ConfigError("pool.path is not set: name the file of questions, for example --pool questions.jsonl")
    if config.student.model is None:
        raise ConfigError(
            "student.model is not set: name a model folder or a Hugging Face id, for example --student DIR"
        )
    check_strategy(config.selection.strategy)
    with storage_errors(folder.path):
        folder.path.mkdir(parents=True, exist_ok=True)
    # a teacher that cannot be asked is said now, not when the student has been prepared and scored
    with open_teacher(config.teacher, ledger_path(config, folder), {}, is_replay=config.run.replay):
        pass
    progress.start("Reading the pool")
    questions = {question.id: question for question in load_pool(config.pool)}
    seeds = _seed_examples(config)
    progress.finish(f"{len(questions):,} questions")
    _record_config(config, folder)
    split = _split(config, folder, questions, progress)
    test_ids = set(split["test"])
    if config.pool.test_path is not None:
        named = config.pool.model_copy(update={"path": config.pool.test_path, "limit": None})
        test = tuple(_labeled(load_pool(named)))[: config.pool.max_test]
    else:
        test = tuple(questions[id_] for id_ in split["test"])
    return Run(
        config=config,
        folder=folder,
        progress=progress,
        pool={id_: question for id_, question in questions.items() if id_ not in test_ids},
        test=test,
        audit=tuple(questions[id_] for id_ in split["audit"]),
        too_long=frozenset(split["too_long"]),
        seed_examples=seeds,
        id=split["run_id"],
    )


def ledger_path(config: RunConfig, folder: RunFolder) -> Path:
    """Where the teacher's exchanges are kept."""
    return Path(config.run.ledger) if config.run.ledger else folder.ledger


def _record_config(config: RunConfig, folder: RunFolder) -> None:
    """Write config.toml; until the pool is split nothing has begun, and another configuration may take its place."""
    text = dump_toml(config, header=_versions())
    if folder.pool.exists() or (folder.config.exists() and folder.config.read_text(encoding="utf-8") == text):
        return
    student = folder.round(0).student
    if student.exists():
        with storage_errors(student):
            shutil.rmtree(student)
    write_text(folder.config, text)


def prepare_base(run: Run) -> None:
    """Export the base student, which `open_run` has prepared, as the student of round 0."""
    from edgeelad.stages.teach import export

    export(run, 0)


def _split(config: RunConfig, folder: RunFolder, questions: dict[str, Question], progress: Progress) -> dict[str, Any]:
    # the dataset teacher teaches the pool's explanations; any other never sees them
    fingerprint, _ = pool_fingerprint(questions.values(), explanations=config.teacher.kind == "dataset")
    if folder.pool.exists():
        split = read_json(folder.pool)
        if split["fingerprint"] != fingerprint:
            raise RunError(
                f"{folder.path}: this run was started on another pool than {config.pool.path} holds now; "
                "restore the pool, or start a new run with another --out"
            )
        return dict(split)
    student = _prepare_student(config, folder, progress)
    codec = Codec.load(student)
    too_long = [question.id for question in questions.values() if not fits(codec, question)]
    if too_long:
        progress.warn(
            f"{len(too_long):,} questions do not fit the student's context and are set aside: {too_long[0]}, …"
        )
    rest = [question for question in questions.values() if question.id not in set(too_long)]
    test: list[Question] = []
    if config.pool.test_path is None:
        labeled = _labeled(rest)
        num_test = min(int(len(labeled) * config.pool.test_share), config.pool.max_test)
        rng = np.random.default_rng(derive_seed(config.run.seed, 0, "test"))
        test = [labeled[i] for i in sorted(rng.choice(len(labeled), num_test, replace=False))] if num_test else []
    held_out = {question.id for question in test}
    rest = [question for question in rest if question.id not in held_out]
    if not rest:
        raise PoolError(
            f"{config.pool.path}: no question is left to ask: all {len(questions):,} are too long or held out"
        )
    # at most a tenth of a small pool, or nothing would be left to teach with
    num_audit = min(config.stopping.audit_size, max(len(rest) // 4, 1)) if config.stopping.audit_size else 0
    audit = draw_audit(rest, num_audit, np.random.default_rng(derive_seed(config.run.seed, 0, "audit")))
    split = {
        "run_id": uuid.uuid4().hex,
        "fingerprint": fingerprint,
        "test": [question.id for question in test],
        "audit": [question.id for question in audit],
        "too_long": too_long,
    }
    write_json(folder.pool, split)
    return split


def _prepare_student(config: RunConfig, folder: RunFolder, progress: Progress) -> Path:
    from edgeelad.training import prepare_student

    target = folder.round(0).student
    if not target.exists():
        progress.start("Loading the student")
        with folder.stage(0, "prepare"):
            prepare_student(str(config.student.model), target, config.student)
        progress.finish()
    return target


def _labeled(questions: Iterable[Question]) -> list[Question]:
    return [question for question in questions if question.answer is not None]


def _seed_examples(config: RunConfig) -> tuple[Example, ...]:
    if config.training.seed_examples is None:
        return ()
    names = config.pool
    examples = tuple(
        read_examples(
            config.training.seed_examples,
            question_field=names.question_field,
            answer_field=names.answer_field,
            choices_field=names.choices_field,
            explanation_field=names.explanation_field,
            kind=names.kind,
        )
    )
    if config.training.max_seed_examples is None or len(examples) <= config.training.max_seed_examples:
        return examples
    rng = np.random.default_rng(derive_seed(config.run.seed, 0, "seed-examples"))
    chosen = rng.choice(len(examples), config.training.max_seed_examples, replace=False)
    return tuple(examples[i] for i in sorted(chosen))


def _versions() -> str:
    lines = [f"edgeelad {edgeelad.__version__}, Python {platform.python_version()}, {platform.platform()}"]
    for name in ("numpy", "onnxruntime", "tokenizers", "torch", "transformers", "optimum", "optimum-onnx"):
        try:
            lines.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return "\n".join(lines)
