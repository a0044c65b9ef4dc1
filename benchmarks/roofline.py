"""The share of the machine's matrix-product peak that the engine reaches, in fp32 and int8.

    python benchmarks/roofline.py --data ../shared/data/gsm8k/test.jsonl

The peak is what onnxruntime itself reaches on a large product (MatMul; MatMulInteger of uint8 and int8), one
single-threaded process a core, as the engine runs. The engine's operations are the products with its weights, two for
each weight and token, contexts and branches; attention and everything else count as nothing, so the share is what is
left for the products. Prints the environment, a table, and as the last line JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
from typing import Any

import numpy as np
from models import Models
from onnx import TensorProto, helper
from shapes import SHAPES
from turns import NUM_WARM_UP, add_arguments, question_rates, report, take_turns
from workload import Workload, make_workload, read_questions

from edgeelad.engine.codec import Codec

SIZE = 2048  # of the square weight; and as many rows, so that reading the weight costs nothing
PEAK_SECONDS = 3.0
ENGINES = {"edgeelad-int8": "int8", "edgeelad-fp32": "fp32"}


def main() -> None:
    """Measure the peaks, run the engine, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, list(ENGINES))
    parser.add_argument("--questions", type=int, default=16, help="a round")
    arguments = parser.parse_args()
    models = Models(arguments.cache, arguments.shape, arguments.data)
    questions = read_questions(arguments.data, NUM_WARM_UP + arguments.rounds * arguments.questions)
    workload = make_workload(Codec.load(models.student()), questions, 4, 32)
    peaks = {precision: measure_peak(precision, arguments.cores) for precision in ENGINES.values()}
    results = take_turns(
        arguments.only, lambda name: models.engine(name, arguments.cores), workload, arguments.rounds, arguments
    )
    operations = operations_per_token(arguments.shape, workload)
    rows: dict[str, dict[str, float]] = {}
    for name in results.measured:
        speed = results.median(name, lambda one: one.tokens_per_s)
        reached, peak = speed * operations / 1e9, peaks[ENGINES[name]]
        rows[name] = {"peak_gops": round(peak, 1), "reached_gops": round(reached, 1), "share": round(reached / peak, 4)}
    tokens_each = sum(map(workload.num_tokens, range(NUM_WARM_UP, len(questions)))) / (len(questions) - NUM_WARM_UP)
    rates = question_rates(results, tokens_each)
    report(
        results, rates, arguments.shape, f"{operations / 1e6:.0f} million operations a branch token, contexts included"
    )
    for name, row in rows.items():
        print(f"{name:16} {row['reached_gops']:8.1f} of {row['peak_gops']:8.1f} GOP/s, {row['share']:.1%}")
    print(json.dumps({"shape": arguments.shape, "roofline": rows}))


def operations_per_token(shape: str, workload: Workload) -> float:
    """Multiplications and additions with weights for each generated token, the contexts' share included."""
    config = SHAPES[shape]
    head = config["hidden_size"] // config["num_attention_heads"]
    attention = 2 * config["hidden_size"] + 2 * head * config["num_key_value_heads"]
    layer = config["hidden_size"] * (attention + 3 * config["intermediate_size"])
    layers, vocabulary = layer * config["num_hidden_layers"], config["hidden_size"] * config["vocab_size"]
    scored = range(NUM_WARM_UP, len(workload.prompts))
    generated = sum(map(workload.num_tokens, scored))
    contexts = sum(len(workload.prompts[own]) + len(workload.completions[own]) for own in scored)
    return 2 * (layers * (generated + contexts) / generated + vocabulary)


def measure_peak(precision: str, cores: int) -> float:
    """Billions of operations a second of a large product in onnxruntime, one process a core."""
    with multiprocessing.get_context("spawn").Pool(cores) as pool:
        return sum(pool.map(_peak_of_core, [precision] * cores, chunksize=1))


def _peak_of_core(precision: str) -> float:
    import onnxruntime  # after edgeelad, which turns its telemetry off

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(_product(precision), options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    left: Any = rng.standard_normal((SIZE, SIZE), dtype=np.float32)
    if precision == "int8":
        left = rng.integers(0, 255, (SIZE, SIZE), dtype=np.uint8)
    rates = []
    end = time.perf_counter() + PEAK_SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        session.run(None, {"left": left})
        rates.append(2 * SIZE**3 / (time.perf_counter() - start) / 1e9)
    return statistics.median(rates)


def _product(precision: str) -> bytes:
    """A graph with one product by a constant."""
    rng = np.random.default_rng(1)
    if precision == "int8":
        weight, operator = rng.integers(-127, 127, (SIZE, SIZE), dtype=np.int8), "MatMulInteger"
        kinds = (TensorProto.UINT8, TensorProto.INT8, TensorProto.INT32)
    else:
        weight, operator = rng.standard_normal((SIZE, SIZE), dtype=np.float32), "MatMul"
        kinds = (TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.FLOAT)
    shape = [SIZE, SIZE]
    graph = helper.make_graph(
        [helper.make_node(operator, ["left", "right"], ["product"])],
        "product",
        [helper.make_tensor_value_info("left", kinds[0], shape)],
        [helper.make_tensor_value_info("product", kinds[2], shape)],
        [helper.make_tensor("right", kinds[1], shape, weight.tobytes(), raw=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


if __name__ == "__main__":
    main()
