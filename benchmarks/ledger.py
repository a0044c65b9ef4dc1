"""How the teacher's ledger grows: seconds per operation, size and memory, by the number of replies in it.

    python benchmarks/ledger.py --folder /tmp --rows 10_000 100_000 1_000_000

Each ledger is filled in bulk, without indexes and triggers (one run and model, texts of `--request-bytes` and
`--reply-bytes`); the operations are then those of a run, through `Ledger`, in another process. `exchange` is begin and
answer, both synced to disk; `hit` and `miss` look up a reply; `spent`, `totals`, `rates` and `overruns` are what a run
asks when it resumes, once per round, or before each request; `open` checks the file as a run does when it starts;
`stats` and `verify` are commands. Prints the environment, a table, and as its last line JSON. Ten million rows of the
default sizes take about 32 GB.
"""

from __future__ import annotations

import argparse
import json
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from machine import describe_machine

from edgeelad.teacher.ledger.budget import Caps, Prices, Reservation
from edgeelad.teacher.ledger.counts import LedgerTotals
from edgeelad.teacher.ledger.exchange import Billing, StoredReply, TeacherRequest, content_key, reply_digest
from edgeelad.teacher.ledger.files import ledger_stats, verify_ledger
from edgeelad.teacher.ledger.ledger import Ledger
from edgeelad.teacher.ledger.schema import COUNT_ALL, CREATE_TRIGGERS, TRIGGERS
from edgeelad.teacher.prompts.messages import Message

RUN, MODEL, CAP = "run", "model", 512
PRICES = Prices(400_000, 100_000, 1_600_000)
BILLING = Billing(600, 150)
WANTED = Reservation(2500, CAP, PRICES.cost(Billing(2500, CAP)))
CHUNK = 50_000
COLUMNS = ("exchange", "hit", "miss", "spent", "totals", "rates", "overruns", "open", "close", "stats", "verify")


def main() -> None:
    """Fill and measure one ledger after another, each in processes of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where the ledgers are made, and deleted")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--request-bytes", type=int, default=2000, help="of a request's canonical form")
    parser.add_argument("--reply-bytes", type=int, default=400)
    parser.add_argument("--exchanges", type=int, default=200, help="measured in a full ledger")
    parser.add_argument("--no-verify", action="store_true", help="leave out `ledger verify`, which reads everything")
    parser.add_argument("--step", choices=list(STEPS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        print(json.dumps(STEPS[arguments.step](arguments.folder / "ledger.sqlite", arguments.rows[0], arguments)))
        return
    print(describe_machine(), f"SQLite {sqlite3.sqlite_version}", sep=", ")
    print(f"\n{'rows':>10} {'GB':>6} {'WAL MB':>7} {'peak MB':>8} " + " ".join(f"{name:>9}" for name in COLUMNS))
    rows = []
    for number in arguments.rows:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            found = {name: run_step(name, folder, number) for name in STEPS}["measure"]
        rows.append(found)
        cells = " ".join(f"{found['seconds'].get(name, float('nan')):9.2g}" for name in COLUMNS)
        print(
            f"{number:10,} {found['bytes'] / 1e9:6.2f} {found['wal_bytes'] / 1e6:7.1f} {found['peak_mb']:8.0f} {cells}",
            flush=True,
        )
    print(json.dumps(rows))


def run_step(name: str, folder: str, num_rows: int) -> Any:
    """Run this script for one step; gives what it prints."""
    own = ["--step", name, "--folder", folder, "--rows", str(num_rows)]
    done = subprocess.run([sys.executable, __file__, *sys.argv[1:], *own], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


def measure(path: Path, num_rows: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Time what a run does with a full ledger."""
    seconds = {}
    ledger, seconds["open"] = timed(lambda: Ledger(path))
    numbers = range(num_rows, num_rows + arguments.exchanges)
    seconds["exchange"] = typical(lambda number: exchange(ledger, number, arguments), numbers)
    spread = range(0, num_rows, max(1, num_rows // 500))
    keys = [make_request(number, arguments.request_bytes).key for number in spread]
    seconds["hit"] = typical(lambda key: ledger.find(key, CAP, ""), keys)
    seconds["miss"] = typical(lambda key: ledger.find(key + "x", CAP, ""), keys)
    _, seconds["spent"] = timed(lambda: ledger.spent(RUN, PRICES))
    totals: LedgerTotals
    totals, seconds["totals"] = timed(lambda: ledger.totals(RUN, PRICES))
    assert totals.replies == num_rows + arguments.exchanges, totals
    _, seconds["rates"] = timed(lambda: ledger.rates(MODEL))
    _, seconds["overruns"] = timed(lambda: ledger.overruns(RUN))
    wal_bytes = path.with_name(f"{path.name}-wal").stat().st_size
    _, seconds["close"] = timed(ledger.close)
    _, seconds["stats"] = timed(lambda: ledger_stats(path))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if not arguments.no_verify:
        wrong, seconds["verify"] = timed(lambda: verify_ledger(path))
        assert wrong == [], wrong
    return {
        "rows": num_rows,
        "seconds": seconds,
        "bytes": path.stat().st_size,
        "wal_bytes": wal_bytes,
        "peak_mb": peak,
    }


def fill(path: Path, num_rows: int, arguments: argparse.Namespace) -> None:
    """Write rows as a run would have left them: in few transactions, not synced, counted at the end."""
    with Ledger(path) as ledger:
        ledger.register()
        session = ledger.session
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    for name in TRIGGERS:
        connection.execute(f"DROP TRIGGER {name}")
    indexes = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql <> ''").fetchall()
    for name, _ in indexes:
        connection.execute(f"DROP INDEX {name}")
    connection.execute(f"PRAGMA cache_size = {-2 << 20}")  # 2 GiB: keys are hashes, so indexes are written all over
    for first in range(0, num_rows, CHUNK):
        numbers = range(first, min(first + CHUNK, num_rows))
        connection.execute("BEGIN")
        requests, attempts, replies = zip(*rows_of(numbers, session, arguments), strict=True)
        connection.executemany("INSERT INTO requests VALUES (?, ?, 0)", requests)
        connection.executemany(
            "INSERT INTO attempts (id, key, run, question_id, session, completion_cap, started_at, finished_at, "
            "outcome, reserved_prompt_tokens, reserved_completion_tokens, reserved_cost, cost, prompt_tokens, "
            "completion_tokens) "
            f"VALUES (?, ?, '{RUN}', ?, ?, {CAP}, 0, 0, 'answered', ?, ?, ?, ?, ?, ?)",
            attempts,
        )
        connection.executemany("INSERT INTO replies VALUES (?, ?, ?, ?, ?, ?, ?, '')", replies)
        connection.execute("COMMIT")
    connection.execute("BEGIN")
    connection.execute("INSERT INTO run_questions SELECT DISTINCT run, question_id FROM attempts")
    for statement in (*(sql for _, sql in indexes), *COUNT_ALL, *CREATE_TRIGGERS):
        connection.execute(statement)
    connection.execute("COMMIT")
    connection.close()


def rows_of(numbers: range, session: str, arguments: argparse.Namespace) -> Iterator[tuple[Any, Any, Any]]:
    """The request, attempt and reply of each number."""
    for number in numbers:
        canonical = make_request(number, arguments.request_bytes).canonical()
        key = content_key(canonical)
        fields = (key, reply_text(number, arguments.reply_bytes), "stop", CAP, MODEL)
        wanted = (WANTED.prompt_tokens, WANTED.completion_tokens, WANTED.cost_pico)
        billed = (PRICES.cost(BILLING), BILLING.prompt_tokens, BILLING.completion_tokens)
        attempt = (number + 1, key, f"q{number // 2}", session, *wanted, *billed)  # two requests per question
        yield (key, canonical), attempt, (number + 1, *fields, reply_digest(*fields))


def make_request(number: int, num_bytes: int) -> TeacherRequest:
    """The request of a number, of about this size in its canonical form."""
    text = f"Question {number}: " + "what is the sum of these two numbers? " * (num_bytes // 38)
    messages = (Message("user", text[: max(20, num_bytes - 330)]),)
    return TeacherRequest("http://127.0.0.1/v1/chat/completions", MODEL, messages, 0.0, "check", "0" * 64)


def reply_text(number: int, num_bytes: int) -> str:
    """The reply to it."""
    return (f"{number} " + "so the answer is right. " * (num_bytes // 24 + 1))[:num_bytes]


def exchange(ledger: Ledger, number: int, arguments: argparse.Namespace) -> None:
    """One request, begun and answered."""
    request = make_request(number, arguments.request_bytes)
    begun = ledger.begin(
        request, WANTED, Caps(cost_pico=10**30), PRICES, run=RUN, question_id=f"q{number}", completion_cap=CAP
    )
    assert begun.attempt_id is not None, "a new request"
    reply = StoredReply(request.key, reply_text(number, arguments.reply_bytes), "stop", "", CAP, BILLING)
    ledger.answer(begun.attempt_id, reply, PRICES.cost(BILLING), model=MODEL)


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call gives, and its seconds."""
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


def typical(call: Callable[[Any], Any], values: Any) -> float:
    """The median seconds of a call."""
    return statistics.median(timed(lambda value=value: call(value))[1] for value in values)


STEPS: dict[str, Callable[[Path, int, argparse.Namespace], Any]] = {"fill": fill, "measure": measure}

if __name__ == "__main__":
    main()
