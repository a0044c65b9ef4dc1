"""Count what a ledger holds: what a run has spent, what was paid, and whether every hash is right.

Functions over an open connection, all reading only. An attempt that is open or in doubt is *held*: it counts against
the caps at what was reserved for it, and is told apart from what was surely paid.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeelad.records import TeacherUsage
from edgeelad.teacher.ledger.budget import PICO, Prices, Reservation, Spent
from edgeelad.teacher.ledger.exchange import Billing, content_key, reply_digest
from edgeelad.teacher.ledger.schema import MAXIMA, SUMS, damage

# what a reply's hash covers
DIGESTED = ("key", "content", "finish_reason", "completion_cap", "model")

_SUMMED = f"SELECT {', '.join(f'COALESCE(SUM({name}), 0) AS {name}' for name in SUMS)} FROM"
# the latest attempts, from which the rates of prompts are taken
NUM_FOR_RATES = 10_000


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


def spent(connection: sqlite3.Connection, run: str, prices: Prices) -> Spent:
    """What counts against a run's caps."""
    sums = _named(connection, f"{_SUMMED} totals WHERE run = ?", (run,))
    unpriced = Billing(
        sums["unpriced_prompt"] + sums["held_unpriced_prompt"],
        sums["unpriced_completion"] + sums["held_unpriced_completion"],
        sums["unpriced_cached"],
    )
    rest = prices.cost(unpriced) if unpriced != Billing() else 0
    questions = connection.execute(
        "SELECT questions FROM totals WHERE run = ? AND model = '' AND prompt_id = ''", (run,)
    ).fetchone()
    return Spent(
        requests=sums["requests"],
        prompt_tokens=sums["prompt"] + sums["held_prompt"],
        completion_tokens=sums["completion"] + sums["held_completion"],
        cost_pico=None if rest is None else sums["cost"] + sums["held_cost"] + rest,
        questions=questions[0] if questions else 0,
    )


def totals(
    connection: sqlite3.Connection, prices: Prices, *, run: str | None = None, keys: Sequence[str] | None = None
) -> LedgerTotals:
    """What was paid, by one run, for some requests, or in all."""
    assert run is None or keys is None, "one of the two"
    if keys is not None:
        source, values = f"counted WHERE id IN (SELECT id FROM attempts WHERE key IN ({_marks(keys)}))", tuple(keys)
    else:
        source, values = ("totals", ()) if run is None else ("totals WHERE run = ?", (run,))
    sums = _named(connection, f"{_SUMMED} {source}", values)
    billing = Billing(sums["prompt"], sums["completion"], sums["cached"], sums["reasoning"], sums["estimated"] > 0)
    cost = _cost(sums, "", prices, sums["unpriced_cached"])
    # without prices nothing has a known cost, not even a run that has bought nothing yet
    is_priced = prices.prompt is not None or cost
    return LedgerTotals(
        requests=sums["requests"],
        replies=sums["replies"],
        num_unusable=sums["unusable"],
        num_doubtful=sums["held"],
        num_estimated=sums["estimated"],
        billing=billing,
        cost_pico=cost if is_priced else None,
        doubtful=Reservation(sums["held_prompt"], sums["held_completion"], _cost(sums, "held_", prices)),
    )


def _cost(sums: Mapping[str, int], prefix: str, prices: Prices, cached: int = 0) -> int | None:
    """What attempts cost, those without a price at today's; None if that is unknown."""
    known = sums[f"{prefix}cost"]
    if not sums[f"{prefix}unpriced"]:
        return known
    rest = prices.cost(Billing(sums[f"{prefix}unpriced_prompt"], sums[f"{prefix}unpriced_completion"], cached))
    return None if rest is None else known + rest


def _marks(values: Sequence[str]) -> str:
    return ", ".join("?" for _ in values)


@dataclass(frozen=True, slots=True)
class PromptRates:
    """What one prompt has come to: calls for each question that was corrected or explained, and tokens of a reply."""

    calls_per_question: float
    prompt_tokens: float
    completion_tokens: float


def rates(connection: sqlite3.Connection, model: str) -> dict[str, PromptRates]:
    """What each prompt has lately come to with a model, by id; questions that were only answered are not counted."""
    latest = (
        "FROM attempts a JOIN requests r ON r.key = a.key WHERE a.outcome = 'answered' AND a.id > ? "
        "AND json_extract(r.canonical, '$.model') = ?"
    )
    last = connection.execute("SELECT COALESCE(MAX(id), 0) FROM attempts").fetchone()[0]
    values = (last - NUM_FOR_RATES, model)
    num_questions = connection.execute(
        f"SELECT COUNT(DISTINCT a.question_id) {latest} AND json_extract(r.canonical, '$.prompt_id') <> 'answer'",
        values,
    ).fetchone()[0]
    sql = (
        "SELECT json_extract(r.canonical, '$.prompt_id') AS prompt_id, COUNT(*), AVG(a.prompt_tokens), "
        f"AVG(a.completion_tokens) {latest} GROUP BY prompt_id"
    )
    return {
        prompt_id: PromptRates(calls / max(1, num_questions), prompt, completion)
        for prompt_id, calls, prompt, completion in connection.execute(sql, values)
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
    maxima = ", ".join(f"MAX({name})" for name in MAXIMA)
    row = connection.execute(f"SELECT {maxima} FROM totals WHERE run = ?", (run,)).fetchone()
    prompt, completion, factor = (value or 0 for value in row)
    return max(0, int(prompt)), max(0, int(completion)), max(1.0, factor)


def _named(connection: sqlite3.Connection, sql: str, values: tuple[Any, ...]) -> dict[str, Any]:
    """The one row of a query, by the names of its columns; empty if there is none."""
    cursor = connection.execute(sql, values)
    row = cursor.fetchone()
    return {} if row is None else dict(zip((column[0] for column in cursor.description), row, strict=True))
