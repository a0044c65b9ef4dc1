"""A new round's graphs: exporting, optimizing and quantizing anew, against new weights in the last round's graphs.

    python benchmarks/export_round.py --data ../shared/data/gsm8k/test.jsonl

Both write the standard and the engine's graphs in fp32 and int8; without the parity check, which is the same after
both. They take turns. Prints the environment, the seconds, whether the files are the same, and as the last line JSON.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from machine import describe_machine
from models import Models
from shapes import SHAPES, make_student
from workload import training_texts

from edgeelad.export.fused.build import traced_graph, write_quantized_graphs, write_student_graphs
from edgeelad.export.fused.swap import swap_weights

CALIBRATION = [list(range(start, start + 128)) for start in range(0, 1024, 128)]  # token ids


def main() -> None:
    """Export two students of one shape, the second one in both ways."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="GSM8K's test.jsonl or train.jsonl")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="smollm2-135m")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "edgeelad-bench")
    arguments = parser.parse_args()
    first = Models(arguments.cache, arguments.shape, arguments.data).student()
    second = arguments.cache / "students" / f"{arguments.shape}-next"
    make_student(arguments.shape, training_texts(arguments.data), second, seed=1)
    anew, swapped, is_same = [], [], []
    with tempfile.TemporaryDirectory(dir=arguments.cache) as name:
        folder = Path(name)
        previous = folder / "previous"
        export_anew(first, previous)
        shutil.copyfile(first / "config.json", previous / "config.json")
        for _ in range(arguments.rounds):
            anew.append(export_anew(second, folder / "anew"))
            swapped.append(swap(previous, second, folder / "swapped"))
            is_same.append(has_same_files(folder / "anew", folder / "swapped"))
            shutil.rmtree(folder / "anew")
            shutil.rmtree(folder / "swapped")
    each = [a / b for a, b in zip(anew, swapped, strict=True)]
    print(describe_machine())
    print(f"{arguments.shape}, fp32 and int8, {arguments.rounds} rounds; the same files: {all(is_same)}")
    for what, own in (("anew", anew), ("swapped", swapped), ("ratio", each)):
        print(f"{what:8} {statistics.median(own):8.2f} ({min(own):.2f} to {max(own):.2f})")
    medians = {"anew_s": anew, "swapped_s": swapped, "ratio": each}
    summary = {key: round(statistics.median(own), 2) for key, own in medians.items()}
    print(json.dumps({"shape": arguments.shape, **summary, "is_same": all(is_same)}))


def export_anew(student: Path, out: Path) -> float:
    """Trace, clean, write and quantize; gives the seconds."""
    out.mkdir()
    start = time.perf_counter()
    graph = traced_graph(student, out / "scratch")
    shutil.rmtree(out / "scratch")
    write_quantized_graphs(write_student_graphs(graph, out), out, "int8", CALIBRATION)
    return time.perf_counter() - start


def swap(previous: Path, student: Path, out: Path) -> float:
    """Put a student's weights into earlier graphs; gives the seconds."""
    out.mkdir()
    start = time.perf_counter()
    write_quantized_graphs(swap_weights(previous, student, out), out, "int8", CALIBRATION)
    return time.perf_counter() - start


def has_same_files(left: Path, right: Path) -> bool:
    """Whether two folders hold the same files, byte for byte."""
    names = sorted(path.name for path in left.iterdir())
    if names != sorted(path.name for path in right.iterdir()):
        return False
    return all(filecmp.cmp(left / name, right / name, shallow=False) for name in names)


if __name__ == "__main__":
    main()
