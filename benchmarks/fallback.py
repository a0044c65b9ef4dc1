"""Scoring with a student's fused graphs, against Optimum's own graph of the same student: what a fallback costs.

    python benchmarks/fallback.py --student DIR --questions 4

DIR is a prepared student (`edgeelad.training.prepare_student`) of a fused family that Optimum knows as well. Both score
the same questions, on one thread, int8, in turns. Prints the environment, questions per minute, and as the last line
JSON.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from machine import describe_machine

from edgeelad.config import ExportConfig
from edgeelad.engine.options import EngineOptions
from edgeelad.engine.student import Student
from edgeelad.engine.tree import TreeParams
from edgeelad.export import export_student
from edgeelad.export.standard import write_quantized_standard, write_standard_graph
from edgeelad.records import Question

TREE = TreeParams(4, 4, 0.7, 0, 1.0, 96, 32, probe=True, seed=0)
TEXT = "A farm has {0} hens. Each lays {1} eggs per week, and {2} are sold per day. How many are left after a week?"


def main() -> None:
    """Export one student in both ways and score with both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", type=Path, required=True, help="a prepared student")
    parser.add_argument("--questions", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    asked = [Question(str(n), TEXT.format(n + 5, n % 3 + 3, n % 5 + 1)) for n in range(arguments.questions)]
    with tempfile.TemporaryDirectory() as name:
        fused, standard = Path(name) / "fused", Path(name) / "standard"
        export_student(arguments.student, fused, ExportConfig(num_parity_prompts=1), parity_questions=asked)
        shutil.copytree(arguments.student, standard, ignore=shutil.ignore_patterns("*.safetensors"))
        write_quantized_standard(write_standard_graph(arguments.student, standard), standard, "int8", [])
        options = EngineOptions(precision="int8")
        with Student.open(fused, options) as fast, Student.open(standard, options) as slow:
            pairs = [(per_minute(fast, asked), per_minute(slow, asked)) for _ in range(arguments.rounds)]
    print(describe_machine())
    ratio = statistics.median(a / b for a, b in pairs)
    rates = [statistics.median(own) for own in zip(*pairs, strict=True)]
    print(f"questions per minute: fused {rates[0]:.1f}, Optimum's graph {rates[1]:.1f}; ratio {ratio:.1f}")
    print(json.dumps({"fused": round(rates[0], 2), "standard": round(rates[1], 2), "ratio": round(ratio, 2)}))


def per_minute(student: Student, asked: Sequence[Question]) -> float:
    """Questions per minute."""
    start = time.perf_counter()
    list(student.generate_trees(asked, TREE))
    return 60 * len(asked) / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
