"""Count what a ledger holds: what a run has spent, what was paid, and whether every hash is right.

Functions over an open connection, all reading only. An attempt that is open or in doubt is *held*: it counts against
the caps at what was reserved for it, and is told apart from what was surely paid.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from edgeelad.records import TeacherUsage
from edgeelad.teacher.ledger.budget import PICO, Prices, Reservation, Spent
from edgeelad.teacher.ledger.exchange import Billing, content_key, reply_digest
from edgeelad.teacher.ledger.schema import damage

# what a reply's hash covers
DIGESTED = ("key", "content", "finish_reason", "completion_cap", "model")

# the cost of a row, at today's prices if it has none: ?1 per prompt token, ?2 per cached one, ?3 per completion token
_COSTED = """
    SELECT *, outcome IN ('open', 'in_doubt') AS held, CASE outcome
        WHEN 'unbilled' THEN 0
        WHEN 'answered' THEN COALESCE(cost,
            (prompt_tokens - cached_prompt_tokens) * ?1 + cached_prompt_tokens * ?2 + completion_tokens * ?3)
        ELSE COALESCE(reserved_cost, reserved_prompt_tokens * ?1 + reserved_completion_tokens * ?3)
    END AS full_cost FROM attempts"""

# attempts that are settled are added up already, by the ledger's triggers; those that are open are few
_SETTLED = "SELECT * FROM run_totals WHERE run = ?"
_OPEN = """
    SELECT COUNT(*) AS requests, TOTAL(is_held * prompt) AS prompt, TOTAL(is_held * completion) AS completion,
        COALESCE(SUM(is_held * known_cost), 0) AS cost,
        TOTAL(CASE WHEN known_cost IS NULL THEN is_held * prompt END) AS unpriced_prompt,
        TOTAL(CASE WHEN known_cost IS NULL THEN is_held * completion END) AS unpriced_completion
    FROM (SELECT *, session <> ?2 AS is_held FROM counted WHERE run = ?1 AND outcome = 'open')"""

_TOTALS = """
    SELECT COUNT(*) AS requests, TOTAL(outcome = 'answered') AS replies, TOTAL(held) AS num_doubtful,
        TOTAL(outcome = 'answered' AND problem <> '') AS num_unusable,
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
    """What was paid; `doubtful` is the maximum that attempts that are open or in doubt could have cost besides.

    `num_unusable` counts replies that were paid for and could not be used; `num_estimated` those that did not tell
    their usage.
    """

    requests: int
    replies: int
    num_unusable: int
    num_doubtful: int
    num_estimated: int
    billing: Billing
    cost_pico: int | None
    doubtful: Reservation

    @property
    def usage(self) -> TeacherUsage:
        """As the record that reports use: billed tokens and their cost, without what is in doubt."""
        cost = None if self.cost_pico is None else self.cost_pico / PICO
        return TeacherUsage(
            self.requests, self.billing.prompt_tokens, self.billing.completion_tokens, cost, self.num_estimated
        )


def spent(connection: sqlite3.Connection, run: str, prices: Prices, *, without_open_of: str = "") -> Spent:
    """What counts against a run's caps, on request without what one session has reserved for its open attempts."""
    settled = _named(connection, _SETTLED, (run,))
    opened = _named(connection, _OPEN, (run, without_open_of))
    unpriced = Billing(
        int(settled.get("unpriced_prompt", 0) + opened["unpriced_prompt"]),
        int(settled.get("unpriced_completion", 0) + opened["unpriced_completion"]),
        settled.get("unpriced_cached", 0),
    )
    rest = prices.cost(unpriced) if unpriced != Billing() else 0
    return Spent(
        requests=settled.get("requests", 0) + opened["requests"],
        prompt_tokens=int(settled.get("prompt", 0) + opened["prompt"]),
        completion_tokens=int(settled.get("completion", 0) + opened["completion"]),
        cost_pico=None if rest is None else settled.get("cost", 0) + opened["cost"] + rest,
        questions=settled.get("questions", 0),
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
        num_unusable=int(row["num_unusable"]),
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
    """Recompute every hash and sum; one line per thing that is wrong."""
    problems = list(damage(connection))
    for key, canonical in connection.execute("SELECT key, canonical FROM requests"):
        if content_key(canonical) != key:
            problems.append(f"request {key}: its text hashes to {content_key(canonical)}")
    problems += [f"reply of attempt {id_}: it does not have the hash written with it" for id_ in altered(connection)]
    return problems


def altered(connection: sqlite3.Connection) -> Iterator[int]:
    """The attempts whose reply is not what was written."""
    for id_, *fields, digest in connection.execute(f"SELECT attempt_id, {', '.join(DIGESTED)}, digest FROM replies"):
        if reply_digest(*fields) != digest:
            yield id_


def overruns(connection: sqlite3.Connection, run: str) -> tuple[int, int, float]:
    """How far replies have exceeded what was reserved for them: prompt and completion tokens, and the cost's factor."""
    row = connection.execute(
        "SELECT MAX(prompt_tokens - reserved_prompt_tokens), MAX(completion_tokens - reserved_completion_tokens), "
        "MAX(1.0 * cost / NULLIF(reserved_cost, 0)) FROM attempts "
        "WHERE run = ? AND outcome = 'answered' AND NOT is_estimated",
        (run,),
    ).fetchone()
    prompt, completion, factor = (value or 0 for value in row)
    return max(0, prompt), max(0, completion), max(1.0, factor)


def _named(connection: sqlite3.Connection, sql: str, values: tuple[Any, ...]) -> dict[str, Any]:
    """The one row of a query, by the names of its columns; empty if there is none."""
    cursor = connection.execute(sql, values)
    row = cursor.fetchone()
    return {} if row is None else dict(zip((column[0] for column in cursor.description), row, strict=True))


def _price_values(prices: Prices) -> tuple[int | None, ...]:
    cached = prices.prompt if prices.cached_prompt is None else prices.cached_prompt
    return prices.prompt, cached, prices.completion
