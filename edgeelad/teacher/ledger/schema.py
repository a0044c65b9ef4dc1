"""The ledger's file: its tables, and how it is created, opened and checked.

There is one schema. A file with another one, or damaged, is refused with an error that says what to do.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path

from edgeelad.errors import RunError, StorageError
from edgeelad.files import sync_folder

# "elad" in ASCII: `file` and other tools can tell a ledger from another SQLite file
APPLICATION_ID = 0x656C6164
VERSION = 5
# the problem of an attempt whose reply was deleted on purpose
DELETED = "altered, and deleted"
BUSY_TIMEOUT_S = 60.0

# batches: `state` new (its attempts are written), uploaded (the provider has its file), submitting (the request that
# begins it may have been sent), submitted (`remote_id` names it at the provider) or done.
# attempts: `settings` are those besides the cap that decide whether its reply can be used
# run_totals: what counts against a run's caps, kept by triggers as attempts are settled, because adding up 100,000
# attempts before each request took 300 ms; and a second account of the same figures, to notice damage
SCHEMA = """
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
    CREATE VIEW counted AS SELECT id, run, outcome, session,
        CASE outcome WHEN 'answered' THEN prompt_tokens WHEN 'unbilled' THEN 0
            ELSE reserved_prompt_tokens END AS prompt,
        CASE outcome WHEN 'answered' THEN completion_tokens WHEN 'unbilled' THEN 0
            ELSE reserved_completion_tokens END AS completion,
        CASE outcome WHEN 'answered' THEN cached_prompt_tokens ELSE 0 END AS cached,
        CASE outcome WHEN 'answered' THEN cost WHEN 'unbilled' THEN 0 ELSE reserved_cost END AS known_cost
    FROM attempts;
    CREATE TABLE run_totals (
        run TEXT PRIMARY KEY, requests INTEGER NOT NULL DEFAULT 0, questions INTEGER NOT NULL DEFAULT 0,
        prompt INTEGER NOT NULL DEFAULT 0, completion INTEGER NOT NULL DEFAULT 0, cost INTEGER NOT NULL DEFAULT 0,
        unpriced_prompt INTEGER NOT NULL DEFAULT 0, unpriced_completion INTEGER NOT NULL DEFAULT 0,
        unpriced_cached INTEGER NOT NULL DEFAULT 0
    );
    CREATE TABLE run_questions (run TEXT NOT NULL, question_id TEXT NOT NULL, PRIMARY KEY (run, question_id));
    CREATE TRIGGER question_begun AFTER INSERT ON attempts BEGIN
        INSERT OR IGNORE INTO run_totals (run) VALUES (NEW.run);
        UPDATE run_totals SET questions = questions + 1 WHERE run = NEW.run AND NOT EXISTS (
            SELECT 1 FROM run_questions WHERE run = NEW.run AND question_id = NEW.question_id);
        INSERT OR IGNORE INTO run_questions VALUES (NEW.run, NEW.question_id);
    END;
    CREATE TRIGGER attempt_settled AFTER UPDATE OF outcome ON attempts
    WHEN OLD.outcome = 'open' AND NEW.outcome <> 'open' BEGIN
        UPDATE run_totals SET requests = requests + 1,
            prompt = run_totals.prompt + (SELECT prompt FROM counted WHERE id = NEW.id),
            completion = run_totals.completion + (SELECT completion FROM counted WHERE id = NEW.id),
            cost = cost + COALESCE((SELECT known_cost FROM counted WHERE id = NEW.id), 0),
            unpriced_prompt = unpriced_prompt
                + COALESCE((SELECT prompt FROM counted WHERE id = NEW.id AND known_cost IS NULL), 0),
            unpriced_completion = unpriced_completion
                + COALESCE((SELECT completion FROM counted WHERE id = NEW.id AND known_cost IS NULL), 0),
            unpriced_cached = unpriced_cached
                + COALESCE((SELECT cached FROM counted WHERE id = NEW.id AND known_cost IS NULL), 0)
        WHERE run = NEW.run;
    END;
"""


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
            _check_header(connection, path)
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


def wrong_totals(connection: sqlite3.Connection) -> Iterator[str]:
    """Runs whose totals are not the sum of their attempts, one line each."""
    figures = (
        "COUNT(*), SUM(prompt), SUM(completion), COALESCE(SUM(known_cost), 0)",
        "requests, prompt, completion, cost",
    )
    counted, kept = (f"SELECT run, {columns} FROM" for columns in figures)
    sql = (
        f"SELECT run FROM ({counted} counted WHERE outcome <> 'open' GROUP BY run EXCEPT {kept} run_totals) UNION "
        f"SELECT run FROM ({kept} run_totals WHERE requests > 0 EXCEPT {counted} counted WHERE outcome <> 'open' "
        "GROUP BY run)"
    )
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


def _check_header(connection: sqlite3.Connection, path: Path) -> None:
    application = int(connection.execute("PRAGMA application_id").fetchone()[0])
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if application != APPLICATION_ID:
        raise RunError(f"{path}: an SQLite file, but not a ledger of edgeelad; name another file with --ledger")
    if version != VERSION:
        raise RunError(
            f"{path}: written by another version of edgeelad (ledger version {version}, this one reads {VERSION}); "
            "use that version, or name another file with --ledger"
        )
