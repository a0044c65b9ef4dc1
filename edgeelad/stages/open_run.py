"""Open a run: read the pool, prepare the base student, and split the pool into test, audit and askable questions."""

from __future__ import annotations

import platform
import shutil
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version

import numpy as np

import edgeelad
from edgeelad.config import RunConfig
from edgeelad.engine.codec import Codec
from edgeelad.engine.student import fits
from edgeelad.errors import PoolError, RunError
from edgeelad.files import make_private_folder, storage_errors
from edgeelad.pool import fields_of, load_pool, open_pool, read_examples
from edgeelad.pool.fingerprint import pool_fingerprint
from edgeelad.pool.store import Pool
from edgeelad.progress import Progress
from edgeelad.records import Example, Question
from edgeelad.run.config_file import check_changes, read_config, write_config
from edgeelad.run.folder import RunFolder
from edgeelad.run.records import PoolSplit
from edgeelad.run.teacher_check import read_check
from edgeelad.stages.preflight import check_config
from edgeelad.stages.run import OwnParts, Run, derive_seed, ledger_path
from edgeelad.stopping import draw_audit
from edgeelad.teacher import open_teacher
from edgeelad.text.prompts import question_text

MAX_AUDIT_SHARE = 0.25  # of a small pool, or too little would be left to teach with


def open_run(config: RunConfig, folder: RunFolder, progress: Progress, own: OwnParts | None = None) -> Run:
    """Read the pool, prepare the base student, and draw the test and audit samples, or read them if they were drawn.

    Raises:
        ConfigError: The configuration lacks a pool or a student.
        PoolError: The pool cannot be read, or nothing in it can be asked.
        RunError: The run folder belongs to another pool, or a file in it is damaged.
    """
    own = own or OwnParts()
    check_config(config, own)
    make_private_folder(folder.path)
    # a teacher that cannot be asked is reported now, not after the student has been prepared and scored
    with open_teacher(config.teacher, ledger_path(config, folder), {}, is_replay=config.run.replay, own=own.teacher):
        pass
    progress.start("Reading the pool")
    questions = Pool.store(open_pool(config.pool))
    test_file = _test_file(config) if config.pool.test_path else None
    seeds = _seed_examples(config)
    progress.finish(f"{len(questions):,} questions")
    record_config(config, folder)
    found = fingerprints(config, questions.questions, test_file, seeds)
    split = _split(config, folder, found, questions, test_file or (), progress)
    run = Run(
        config=config,
        folder=folder,
        progress=progress,
        pool=questions.without(split.test),
        test=tuple(questions[id_] for id_ in split.test) if test_file is None else _with_own_ids(test_file, questions),
        audit=tuple(questions[id_] for id_ in split.audit),
        too_long=frozenset(split.too_long),
        seed_examples=_sampled(config, seeds),
        id=split.run_id,
        own=own,
        copies=frozenset(split.copies),
    )
    _check_ledger(run)
    if folder.teacher_check.exists():
        read_check(folder.teacher_check)
    return run


def _with_own_ids(test: Sequence[Question], pool: Pool) -> tuple[Question, ...]:
    """The questions of a test file; two files number their questions alike, and answers are kept by id."""
    return tuple(replace(question, id=f"test:{question.id}") if question.id in pool else question for question in test)


def _check_ledger(run: Run) -> None:
    """Check that the ledger holds what the run has recorded, or everything would be bought again in silence."""
    recorded = [here.teacher.read().usage for here in run.folder.rounds() if here.teacher.exists()]
    if recorded and not run.config.run.replay:
        num, needed = run.totals().usage.requests, max(usage.requests for usage in recorded)
        if num < needed:
            raise RunError(
                f"{run.ledger}: holds {num} of the {needed} requests that this run has made; restore the ledger, or "
                "start a new run with another --out"
            )


def record_config(config: RunConfig, folder: RunFolder) -> None:
    """Record the configuration; until the pool is split nothing has begun, and another one may take its place."""
    if folder.config.exists():
        recorded = read_config(folder)
        if recorded == config:
            return
        if folder.pool.exists():
            check_changes(recorded, config)
            write_config(folder, config, f"changed when the run was resumed\n{_versions()}")
            return
    student = folder.round(0).student
    if student.exists():
        folder.digests.forget([student])
        with storage_errors(student):
            shutil.rmtree(student)
    write_config(folder, config, _versions())


def fingerprints(
    config: RunConfig, pool: Iterable[Question], test: Sequence[Question] | None, seeds: Sequence[Example]
) -> dict[str, str]:
    """Hash what the run is made from, by the key that names it."""
    # the dataset teacher teaches the pool's explanations; any other never sees them
    found = {"pool.path": pool_fingerprint(pool, explanations=config.teacher.kind == "dataset")[0]}
    if test is not None:
        found["pool.test_path"] = pool_fingerprint(test, explanations=False)[0]
    if seeds:
        examples = [replace(item.question, answer=item.answer, explanation=item.steps) for item in seeds]
        found["training.seed_examples"] = pool_fingerprint(examples)[0]
    return found


def _split(
    config: RunConfig,
    folder: RunFolder,
    found: dict[str, str],
    pool: Pool,
    test_file: Sequence[Question],
    progress: Progress,
) -> PoolSplit:
    folder.digests.check(folder.pool.path, "restore it, or start a new run with another --out")
    _prepare_student(config, folder, progress)
    if folder.is_done(folder.pool.path):
        split = folder.pool.read()
        check_same(split.fingerprints, found, config)
        return split
    codec = Codec.load(folder.round(0).student)
    too_long = [question.id for question in pool.questions if not fits(codec, question)]
    if too_long:
        progress.warn(
            f"{len(too_long):,} questions do not fit the student's context and are set aside: {too_long[0]}, …"
        )
    rest = pool.without(too_long)
    test = [] if config.pool.test_path else _draw_test(config, rest)
    rest = rest.without(test)
    if not rest:
        raise PoolError(f"{config.pool.path}: no question is left to ask: all {len(pool):,} are too long or held out")
    num_audit = min(config.stopping.audit_size, max(int(len(rest) * MAX_AUDIT_SHARE), 1))
    audit = draw_audit(rest.by_id(), num_audit, np.random.default_rng(derive_seed(config.run.seed, 0, "audit")))
    held_out = [*test_file, *(pool[id_] for id_ in test), *audit]
    copies = _copies(held_out, pool.without([*test, *(question.id for question in audit)]))
    if copies:
        progress.warn(
            f"{len(copies):,} questions have the text of a test or audit question and are not asked: {copies[0]}, …"
        )
    if copies and not rest.without([*copies, *(question.id for question in audit)]):
        raise PoolError(f"{config.pool.path}: no question is left to ask: all are test or audit questions, or copies")
    split = PoolSplit(
        run_id=uuid.uuid4().hex,
        fingerprints=found,
        test=tuple(test),
        audit=tuple(question.id for question in audit),
        too_long=tuple(too_long),
        copies=tuple(copies),
    )
    with folder.stage(0, "split", folder.pool.path):
        folder.pool.write(split)
    return split


def _copies(held_out: Iterable[Question], pool: Pool) -> list[str]:
    """Ids of the questions with the text of one that is held out; upper case and spaces make no difference."""
    texts = {_key(question) for question in held_out}
    return [question.id for question in pool.questions if _key(question) in texts]


def _key(question: Question) -> str:
    return " ".join(question_text(question).casefold().split())


def check_same(before: Mapping[str, str], now: Mapping[str, str], config: RunConfig) -> None:
    """Check that pool, test file and seed examples have the fingerprints that the run began with.

    Raises:
        RunError: One holds other questions; names the file.
    """
    for key, fingerprint in before.items():
        if now.get(key) != fingerprint:
            section, _, name = key.partition(".")
            raise RunError(
                f"{getattr(getattr(config, section), name)}: {key} holds other questions than when this run began; "
                "restore the file, or start a new run with another --out"
            )


def _draw_test(config: RunConfig, pool: Pool) -> list[str]:
    """Ids of the labeled questions that are held out for testing."""
    is_labeled = np.fromiter((question.answer is not None for question in pool.questions), bool, len(pool))
    labeled = pool.part(pool.places[is_labeled]).questions
    num = min(int(len(labeled) * config.pool.test_share), config.pool.max_test)
    rng = np.random.default_rng(derive_seed(config.run.seed, 0, "test"))
    return [labeled[i].id for i in sorted(rng.choice(len(labeled), num, replace=False))] if num else []


def _test_file(config: RunConfig) -> tuple[Question, ...]:
    named = config.pool.model_copy(update={"path": config.pool.test_path, "limit": None})
    return tuple(question for question in load_pool(named) if question.answer is not None)[: config.pool.max_test]


def _prepare_student(config: RunConfig, folder: RunFolder, progress: Progress) -> None:
    from edgeelad.training import prepare_student

    target = folder.round(0).student
    if not folder.is_done(target):
        progress.start("Loading the student")
        with folder.stage(0, "prepare", target):
            prepare_student(str(config.student.model), target, config.student)
        progress.finish()


def _seed_examples(config: RunConfig) -> tuple[Example, ...]:
    if config.training.seed_examples is None:
        return ()
    names = config.pool
    return tuple(read_examples(config.training.seed_examples, fields=fields_of(names), kind=names.kind))


def _sampled(config: RunConfig, examples: tuple[Example, ...]) -> tuple[Example, ...]:
    """The seed examples that are used: `training.max_seed_examples` of them."""
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
