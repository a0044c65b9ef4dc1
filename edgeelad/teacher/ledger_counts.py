"""Count what a ledger holds: what a run has spent, what was paid, and whether every hash is right.

Functions over an open connection, all reading only. An attempt that is open or in doubt is *held*: it counts against
the caps at what was reserved for it, and is told apart from what was surely paid.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgeelad.records import TeacherUsage
from edgeelad.teacher.budget import PICO, Prices, Reservation, Spent
from edgeelad.teacher.exchange import Billing, content_key, content_sha256

# the cost of a row, where it was written without prices at today's: ?1 a prompt token, ?2 a cached one, ?3 a completion
_COSTED = """
    SELECT *, outcome IN ('open', 'in_doubt') AS held, CASE outcome
        WHEN 'unbilled' THEN 0
        WHEN 'answered' THEN COALESCE(cost,
            (prompt_tokens - cached_prompt_tokens) * ?1 + cached_prompt_tokens * ?2 + completion_tokens * ?3)
        ELSE COALESCE(reserved_cost, reserved_prompt_tokens * ?1 + reserved_completion_tokens * ?3)
    END AS full_cost FROM attempts"""

_SPENT = f"""
    SELECT COUNT(*) AS requests,
        TOTAL(CASE WHEN held THEN counted * reserved_prompt_tokens ELSE prompt_tokens END) AS prompt_tokens,
        TOTAL(CASE WHEN held THEN counted * reserved_completion_tokens ELSE completion_tokens END) AS completion_tokens,
        COALESCE(SUM(counted * full_cost), 0) AS cost, TOTAL(full_cost IS NULL) AS num_unpriced,
        COUNT(DISTINCT question_id) AS questions
    FROM (SELECT *, NOT (outcome = 'open' AND session = ?5) AS counted FROM ({_COSTED} WHERE run = ?4))"""

_TOTALS = """
    SELECT COUNT(*) AS requests, TOTAL(outcome = 'answered') AS replies, TOTAL(held) AS num_doubtful,
        TOTAL(prompt_tokens) AS prompt_tokens, TOTAL(completion_tokens) AS completion_tokens,
        TOTAL(cached_prompt_tokens) AS cached_prompt_tokens, TOTAL(reasoning_tokens) AS reasoning_tokens,
        TOTAL(is_estimated) AS num_estimated,
        COALESCE(SUM(CASE WHEN held THEN 0 ELSE full_cost END), 0) AS cost,
        TOTAL(NOT held AND full_cost IS NULL) AS num_unpriced,
        TOTAL(held * reserved_prompt_tokens) AS doubtful_prompt,
        TOTAL(held * reserved_completion_tokens) AS doubtful_completion,
        COALESCE(SUM(CASE WHEN held THEN full_cost ELSE 0 END), 0) AS doubtful_cost,
        TOTAL(held AND full_cost IS NULL) AS num_doubtful_unpriced
    FROM ({rows})"""


@dataclass(frozen=True, slots=True)
class LedgerTotals:
    """What was paid; `doubtful` is what attempts that are open or in doubt could have cost besides, at most."""

    requests: int
    replies: int
    num_doubtful: int
    num_estimated: int
    billing: Billing
    cost_pico: int | None
    doubtful: Reservation

    @property
    def usage(self) -> TeacherUsage:
        """As the record that reports use: billed tokens and their cost, without what is in doubt."""
        cost = None if self.cost_pico is None else self.cost_pico / PICO
        return TeacherUsage(self.requests, self.billing.prompt_tokens, self.billing.completion_tokens, cost)


def spent(connection: sqlite3.Connection, run: str, prices: Prices, *, without_open_of: str = "") -> Spent:
    """What counts against a run's caps, on request without what one session has reserved for what is under way."""
    row = _named(connection, _SPENT, (*_price_values(prices), run, without_open_of))
    cost = None if row["num_unpriced"] else int(row["cost"])
    return Spent(
        int(row["requests"]), int(row["prompt_tokens"]), int(row["completion_tokens"]), cost, int(row["questions"])
    )


def totals(
    connection: sqlite3.Connection, prices: Prices, *, run: str | None = None, keys: Sequence[str] | None = None
) -> LedgerTotals:
    """What was paid, by one run, for some requests, or in all."""
    assert run is None or keys is None, "one of the two"
    where, values = "", list(keys or ())
    if keys is not None:
        where = f" WHERE key IN ({', '.join('?' for _ in keys)})"
    elif run is not None:
        where, values = " WHERE run = ?", [run]
    row = _named(connection, _TOTALS.format(rows=_COSTED + where), (*_price_values(prices), *values))
    num_estimated = int(row["num_estimated"])
    billing = Billing(
        int(row["prompt_tokens"]),
        int(row["completion_tokens"]),
        int(row["cached_prompt_tokens"]),
        int(row["reasoning_tokens"]),
        num_estimated > 0,
    )
    # without prices nothing has a known cost, not even a run that has bought nothing yet
    is_priced = not row["num_unpriced"] and (prices.prompt is not None or row["cost"] > 0)
    doubtful_cost = None if row["num_doubtful_unpriced"] else int(row["doubtful_cost"])
    return LedgerTotals(
        requests=int(row["requests"]),
        replies=int(row["replies"]),
        num_doubtful=int(row["num_doubtful"]),
        num_estimated=num_estimated,
        billing=billing,
        cost_pico=int(row["cost"]) if is_priced else None,
        doubtful=Reservation(int(row["doubtful_prompt"]), int(row["doubtful_completion"]), doubtful_cost),
    )


@dataclass(frozen=True, slots=True)
class PromptRates:
    """What one prompt has come to: calls for each question that was corrected or explained, and tokens of a reply."""

    calls_per_question: float
    prompt_tokens: float
    completion_tokens: float


def rates(connection: sqlite3.Connection, model: str) -> dict[str, PromptRates]:
    """What each prompt has come to with a model, by id; questions that were only answered are not counted."""
    sql = """
        SELECT json_extract(r.canonical, '$.prompt_id') AS prompt_id, COUNT(*), AVG(a.prompt_tokens),
            AVG(a.completion_tokens)
        FROM attempts a JOIN requests r ON r.key = a.key
        WHERE a.outcome = 'answered' AND json_extract(r.canonical, '$.model') = ?1 GROUP BY prompt_id"""
    num_questions = connection.execute(
        "SELECT COUNT(DISTINCT a.question_id) FROM attempts a JOIN requests r ON r.key = a.key "
        "WHERE a.outcome = 'answered' AND json_extract(r.canonical, '$.model') = ?1 "
        "AND json_extract(r.canonical, '$.prompt_id') <> 'answer'",
        (model,),
    ).fetchone()[0]
    return {
        prompt_id: PromptRates(calls / max(1, num_questions), prompt, completion)
        for prompt_id, calls, prompt, completion in connection.execute(sql, (model,))
    }


def verify(connection: sqlite3.Connection) -> list[str]:
    """Recompute every hash; one line for each thing that is wrong."""
    problems = [f"integrity: {row[0]}" for row in connection.execute("PRAGMA integrity_check") if row[0] != "ok"]
    for key, canonical in connection.execute("SELECT key, canonical FROM requests"):
        if content_key(canonical) != key:
            problems.append(f"request {key}: its text hashes to {content_key(canonical)}")
    for attempt_id, content, digest in connection.execute("SELECT attempt_id, content, content_sha256 FROM replies"):
        if content_sha256(content) != digest:
            problems.append(f"reply of attempt {attempt_id}: its text does not have the hash written with it")
    for table, row_id, parent, _ in connection.execute("PRAGMA foreign_key_check"):
        problems.append(f"{table} row {row_id}: refers to a missing row of {parent}")
    return problems


def _named(connection: sqlite3.Connection, sql: str, values: tuple[Any, ...]) -> dict[str, Any]:
    cursor = connection.execute(sql, values)
    return dict(zip((column[0] for column in cursor.description), cursor.fetchone(), strict=True))


def _price_values(prices: Prices) -> tuple[int | None, ...]:
    cached = prices.prompt if prices.cached_prompt is None else prices.cached_prompt
    return prices.prompt, cached, prices.completion
