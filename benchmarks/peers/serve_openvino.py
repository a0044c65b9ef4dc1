"""OpenVINO GenAI behind a small server: python serve_openvino.py FOLDER SLOTS CONTEXT THREADS.

POST /v1/completions takes the prompt's token ids and streams one event per step, as OpenAI's API does; the pipeline
advances in a thread of its own. Prints its URL, then serves until stdin ends. Runs in an environment of its own.
"""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from queue import SimpleQueue
from typing import Any

import numpy as np
import openvino
import openvino_genai

CACHE_GB = 4


class Engine:
    """The pipeline, and the thread that advances it while there are requests."""

    def __init__(self, folder: str, slots: int, threads: int) -> None:
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.cache_size = CACHE_GB
        scheduler.max_num_seqs = slots
        scheduler.enable_prefix_caching = True
        properties = {"INFERENCE_NUM_THREADS": threads}
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(folder, scheduler, "CPU", properties)
        self._changed, self._numbers = threading.Condition(), count()
        self._running: list[tuple[Any, SimpleQueue[Any]]] = []
        threading.Thread(target=self._advance, daemon=True).start()

    def start(self, ids: list[int], max_tokens: int) -> SimpleQueue[Any]:
        """Queue a prompt; the result receives what each step generates: greedily, up to an end token."""
        outputs: SimpleQueue[Any] = SimpleQueue()
        config = openvino_genai.GenerationConfig(max_new_tokens=max_tokens)
        tensor = openvino.Tensor(np.array([ids], dtype=np.int64))
        with self._changed:
            self._running.append((self._pipeline.add_request(next(self._numbers), tensor, config), outputs))
            self._changed.notify()
        return outputs

    def _advance(self) -> None:
        while True:
            with self._changed:
                while not self._running:
                    self._changed.wait()
                running = list(self._running)
            self._pipeline.step()
            for handle, outputs in running:
                for output in handle.read().values() if handle.can_read() else ():
                    outputs.put(output)
                    if output.finish_reason != openvino_genai.GenerationFinishReason.NONE:
                        self._running.remove((handle, outputs))


class Handler(BaseHTTPRequestHandler):
    """One request."""

    engine: Engine
    protocol_version = "HTTP/1.0"

    def do_POST(self) -> None:
        """Stream a completion's tokens."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        outputs, total = self.engine.start(asked["prompt"], asked["max_tokens"]), 0
        self.send_response(200)
        self.end_headers()
        is_done = False
        while not is_done:
            output = outputs.get()
            total += len(output.generated_ids)
            is_done = output.finish_reason != openvino_genai.GenerationFinishReason.NONE
            self._event({"choices": [{"text": " ".join(map(str, output.generated_ids))}]})
        self._event({"choices": [], "usage": {"completion_tokens": total}})

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _event(self, body: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(body)}\n\n".encode())


class Server(ThreadingHTTPServer):
    """A server that lets all clients connect at the same time."""

    request_queue_size = 128


def main() -> None:
    """Start the server."""
    folder, slots, _, threads = sys.argv[1], *map(int, sys.argv[2:])
    Handler.engine = Engine(folder, slots, threads)
    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_port}/v1", flush=True)
    print(openvino_genai.__version__, file=sys.stderr, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
