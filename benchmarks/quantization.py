"""Quantization schemes of a real student: how closely each follows fp32, its size, and its speed.

    python benchmarks/quantization.py --student SmolLM2-135M-Instruct --data ../shared/data/gsm8k/test.jsonl

Texts are GSM8K questions with published solutions, and the fp32 student's own answers to further questions and to
built-in ones, none of which calibrate. Each scheme is a combination of what the export does. Speed is of the standard
graph: a prompt of 256 tokens, and steps of one token after it, in turns; CPU seconds are of this process, so that other
programs distort them less than the clock. Prints the environment, a table, and as the last line JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from machine import describe_machine
from workload import read_questions

from edgeelad.config import StudentConfig
from edgeelad.engine.codec import Codec
from edgeelad.engine.graph_files import GraphFiles
from edgeelad.engine.plain.graph import OnnxGraph
from edgeelad.export.agreement import StudentText, forced_agreement, write_texts
from edgeelad.export.fused.build import traced_graph, write_student_graphs
from edgeelad.export.fused.calibrate import observe
from edgeelad.export.fused.edit import read_graph
from edgeelad.export.fused.files import write_graphs
from edgeelad.export.fused.quantize import Inputs, product_inputs, quantize_blocks, quantize_rows
from edgeelad.export.fused.rotate import rotate
from edgeelad.export.fused.smooth import find_channels, smooth
from edgeelad.export.questions import BUILT_IN, NUM_CALIBRATION
from edgeelad.text.explanation import join
from edgeelad.training import prepare_student

NUM_BUILT_IN = 16
PROMPT_TOKENS, DECODED_TOKENS = 256, 24


@dataclass(frozen=True, slots=True)
class Scheme:
    """One combination: bits per weight, 0 for fp32; scales per row or per block; what is done before."""

    bits: int
    is_rows: bool = False
    is_rotated: bool = False
    is_smoothed: bool = False
    is_calibrated: bool = False  # rounded as GPTQ does


SCHEMES = {
    "fp32": Scheme(0),
    "int8 rows": Scheme(8, is_rows=True),
    "int8 rows, smoothed": Scheme(8, is_rows=True, is_smoothed=True),
    "int8 rows, rotated": Scheme(8, is_rows=True, is_rotated=True),
    "int8 rows, rotated, smoothed": Scheme(8, is_rows=True, is_rotated=True, is_smoothed=True),
    "int8 rows, all": Scheme(8, is_rows=True, is_rotated=True, is_smoothed=True, is_calibrated=True),
    "int8 blocks": Scheme(8),
    "int8 blocks, rotated": Scheme(8, is_rotated=True),
    "int8 blocks, rotated, smoothed": Scheme(8, is_rotated=True, is_smoothed=True),
    "int8 blocks, all": Scheme(8, is_rotated=True, is_smoothed=True, is_calibrated=True),
    "int4 blocks": Scheme(4),
    "int4 blocks, rotated": Scheme(4, is_rotated=True),
    "int4 blocks, calibrated": Scheme(4, is_calibrated=True),
    "int4 blocks, all": Scheme(4, is_rotated=True, is_smoothed=True, is_calibrated=True),
}


def main() -> None:
    """Export, quantize by each scheme, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", required=True, help="folder or Hugging Face id")
    parser.add_argument("--data", type=Path, required=True, help="GSM8K's test.jsonl or train.jsonl")
    parser.add_argument("--only", nargs="+", choices=sorted(SCHEMES), default=list(SCHEMES))
    parser.add_argument("--questions", type=int, default=12, help="of each kind of text")
    parser.add_argument("--calibration", type=int, default=NUM_CALIBRATION, help="texts that calibrate")
    parser.add_argument("--rounds", type=int, default=3, help="of speed")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="keep the fp32 graphs here, and use them if they exist")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary) / "student"
        codec = prepare(arguments.student, folder)
        texts, calibration = make_texts(folder, codec, arguments)
        print(describe_machine(), flush=True)
        print(f"{sum(len(text.completion) + 1 for kind in texts.values() for text in kind)} positions compared")
        print(
            f"{'scheme':30} {'top-1':>6} {'KL':>8} {'max':>6}  {' '.join(f'{kind:>10}' for kind in texts)}    MB      s"
        )
        rows = []
        for name in arguments.only:
            row = measure(name, folder, Path(temporary) / name.replace(" ", "-"), texts, calibration, arguments.threads)
            rows.append(row)
            kinds = " ".join(f"{row['top1_' + kind]:>10.4f}" for kind in texts)
            print(
                f"{name:30} {row['top1']:6.4f} {row['divergence']:8.5f} {row['max_difference']:6.2f}  {kinds} "
                f"{row['mb']:5.0f} {row['seconds']:6.1f}",
                flush=True,
            )
        speeds = measure_speed({name: scheme_path(Path(temporary), folder, name) for name in arguments.only}, arguments)
        for row in rows:
            row |= speeds[row["scheme"]]
            print(
                f"{row['scheme']:30} new tokens/s (per core-second): prefill {row['prefill']:6.0f} "
                f"({row['prefill_cpu']:6.0f}), decode {row['decode']:6.1f} ({row['decode_cpu']:6.1f})"
            )
    print(json.dumps(rows))


def prepare(student: str, folder: Path) -> Codec:
    """The student's fp32 graphs and tokenizer in a folder, unless they are there."""
    if not folder.exists():
        prepare_student(student, folder, StudentConfig(model=student))
        with tempfile.TemporaryDirectory() as scratch:
            write_student_graphs(traced_graph(folder, Path(scratch)), folder)
    return Codec.load(folder)


def make_texts(
    folder: Path, codec: Codec, arguments: argparse.Namespace
) -> tuple[dict[str, list[StudentText]], list[tuple[int, ...]]]:
    """Texts by kind, and token ids of the texts that calibrate."""
    count, num_calibration = arguments.questions, arguments.calibration
    asked = read_questions(arguments.data, 2 * count + num_calibration)
    prompts = [codec.encode_prompt(question) for question in asked]
    solved = [
        StudentText(tuple(prompt), tuple(codec.encode_completion(join(question.explanation or (), question.answer))))
        for prompt, question in zip(prompts[:count], asked[:count], strict=True)
    ]
    generic = [codec.encode_prompt(question) for question in BUILT_IN[:NUM_BUILT_IN]]
    own = write_texts(folder, codec, [*prompts[count:], *generic], arguments.threads)
    kinds = {"solutions": solved, "own": own[:count], "built-in": own[count + num_calibration :]}
    return kinds, [text.ids for text in own[count : count + num_calibration]]


def scheme_path(temporary: Path, folder: Path, name: str) -> Path:
    """The standard graph of a scheme."""
    return GraphFiles(folder).standard if name == "fp32" else temporary / name.replace(" ", "-") / "model.onnx"


def write_scheme(scheme: Scheme, folder: Path, out: Path, calibration: Sequence[Sequence[int]], threads: int) -> None:
    """Write the standard graph of a scheme."""
    source = GraphFiles(folder)
    graph = read_graph(onnx.load(str(source.standard), load_external_data=False), source.weights)
    is_rotated = scheme.is_rotated and rotate(graph)
    rows = {}
    if scheme.is_smoothed or scheme.is_calibrated:
        rows = dict(observe(graph, product_inputs(graph), calibration, out, threads))
    for channels in find_channels(graph) if scheme.is_smoothed else ():
        if not (is_rotated and channels.is_normed):
            rows[channels.tensor] = smooth(graph, channels, rows[channels.tensor])
    inputs = Inputs(rows if scheme.is_calibrated else {})
    if scheme.is_rows:
        quantize_rows(graph, inputs)
    else:
        quantize_blocks(graph, scheme.bits, inputs)
    write_graphs({out / "model.onnx": graph}, out / "model.onnx_data")


def measure(
    name: str,
    folder: Path,
    out: Path,
    texts: dict[str, list[StudentText]],
    calibration: Sequence[Sequence[int]],
    threads: int,
) -> dict[str, float | str]:
    """Quantize by a scheme and compare with fp32."""
    start = time.perf_counter()
    if name != "fp32":
        out.mkdir()
        write_scheme(SCHEMES[name], folder, out, calibration, threads)
    seconds = time.perf_counter() - start
    path = scheme_path(out.parent, folder, name)
    graph, reference = OnnxGraph(path, threads), OnnxGraph(GraphFiles(folder).standard, threads)
    found = {kind: forced_agreement(reference, graph, own) for kind, own in texts.items()}
    total = sum(one.num_tokens for one in found.values())
    return {
        "scheme": name,
        "top1": sum(one.num_same for one in found.values()) / total,
        "divergence": sum(one.mean_divergence * one.num_tokens for one in found.values()) / total,
        "max_difference": max(one.max_logit_difference for one in found.values()),
        **{f"top1_{kind}": one.share for kind, one in found.items()},
        "mb": path.with_name("model.onnx_data").stat().st_size / 1e6,
        "seconds": seconds,
    }


def measure_speed(paths: dict[str, Path], arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Tokens per second and per CPU second of each graph, medians over rounds in which the graphs take turns."""
    graphs = {name: OnnxGraph(path, arguments.threads) for name, path in paths.items()}
    times: dict[str, list[tuple[float, ...]]] = {name: [] for name in graphs}
    for number in range(arguments.rounds + 1):
        for name, graph in graphs.items():
            taken = time_graph(graph)
            if number:  # the first round warms up
                times[name].append(taken)
    counts = (PROMPT_TOKENS, PROMPT_TOKENS, DECODED_TOKENS, DECODED_TOKENS)
    columns = ("prefill", "prefill_cpu", "decode", "decode_cpu")
    return {
        name: {
            column: count / statistics.median(values)
            for column, count, values in zip(columns, counts, zip(*own, strict=True), strict=True)
        }
        for name, own in times.items()
    }


def time_graph(graph: OnnxGraph) -> tuple[float, ...]:
    """Seconds and CPU seconds of a prompt, and of the steps after it."""
    ids = np.arange(1000, 1000 + PROMPT_TOKENS)[None]
    cache, total = graph.empty_cache(1), PROMPT_TOKENS
    marks = [(time.perf_counter(), time.process_time())]
    logits, cache = graph.step(ids, np.ones_like(ids), np.arange(total)[None], cache)
    marks.append((time.perf_counter(), time.process_time()))
    for _ in range(DECODED_TOKENS):
        token = logits[:, -1].argmax(axis=-1)[:, None]
        total += 1
        logits, cache = graph.step(token, np.ones((1, total), np.int64), np.array([[total - 1]]), cache)
    marks.append((time.perf_counter(), time.process_time()))
    return tuple(b - a for before, after in pairwise(marks) for a, b in zip(before, after, strict=True))


if __name__ == "__main__":
    main()
