"""Several clients of one server: tokens per second, time to first token, refusals.

    python benchmarks/serving.py --package PACKAGE --data ../shared/data/gsm8k/test.jsonl
    python benchmarks/serving.py --package PACKAGE --data ... --peer llama.cpp --student CHECKPOINT

Each client sends GSM8K questions one after the other, streamed and greedy, with up to `--tokens` new tokens; each
measurement has questions of its own, so that no server finds them in a cache. A client that is refused (503) counts as
refused and does not try again. `edgeelad serve` is started on a free port; `--serve` gives it further options. With
`--peer`, another server answers the same prompts, as token ids, with the student's int8 weights: llama.cpp's own, or
OpenVINO GenAI's continuous batching behind a small one (peers/serve_*.py), each with as many slots as clients. Prints
the environment, a table, and as the last line JSON.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any
from urllib.parse import urlsplit

from engines import PEERS
from environments import environment
from machine import busy_core_seconds, describe_machine
from models import write_gguf, write_openvino
from workload import read_questions

from edgeelad.engine.codec import Codec

CONTEXT = 512  # tokens per slot of a peer: more than a question and its answer have
Write = Callable[[Path, Path, Path], Path]
# server -> its environment, its program, and how its model is named and converted
PEER_SERVERS: dict[str, tuple[str, str, str, Write]] = {
    "llama.cpp": (
        "llama.cpp-server",
        "serve_llama.py",
        "-int8.gguf",
        lambda student, path, python: write_gguf(student, path, "int8", python),
    ),
    "openvino": ("openvino", "serve_openvino.py", "-openvino-int8", write_openvino),
}


@dataclass(frozen=True, slots=True)
class Reply:
    """One request: its tokens, and the seconds to the first and the last."""

    is_refused: bool
    tokens: int = 0
    first_s: float = 0.0
    last_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Level:
    """Measurements with one number of clients."""

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
    """Start the server, and measure it with each number of clients."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="GSM8K's test.jsonl")
    parser.add_argument("--package", type=Path, required=True, help="package that edgeelad serves")
    parser.add_argument("--serve", default="", help="further options of edgeelad serve")
    parser.add_argument("--peer", choices=PEER_SERVERS, help="server to measure instead")
    parser.add_argument("--student", type=Path, help="the package's student in transformers' format, for --peer")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "edgeelad-bench")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--requests", type=int, default=16, help="of all clients together, at least one each")
    parser.add_argument("--tokens", type=int, default=64, help="maximum new tokens per request")
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    sizes = [max(num_clients, arguments.requests) for num_clients in arguments.clients] * arguments.rounds
    questions = read_questions(arguments.data, 1 + sum(sizes))
    codec = Codec.load(arguments.package)
    bodies = [
        {"messages": [{"role": "user", "content": question.text}]}
        if arguments.peer is None
        else {"prompt": codec.encode_prompt(question)}
        for question in questions
    ]
    name = arguments.peer or "edgeelad"
    print(describe_machine())
    levels = []
    with _server(arguments) as url:
        _ask(url, bodies[0], arguments.tokens)  # warm-up
        first = 1
        for num_clients, size in zip(arguments.clients * arguments.rounds, sizes, strict=True):
            levels.append(_measure(url, num_clients, bodies[first : first + size], arguments.tokens))
            print(_row(name, levels[-1]), flush=True)
            first += size
    print(json.dumps({"name": name, "levels": [asdict(level) for level in levels]}))


@contextmanager
def _server(arguments: argparse.Namespace) -> Iterator[str]:
    command = [sys.executable, "-m", "edgeelad", "serve", str(arguments.package), "--port", "0"]
    command += shlex.split(arguments.serve)
    if arguments.peer is not None:
        command = _peer_command(arguments)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().partition(" serves ")[0].strip()
        finally:
            server.terminate()


def _peer_command(arguments: argparse.Namespace) -> list[str]:
    environment_name, script, suffix, write = PEER_SERVERS[arguments.peer]
    python = environment(environment_name, arguments.cache)
    folder = arguments.cache / "serving"
    folder.mkdir(parents=True, exist_ok=True)
    model = write(arguments.student, folder / f"{arguments.student.name}{suffix}", python)
    numbers = (max(arguments.clients), CONTEXT, len(os.sched_getaffinity(0)))
    return [str(python), str(PEERS / script), str(model), *map(str, numbers)]


def _measure(url: str, num_clients: int, bodies: list[dict[str, Any]], num_tokens: int) -> Level:
    start, busy = time.perf_counter(), busy_core_seconds()
    with ThreadPoolExecutor(num_clients) as clients:
        replies = list(clients.map(lambda body: _ask(url, body, num_tokens), bodies))
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


def _ask(url: str, body: dict[str, Any], num_tokens: int) -> Reply:
    parts = urlsplit(url)
    endpoint = "completions" if "prompt" in body else "chat/completions"
    options = {"max_tokens": num_tokens, "temperature": 0, "stream": True, "stream_options": {"include_usage": True}}
    start, first, tokens = time.perf_counter(), 0.0, 0
    with closing(http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=600)) as connection:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", f"{parts.path}/{endpoint}", json.dumps(body | options), headers)
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
            elif event["choices"]:
                (choice,) = event["choices"]
                if choice.get("text") or choice.get("delta", {}).get("content"):
                    first = first or time.perf_counter()
    end = time.perf_counter()
    return Reply(False, tokens, (first or end) - start, end - start)


def _row(name: str, level: Level) -> str:
    return (
        f"{name:12} {level.clients:3} clients  {level.tokens_per_s:7.1f} tokens/s  first token p50 "
        f"{level.first_p50_s:.2f} s, p95 {level.first_p95_s:.2f} s  {level.per_client_tokens_per_s:6.1f} tokens/s per "
        f"client  {level.refused} of {level.requests} refused  {level.cores_busy:.2f} cores busy"
    )


if __name__ == "__main__":
    main()
