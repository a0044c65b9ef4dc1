"""One question at a time, as a device answers it: edgeelad's plain engine graph against ready-made engines.

    python benchmarks/edge_decode.py --data ../shared/data/gsm8k/test.jsonl
    python benchmarks/edge_decode.py --data ../shared/data/gsm8k/test.jsonl --prompt 512 --tokens 1 --questions 2

Every engine reads a GSM8K question and writes 64 tokens, greedily, one question after the other, on all cores. Engines
take turns (see turns.py). Tokens per second include the reading of the prompt. With `--tokens 1` the time per question
is the time to the first token, and `--prompt` sets the prompts' length. The share of memory bandwidth is the bytes of
weights that edgeelad reads per token, over the time per token and the bandwidth of a copy. Prints the environment, a
table, and as the last line JSON.
"""

from __future__ import annotations

import argparse
import statistics
from itertools import cycle, islice

from machine import copy_bandwidth
from models import EDGE_ENGINES, Models
from turns import NUM_WARM_UP, Results, add_arguments, question_rates, report, take_turns
from workload import Workload, make_workload, read_questions

from edgeelad.engine.codec import Codec


def main() -> None:
    """Make what is missing, run the rounds, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, EDGE_ENGINES)
    parser.add_argument("--questions", type=int, default=8, help="per round")
    parser.add_argument("--tokens", type=int, default=64, help="per explanation")
    parser.add_argument("--prompt", type=int, help="tokens of each prompt; default: a question's")
    arguments = parser.parse_args()
    models = Models(arguments.cache, arguments.shape, arguments.data)
    questions = read_questions(arguments.data, NUM_WARM_UP + arguments.rounds * arguments.questions)
    trees = make_workload(Codec.load(models.student()), questions, 1, arguments.tokens)
    prompts = trees.prompts
    if arguments.prompt is not None:
        texts = [[*prompt, *completion] for prompt, completion in zip(prompts, trees.completions, strict=True)]
        prompts = tuple(tuple(islice(cycle(text), arguments.prompt)) for text in texts)
    workload = Workload(prompts, trees.completions, ((0,),) * len(questions), 1, arguments.tokens)
    results = take_turns(
        arguments.only, lambda name: models.edge_engine(name, arguments.cores), workload, arguments.rounds, arguments
    )
    length = sum(map(len, workload.prompts)) / len(questions)
    work = f"{arguments.rounds} rounds of {arguments.questions} prompts of {length:.0f} tokens, {arguments.tokens} new"
    rates = question_rates(results, arguments.tokens)
    _report_details(results, rates, copy_bandwidth(arguments.cores), arguments.tokens)
    report(results, rates, arguments.shape, work)


def _report_details(results: Results, rates: dict[str, list[float]], bandwidth: float, num_tokens: int) -> None:
    """Print the time per question, and the share of memory bandwidth where the weights' size is known."""
    print(f"copy bandwidth: {bandwidth / 1e9:.1f} GB/s")
    for name, own in rates.items():
        line = f"{name:26} {60_000 / statistics.median(own):8.1f} ms per question"
        weights = results.about[name]["settings"].get("weight_bytes")
        if weights is not None and num_tokens > 1:
            speed = statistics.median(one.tokens_per_s for one in results.measured[name])
            line += f", {weights * speed / bandwidth:4.0%} of the bandwidth"
        print(line)


if __name__ == "__main__":
    main()
