"""Several clients of one server: tokens per second, time to first token, refusals.

    python benchmarks/serving.py --package PACKAGE --data ../shared/data/gsm8k/test.jsonl
    python benchmarks/serving.py --url http://127.0.0.1:8000/v1 --name llama.cpp --data ...    # a server that runs

Each client sends GSM8K questions one after the other, streamed and greedy, `--tokens` new ones at most; every number of
clients gets the same questions. A client that is refused (503) counts as refused and does not try again. With
`--package`, `edgeelad serve` is started on a free port; `--serve` gives it further options. Prints the environment, a
table, and as the last line JSON.
"""

from __future__ import annotations

import argparse
import http.client
import json
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles
from urllib.parse import urlsplit

from machine import busy_core_seconds, describe_machine
from workload import read_questions


@dataclass(frozen=True, slots=True)
class Reply:
    """One request: its tokens, and the seconds to the first and to the last."""

    is_refused: bool
    tokens: int = 0
    first_s: float = 0.0
    last_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Level:
    """What a number of clients saw."""

    clients: int
    requests: int
    refused: int
    tokens: int
    seconds: float
    tokens_per_s: float
    first_p50_s: float
    first_p95_s: float
    per_client_tokens_per_s: float
    cores_busy: float


def main() -> None:
    """Start the server, or find it, and measure every number of clients."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="GSM8K's test.jsonl")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--package", help="package that edgeelad serves")
    where.add_argument("--url", help="base URL of a server that runs")
    parser.add_argument("--serve", default="", help="further options of edgeelad serve")
    parser.add_argument("--name", default="edgeelad")
    parser.add_argument("--model", help="model name to send; default: none")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--requests", type=int, default=16, help="of all clients together, at least one each")
    parser.add_argument("--tokens", type=int, default=64, help="maximum new tokens per request")
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    most = max(*arguments.clients, arguments.requests)
    questions = [question.text for question in read_questions(arguments.data, most)]
    print(describe_machine())
    levels = []
    with _server(arguments) as url:
        _ask(url, questions[0], arguments)  # warm-up
        for _ in range(arguments.rounds):
            for num_clients in arguments.clients:
                levels.append(_measure(url, num_clients, questions, arguments))
                print(_row(arguments.name, levels[-1]), flush=True)
    print(json.dumps({"name": arguments.name, "levels": [asdict(level) for level in levels]}))


@contextmanager
def _server(arguments: argparse.Namespace) -> Iterator[str]:
    if arguments.url:
        yield arguments.url
        return
    command = [sys.executable, "-m", "edgeelad", "serve", arguments.package, "--port", "0"]
    with subprocess.Popen([*command, *shlex.split(arguments.serve)], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().partition(" serves ")[0]
        finally:
            server.terminate()


def _measure(url: str, num_clients: int, questions: list[str], arguments: argparse.Namespace) -> Level:
    waiting = questions[: max(num_clients, arguments.requests)][::-1]
    replies: list[Reply] = []

    def work() -> None:
        while waiting:
            try:
                question = waiting.pop()
            except IndexError:
                return
            replies.append(_ask(url, question, arguments))

    threads = [threading.Thread(target=work) for _ in range(num_clients)]
    start, busy = time.perf_counter(), busy_core_seconds()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds, busy = time.perf_counter() - start, busy_core_seconds() - busy
    served = [reply for reply in replies if not reply.is_refused]
    firsts = [reply.first_s for reply in served]
    tokens = sum(reply.tokens for reply in served)
    rates = [(reply.tokens - 1) / (reply.last_s - reply.first_s) for reply in served if reply.tokens > 1]
    return Level(
        num_clients,
        len(replies),
        len(replies) - len(served),
        tokens,
        round(seconds, 2),
        round(tokens / seconds, 1),
        round(median(firsts), 3),
        round(quantiles(firsts, n=20)[-1], 3) if len(firsts) > 1 else round(firsts[0], 3),
        round(median(rates), 1),
        round(busy / seconds, 2),
    )


def _ask(url: str, question: str, arguments: argparse.Namespace) -> Reply:
    parts = urlsplit(url)
    body = {
        "messages": [{"role": "user", "content": question}],
        "max_tokens": arguments.tokens,
        "temperature": 0,
        "stream": True,
        **({"model": arguments.model} if arguments.model else {}),
    }
    start, first, tokens = time.perf_counter(), 0.0, 0
    with closing(http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=600)) as connection:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", f"{parts.path}/chat/completions", json.dumps(body | _usage(arguments)), headers)
        response = connection.getresponse()
        if response.status == 503:
            return Reply(is_refused=True)
        if response.status != 200:
            raise SystemExit(f"{url}: {response.status} {response.read()[:500]!r}")
        for line in response:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            if event.get("usage"):
                tokens = event["usage"]["completion_tokens"]
            elif event["choices"] and event["choices"][0]["delta"].get("content"):
                first = first or time.perf_counter()
                tokens += 1  # where a server does not tell its usage, a chunk is a token
    end = time.perf_counter()
    return Reply(False, tokens, (first or end) - start, end - start)


def _usage(arguments: argparse.Namespace) -> dict[str, object]:
    return {"stream_options": {"include_usage": True}} if arguments.name == "edgeelad" else {}


def _row(name: str, level: Level) -> str:
    return (
        f"{name:12} {level.clients:3} clients  {level.tokens_per_s:7.1f} tokens/s  first token p50 "
        f"{level.first_p50_s:.2f} s, p95 {level.first_p95_s:.2f} s  {level.per_client_tokens_per_s:6.1f} tokens/s per "
        f"client  {level.refused} of {level.requests} refused  {level.cores_busy:.2f} cores busy"
    )


if __name__ == "__main__":
    main()
