"""From a cold start to the first token: `edgeelad run` against onnxruntime opening the same graph.

    python benchmarks/cold_start.py PACKAGE

Three programs take turns, each in a process of its own: Python that imports onnxruntime; one that also opens the
package's graph, with edgeelad's settings; and `edgeelad run` up to its first token. Files are in the page cache. Prints
the environment, the medians of wall seconds to the first output and of processor seconds to the end, and as the last
line JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from machine import describe_machine

from edgeelad.package.open import open_package

IMPORT = "import os; os.environ['ORT_DISABLE_TELEMETRY'] = '1'; import onnxruntime"
OPEN = f"""{IMPORT}
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
options.enable_mem_pattern = options.enable_mem_reuse = False
options.add_session_config_entry("session.load_model_format", "ONNX")
onnxruntime.InferenceSession({{graph!r}}, options, providers=["CPUExecutionProvider"])
"""


def main() -> None:
    """Run the rounds, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path)
    parser.add_argument("--question", default="What is 2 + 3?")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    graph = str(open_package(arguments.package).graph)
    programs = {
        "import": [sys.executable, "-c", IMPORT],
        "open": [sys.executable, "-c", OPEN.format(graph=graph)],
        "run": [
            *(sys.executable, "-m", "edgeelad", "run", str(arguments.package), arguments.question),
            *("--max-tokens", "1"),
        ],
    }
    print(describe_machine(), file=sys.stderr)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
    for number in range(arguments.rounds + 1):
        for name, command in programs.items():
            measured = _measure(command)
            if number:  # the first round fills the page cache
                found[name].append(measured)
    medians = {
        name: [round(statistics.median(row[column] for row in rows), 3) for column in (0, 1)]
        for name, rows in found.items()
    }
    for name, (wall_s, processor_s) in medians.items():
        print(f"{name:8} {wall_s:7.3f} s wall {processor_s:7.3f} s processor")
    ratio = {key: round(medians["run"][i] / medians["open"][i], 2) for i, key in enumerate(("wall", "processor"))}
    print(json.dumps({"machine": describe_machine(), "rounds": arguments.rounds, "medians": medians, "ratio": ratio}))


def _measure(command: list[str]) -> tuple[float, float]:
    """Wall seconds of a process up to its first output, and processor seconds up to its end."""
    before, start = os.times(), time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(1)  # of `run` the first token, of the others the end
        seconds = time.perf_counter() - start
        process.stdout.read()
    assert process.returncode == 0, command
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return seconds, used


if __name__ == "__main__":
    main()
