"""The ledger's file: its tables, and how it is created, opened and checked.

There is one schema; a file of the version before is changed to it. A file with another one, or damaged, is refused with
an error that says what to do.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path

from edgeelad.errors import RunError, StorageError
from edgeelad.files import sync_folder

# "elad" in ASCII: `file` and other tools can tell a ledger from another SQLite file
APPLICATION_ID = 0x656C6164
VERSION = 6
# the problem of an attempt whose reply was deleted on purpose
DELETED = "altered, and deleted"
BUSY_TIMEOUT_S = 60.0
# attempts that are looked at when a large ledger is opened
NUM_SAMPLED = 5000

# batches: `state` new (its attempts are written), uploaded (the provider has its file), submitting (the request that
# begins it may have been sent), submitted (`remote_id` names it at the provider) or done.
# attempts: `settings` are those besides the cap that decide whether its reply can be used
_TABLES = """
    CREATE TABLE sessions (
        id TEXT PRIMARY KEY, pid INTEGER NOT NULL, host TEXT NOT NULL, started_at REAL NOT NULL
    );
    CREATE TABLE requests (
        key TEXT PRIMARY KEY, canonical TEXT NOT NULL, created_at REAL NOT NULL
    );
    CREATE TABLE batches (
        id TEXT PRIMARY KEY, run TEXT NOT NULL, endpoint TEXT NOT NULL,
        session TEXT NOT NULL REFERENCES sessions (id), created_at REAL NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('new', 'uploaded', 'submitting', 'submitted', 'done')),
        file_id TEXT, remote_id TEXT
    );
    CREATE TABLE attempts (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        key TEXT NOT NULL REFERENCES requests (key),
        run TEXT NOT NULL,
        question_id TEXT NOT NULL,
        session TEXT NOT NULL REFERENCES sessions (id),
        batch TEXT REFERENCES batches (id),
        completion_cap INTEGER NOT NULL,
        settings TEXT NOT NULL DEFAULT '',
        started_at REAL NOT NULL,
        finished_at REAL,
        outcome TEXT NOT NULL CHECK (outcome IN ('open', 'answered', 'unbilled', 'in_doubt')),
        problem TEXT NOT NULL DEFAULT '',
        reserved_prompt_tokens INTEGER NOT NULL,
        reserved_completion_tokens INTEGER NOT NULL,
        reserved_cost INTEGER,
        prompt_tokens INTEGER NOT NULL DEFAULT 0,
        completion_tokens INTEGER NOT NULL DEFAULT 0,
        cached_prompt_tokens INTEGER NOT NULL DEFAULT 0,
        reasoning_tokens INTEGER NOT NULL DEFAULT 0,
        is_estimated INTEGER NOT NULL DEFAULT 0,
        cost INTEGER
    );
    CREATE INDEX attempts_by_run ON attempts (run, question_id);
    CREATE INDEX attempts_by_key ON attempts (key);
    CREATE INDEX attempts_by_batch ON attempts (batch);
    CREATE INDEX attempts_open ON attempts (run) WHERE outcome = 'open';
    CREATE TABLE replies (
        attempt_id INTEGER PRIMARY KEY REFERENCES attempts (id),
        key TEXT NOT NULL REFERENCES requests (key),
        content TEXT NOT NULL,
        finish_reason TEXT NOT NULL,
        completion_cap INTEGER NOT NULL,
        model TEXT NOT NULL,
        digest TEXT NOT NULL,
        problem TEXT NOT NULL DEFAULT ''
    );
    CREATE INDEX replies_by_key ON replies (key);
    CREATE TABLE abilities (
        endpoint TEXT NOT NULL, model TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL,
        PRIMARY KEY (endpoint, model, name)
    );
    CREATE TABLE run_questions (run TEXT NOT NULL, question_id TEXT NOT NULL, PRIMARY KEY (run, question_id));
"""

_PAID = "outcome = 'answered'"
_HELD = "outcome IN ('open', 'in_doubt')"
# what an attempt adds to its run's totals; `unpriced` is what was bought, and what is held, at an unknown price
SUMS = {
    "requests": "1",
    "replies": _PAID,
    "unusable": f"{_PAID} AND problem <> ''",
    "estimated": "is_estimated",
    "prompt": "prompt_tokens",
    "completion": "completion_tokens",
    "cached": "cached_prompt_tokens",
    "reasoning": "reasoning_tokens",
    "cost": f"CASE WHEN {_PAID} THEN COALESCE(cost, 0) ELSE 0 END",
    "unpriced": f"{_PAID} AND cost IS NULL",
    "unpriced_prompt": f"({_PAID} AND cost IS NULL) * prompt_tokens",
    "unpriced_completion": f"({_PAID} AND cost IS NULL) * completion_tokens",
    "unpriced_cached": f"({_PAID} AND cost IS NULL) * cached_prompt_tokens",
    "held": _HELD,
    "held_prompt": f"({_HELD}) * reserved_prompt_tokens",
    "held_completion": f"({_HELD}) * reserved_completion_tokens",
    "held_cost": f"({_HELD}) * COALESCE(reserved_cost, 0)",
    "held_unpriced": f"{_HELD} AND reserved_cost IS NULL",
    "held_unpriced_prompt": f"({_HELD} AND reserved_cost IS NULL) * reserved_prompt_tokens",
    "held_unpriced_completion": f"({_HELD} AND reserved_cost IS NULL) * reserved_completion_tokens",
}
# how far a reply has exceeded what was reserved for it; the largest counts
MAXIMA = {
    "over_prompt": f"({_PAID} AND NOT is_estimated) * (prompt_tokens - reserved_prompt_tokens)",
    "over_completion": f"({_PAID} AND NOT is_estimated) * (completion_tokens - reserved_completion_tokens)",
    "over_cost": f"COALESCE(({_PAID} AND NOT is_estimated) * 1.0 * cost / NULLIF(reserved_cost, 0), 0.0)",
}
_ADDED = (*SUMS, *MAXIMA)
_INTO = f"INSERT INTO totals (run, model, prompt_id, {', '.join(_ADDED)}) SELECT run, model, prompt_id"
_MERGED = (
    "ON CONFLICT (run, model, prompt_id) DO UPDATE SET "
    + ", ".join(f"{name} = {name} + excluded.{name}" for name in SUMS)
    + "".join(f", {name} = MAX({name}, excluded.{name})" for name in MAXIMA)
)
_ADD = f"{_INTO}, {', '.join(_ADDED)} FROM counted WHERE id = NEW.id {_MERGED}"
_SUBTRACT = (
    f"{_INTO}, {', '.join(f'-{name}' for name in SUMS)}{', 0' * len(MAXIMA)} FROM counted WHERE id = OLD.id {_MERGED}"
)
# totals: what the attempts of a run come to, by model and prompt, kept by triggers, because adding up 100,000 attempts
# before each request took 300 ms; and a second account of the same figures, to notice damage. The row with neither
# model nor prompt has the number of the run's questions.
_TOTALS = (
    "CREATE VIEW counted AS SELECT a.id, a.run, a.outcome, a.session, "
    + ", ".join(
        f"CASE WHEN json_valid(canonical) THEN COALESCE(json_extract(canonical, '$.{name}'), '') ELSE '' END AS {name}"
        for name in ("model", "prompt_id")
    )
    + "".join(f", {value} AS {name}" for name, value in (SUMS | MAXIMA).items())
    + " FROM attempts a LEFT JOIN requests r ON r.key = a.key",
    "CREATE TABLE totals (run TEXT NOT NULL, model TEXT NOT NULL, prompt_id TEXT NOT NULL, "
    "questions INTEGER NOT NULL DEFAULT 0, "
    + "".join(f"{name} INTEGER NOT NULL DEFAULT 0, " for name in SUMS)
    + "".join(f"{name} REAL NOT NULL DEFAULT 0, " for name in MAXIMA)
    + "PRIMARY KEY (run, model, prompt_id))",
)
TRIGGERS = {
    "question_begun": "AFTER INSERT ON run_questions BEGIN "
    "INSERT INTO totals (run, model, prompt_id, questions) VALUES (NEW.run, '', '', 1) "
    "ON CONFLICT (run, model, prompt_id) DO UPDATE SET questions = questions + 1",
    "attempt_begun": "AFTER INSERT ON attempts BEGIN INSERT INTO run_questions SELECT NEW.run, NEW.question_id "
    "WHERE NOT EXISTS (SELECT 1 FROM run_questions WHERE run = NEW.run AND question_id = NEW.question_id); " + _ADD,
    "attempt_changes": f"BEFORE UPDATE OF outcome, problem ON attempts BEGIN {_SUBTRACT}",
    "attempt_changed": f"AFTER UPDATE OF outcome, problem ON attempts BEGIN {_ADD}",
}
CREATE_TRIGGERS = tuple(f"CREATE TRIGGER {name} {text}; END" for name, text in TRIGGERS.items())
SCHEMA = ";\n".join((_TABLES, *_TOTALS, *CREATE_TRIGGERS))
# adds up the attempts that were written without triggers
COUNT_ALL = (
    f"{_INTO}, {', '.join(f'SUM({name})' for name in SUMS)}, {', '.join(f'MAX({name})' for name in MAXIMA)} "
    "FROM counted GROUP BY run, model, prompt_id",
    "INSERT INTO totals (run, model, prompt_id, questions) SELECT run, '', '', COUNT(*) FROM run_questions "
    "WHERE true GROUP BY run ON CONFLICT (run, model, prompt_id) DO UPDATE SET questions = excluded.questions",
)
# version 5 kept fewer totals
_FROM_5 = (
    "DROP TRIGGER question_begun",
    "DROP TRIGGER attempt_settled",
    "DROP VIEW counted",
    "DROP TABLE run_totals",
    *_TOTALS,
    *COUNT_ALL,
    *CREATE_TRIGGERS,
    f"PRAGMA user_version = {VERSION}",
)


def open_file(path: Path) -> sqlite3.Connection:
    """Open a ledger's file; create it, whole or not at all, if it does not exist.

    Raises:
        RunError: The file is not a ledger, is damaged, or has another schema.
        StorageError: It cannot be created or opened.
    """
    with storage_errors(path):
        if not path.exists():
            _create(path)
        elif path.stat().st_size == 0:
            raise RunError(f"{path}: an empty file, not a ledger: restore it, or delete it if nothing was bought yet")
        connection = _connect(path)
        try:
            _check_application(connection, path)
            if _version(connection) == 5:
                _migrate(connection)
            _check_version(connection, path)
        except BaseException:
            connection.close()
            raise
        return connection


def damage(connection: sqlite3.Connection) -> Iterator[str]:
    """What is wrong with the file's structure, is missing or does not add up; replies are not read."""
    for (found,) in connection.execute("PRAGMA integrity_check"):
        if found != "ok":
            yield " ".join(str(found).split())
    for table, row_id, parent, _ in connection.execute("PRAGMA foreign_key_check"):
        yield f"{table} row {row_id}: refers to a missing row of {parent}"
    sql = (
        "SELECT a.id FROM attempts a LEFT JOIN replies r ON r.attempt_id = a.id "
        "WHERE a.outcome = 'answered' AND a.problem <> ? AND r.key IS NOT a.key"
    )
    for (id_,) in connection.execute(sql, (DELETED,)):
        yield f"the reply of attempt {id_} is missing"
    yield from wrong_totals(connection)


def sampled_damage(connection: sqlite3.Connection) -> Iterator[str]:
    """What is wrong with a random sample of the attempts: takes a second at most, however large the file is."""
    last = connection.execute("SELECT COALESCE(MAX(id), 0) FROM attempts").fetchone()[0]
    ids = random.SystemRandom().sample(range(1, last + 1), min(last, NUM_SAMPLED))
    # a reply is looked up as a run would: by its key
    sql = (
        "SELECT a.id FROM json_each(?) sampled JOIN attempts a ON a.id = sampled.value WHERE a.outcome = 'answered' "
        "AND a.problem <> ? AND NOT (EXISTS (SELECT 1 FROM replies r WHERE r.key = a.key AND r.attempt_id = a.id) "
        "AND EXISTS (SELECT 1 FROM requests q WHERE q.key = a.key))"
    )
    for (id_,) in connection.execute(sql, (json.dumps(ids), DELETED)):
        yield f"the reply of attempt {id_} is missing"


def wrong_totals(connection: sqlite3.Connection) -> Iterator[str]:
    """Runs whose totals are not the sum of their attempts, one line each."""
    sums = ", ".join(f"SUM({name})" for name in SUMS)
    counted, kept = (f"SELECT run, {sums} FROM {table} GROUP BY run" for table in ("counted", "totals"))
    sql = f"SELECT run FROM (SELECT * FROM ({counted}) EXCEPT {kept}) UNION "
    sql += f"SELECT run FROM (SELECT * FROM ({kept}) EXCEPT {counted})"
    for (run,) in connection.execute(sql):
        yield f"run {run!r}: its totals are not the sum of its attempts"


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn what SQLite and the file system raise into errors that say what to do."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path}: cannot be opened or written: {error.strerror or error}") from error
    except sqlite3.Error as error:
        if "locked" in str(error):
            raise StorageError(
                f"{path}: another process has held the ledger for {BUSY_TIMEOUT_S:.0f} s; end it, then resume"
            ) from error
        if isinstance(error, sqlite3.OperationalError) and not _is_damage(str(error)):
            raise StorageError(
                f"{path}: the ledger cannot be written or read ({error}); nothing more is sent to the teacher, and "
                "everything before is intact: make room or fix its permissions, then resume"
            ) from error
        raise damaged(path, str(error)) from error


@contextlib.contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """Like `storage_errors`, where a value of another type than was written is damage as well."""
    with storage_errors(path):
        try:
            yield
        except (TypeError, ValueError, OverflowError, AttributeError) as error:
            raise damaged(path, str(error)) from error


def damaged(path: Path, found: str) -> RunError:
    """The error for a file that is not what was written."""
    return RunError(
        f"{path}: not a ledger, or damaged ({found}); restore it from a copy, or name another file with --ledger (its "
        "replies are bought again)"
    )


def _is_damage(message: str) -> bool:
    return any(word in message for word in ("malformed", "corrupt", "no such", "decode", "not a database"))


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    try:
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection


def _create(path: Path) -> None:
    """Write an empty ledger beside `path` and put it in place, unless another process was faster."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        connection = _connect(temporary)
        try:
            connection.executescript(SCHEMA)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {VERSION}")
        finally:
            connection.close()
        try:
            os.link(temporary, path)
        except FileExistsError:
            return
        except OSError:  # a file system without links
            temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _check_application(connection: sqlite3.Connection, path: Path) -> None:
    if int(connection.execute("PRAGMA application_id").fetchone()[0]) != APPLICATION_ID:
        raise RunError(f"{path}: an SQLite file, but not a ledger of edgeelad; name another file with --ledger")


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    if (version := _version(connection)) != VERSION:
        raise RunError(
            f"{path}: written by another version of edgeelad (ledger version {version}, this one reads {VERSION}); "
            "use that version, or name another file with --ledger"
        )


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _migrate(connection: sqlite3.Connection) -> None:
    """Change a ledger of version 5 to this one, in one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        if _version(connection) == 5:  # else another process was faster
            for statement in _FROM_5:
                connection.execute(statement)
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
