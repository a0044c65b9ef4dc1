"""One question at a time, as a device answers it: edgeelad's plain engine graph against ready-made engines.

    python benchmarks/edge_decode.py --data ../shared/data/gsm8k/test.jsonl

Every engine reads a GSM8K question and writes 64 tokens, greedily, one question after the other, on all cores. Engines
take turns (see turns.py). Tokens a second hold the reading of the prompt. Prints the environment, a table, and as the
last line JSON.
"""

from __future__ import annotations

import argparse

from models import EDGE_ENGINES, Models
from turns import NUM_WARM_UP, add_arguments, question_rates, report, take_turns
from workload import Workload, make_workload, read_questions

from edgeelad.engine.codec import Codec


def main() -> None:
    """Make what is missing, run the rounds, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, EDGE_ENGINES)
    parser.add_argument("--questions", type=int, default=8, help="a round")
    parser.add_argument("--tokens", type=int, default=64, help="of each explanation")
    arguments = parser.parse_args()
    models = Models(arguments.cache, arguments.shape, arguments.data)
    questions = read_questions(arguments.data, NUM_WARM_UP + arguments.rounds * arguments.questions)
    trees = make_workload(Codec.load(models.student()), questions, 1, arguments.tokens)
    workload = Workload(trees.prompts, trees.completions, ((0,),) * len(questions), 1, arguments.tokens)
    results = take_turns(
        arguments.only, lambda name: models.edge_engine(name, arguments.cores), workload, arguments.rounds, arguments
    )
    length = sum(map(len, workload.prompts)) / len(questions)
    work = f"{arguments.rounds} rounds of {arguments.questions} prompts of {length:.0f} tokens, {arguments.tokens} new"
    report(results, question_rates(results, arguments.tokens), arguments.shape, work)


if __name__ == "__main__":
    main()
