"""What a student costs without fused graphs: Optimum's own graph on the plain generator, against the fused ones.

    python benchmarks/fallback.py --student SmolLM2-135M-Instruct --questions 4

The student is of a fused family that Optimum exports as well, and is exported in both ways. Both score the same
questions (an explanation, 4 branches per prefix, 4 more explanations) on one thread, in turns. Prints the environment,
size, agreement with fp32 and questions per core-minute of both, and as the last line JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

from machine import describe_machine

from edgeelad.config import ExportConfig, StudentConfig
from edgeelad.engine.options import EngineOptions
from edgeelad.engine.student import Student
from edgeelad.engine.tree import TreeParams
from edgeelad.export import ExportResult, export_student
from edgeelad.export.fused.modules import UnservedArchitectureError
from edgeelad.records import Question
from edgeelad.training import prepare_student

TREE = TreeParams(4, 4, 0.7, 0, 1.0, 96, 32, probe=True, seed=0)
TEXT = "A farm has {0} hens. Each lays {1} eggs per week, and {2} are sold per day. How many are left after a week?"


def main() -> None:
    """Export one student in both ways, compare, and score with both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", required=True, help="folder or Hugging Face id")
    parser.add_argument("--precision", choices=["int8", "int4"], default="int8")
    parser.add_argument("--questions", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3, help="of scoring; 0: export only")
    arguments = parser.parse_args()
    asked = [Question(str(n), TEXT.format(n + 5, n % 3 + 3, n % 5 + 1)) for n in range(arguments.questions)]
    print(describe_machine(), flush=True)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        student = prepare_student(arguments.student, work / "student", StudentConfig(model=arguments.student))
        results = {
            kind: export(student, work / kind, kind, arguments.precision, asked) for kind in ("fused", "standard")
        }
        options = EngineOptions(precision=arguments.precision)
        with Student.open(work / "fused", options) as fast, Student.open(work / "standard", options) as slow:
            pairs = [(per_minute(fast, asked), per_minute(slow, asked)) for _ in range(arguments.rounds)]
    figures: dict[str, dict[str, float] | float] = {kind: describe(result) for kind, result in results.items()}
    if pairs:
        rates = [statistics.median(own) for own in zip(*pairs, strict=True)]
        figures["ratio"] = round(statistics.median(a / b for a, b in pairs), 2)
        print(f"questions per core-minute: fused {rates[0]:.1f}, standard {rates[1]:.1f}; ratio {figures['ratio']}")
    print(json.dumps(figures))


def export(student: Path, out: Path, kind: str, precision: str, asked: Sequence[Question]) -> ExportResult:
    """Export a student with its fused graphs, or as if it had none."""
    refusal = UnservedArchitectureError("by this benchmark")
    refused = patch("edgeelad.export.student.traced_graph", side_effect=refusal)
    with refused if kind == "standard" else nullcontext():
        config = ExportConfig(num_parity_prompts=1, quantize=precision)
        result = export_student(student, out, config, parity_questions=asked)
    assert result.graphs == kind
    print(f"{kind}: {result.model_bytes / 1e6:.0f} MB; {result.summary}; {result.seconds:.0f} s", flush=True)
    return result


def describe(result: ExportResult) -> dict[str, float]:
    """Size and agreement."""
    assert result.agreement is not None
    return {
        "fp32_mb": round(result.model_bytes / 1e6, 1),
        "quantized_mb": round(result.quantized_bytes / 1e6, 1),
        "agreement": round(result.agreement.share, 4),
        "seconds": round(result.seconds),
    }


def per_minute(student: Student, asked: Sequence[Question]) -> float:
    """Questions per minute of processor time, which other programs distort little."""
    start = time.process_time()
    list(student.generate_trees(asked, TREE))
    return 60 * len(asked) / (time.process_time() - start)


if __name__ == "__main__":
    main()
