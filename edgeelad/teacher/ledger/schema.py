"""The ledger's tables: numbered migrations, append-only.

`PRAGMA user_version` says how many were applied. A ledger from an older edgeelad is upgraded when it is opened, one
from a newer edgeelad is refused. Never change a migration that was released; add one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from edgeelad.errors import RunError

# "elad" in ASCII: `file` and other tools can tell a ledger from another SQLite file
APPLICATION_ID = 0x656C6164

MIGRATIONS = (
    """
    CREATE TABLE sessions (
        id TEXT PRIMARY KEY, pid INTEGER NOT NULL, host TEXT NOT NULL, started_at REAL NOT NULL
    );
    CREATE TABLE requests (
        key TEXT PRIMARY KEY, canonical TEXT NOT NULL, created_at REAL NOT NULL
    );
    CREATE TABLE attempts (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        key TEXT NOT NULL REFERENCES requests (key),
        run TEXT NOT NULL,
        question_id TEXT NOT NULL,
        session TEXT NOT NULL REFERENCES sessions (id),
        started_at REAL NOT NULL,
        finished_at REAL,
        outcome TEXT NOT NULL CHECK (outcome IN ('open', 'answered', 'unbilled', 'in_doubt')),
        http_status INTEGER,
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
    CREATE TABLE replies (
        attempt_id INTEGER PRIMARY KEY REFERENCES attempts (id),
        key TEXT NOT NULL REFERENCES requests (key),
        content TEXT NOT NULL,
        content_sha256 TEXT NOT NULL,
        finish_reason TEXT NOT NULL,
        problem TEXT NOT NULL DEFAULT '',
        completion_cap INTEGER NOT NULL,
        model TEXT NOT NULL DEFAULT ''
    );
    CREATE INDEX replies_by_key ON replies (key);
    CREATE TABLE abilities (
        endpoint TEXT NOT NULL, model TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL,
        PRIMARY KEY (endpoint, model, name)
    );
    """,
    # batches at a provider: `state` new, uploaded, submitted or done; `remote_id` the provider's name for it
    """
    CREATE TABLE batches (
        id TEXT PRIMARY KEY, run TEXT NOT NULL, endpoint TEXT NOT NULL,
        session TEXT NOT NULL REFERENCES sessions (id), created_at REAL NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('new', 'uploaded', 'submitted', 'done')),
        file_id TEXT, remote_id TEXT
    );
    ALTER TABLE attempts ADD COLUMN batch TEXT REFERENCES batches (id);
    CREATE INDEX attempts_by_batch ON attempts (batch);
    """,
    # what counts against a run's caps, kept up to date as attempts are settled: adding up 100,000 attempts before each
    # request took 300 ms
    """
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
    CREATE INDEX attempts_open ON attempts (run) WHERE outcome = 'open';
    INSERT INTO run_questions SELECT DISTINCT run, question_id FROM attempts;
    INSERT INTO run_totals (run, questions) SELECT run, COUNT(*) FROM run_questions GROUP BY run;
    UPDATE run_totals
    SET (requests, prompt, completion, cost, unpriced_prompt, unpriced_completion, unpriced_cached) = (
        SELECT COUNT(*), COALESCE(SUM(prompt), 0), COALESCE(SUM(completion), 0), COALESCE(SUM(known_cost), 0),
            COALESCE(SUM(CASE WHEN known_cost IS NULL THEN prompt END), 0),
            COALESCE(SUM(CASE WHEN known_cost IS NULL THEN completion END), 0),
            COALESCE(SUM(CASE WHEN known_cost IS NULL THEN cached END), 0)
        FROM counted WHERE counted.run = run_totals.run AND outcome <> 'open');
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
    """,
)


def _statements(script: str) -> Iterator[str]:
    """A script's statements, one by one: `executescript` would commit the transaction that they belong to."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    assert not statement.strip(), statement


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring a ledger to this edgeelad's schema, in one transaction that other processes wait for.

    Raises:
        RunError: The file is another program's, or from a newer edgeelad.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        application = int(connection.execute("PRAGMA application_id").fetchone()[0])
        num_tables = int(connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0])
        if application != APPLICATION_ID and num_tables:
            raise RunError(f"{path}: an SQLite file, but not a ledger of edgeelad; name another file with --ledger")
        if version > len(MIGRATIONS):
            raise RunError(
                f"{path}: written by a newer edgeelad (ledger version {version}, this one reads up to "
                f"{len(MIGRATIONS)}); upgrade edgeelad, or name another file with --ledger"
            )
        for script in MIGRATIONS[version:]:
            for statement in _statements(script):
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
