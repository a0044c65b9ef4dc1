"""Branches a minute: edgeelad against ready-made engines, the same reasoning trees on the same machine in one run.

    python benchmarks/tree_scoring.py --data ../shared/data/gsm8k/test.jsonl
    python benchmarks/tree_scoring.py --data … --shape qwen2.5-0.5b --questions 8
    python benchmarks/tree_scoring.py --data … --only edgeelad-int8 --questions 16 --rounds 1

Every engine generates the same branches: four of 32 tokens from every step prefix of the published solutions (see
workload.py), sampled at temperature 0.7 from the 64 likeliest tokens. Engines are loaded before and take turns, round
by round, each round with questions of its own; slow ones generate some batches of a round, spread over its lengths, and
their questions a minute follow from the tokens. `others` is the share of the cores that other programs took meanwhile:
where it is not small, compare tokens a core-second. Prints the environment, a table, and as the last line JSON with
`questions_per_min` by engine and `ratios`.
"""

from __future__ import annotations

import argparse

from models import Models
from turns import NUM_WARM_UP, add_arguments, question_rates, report, take_turns
from workload import make_workload, read_questions

from edgeelad.engine.codec import Codec


def main() -> None:
    """Make what is missing, run the rounds, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, list(Models.ENGINES))
    parser.add_argument("--questions", type=int, default=32, help="a round")
    parser.add_argument("--branches", type=int, default=4, help="from each prefix")
    parser.add_argument("--tokens", type=int, default=32, help="of each branch")
    arguments = parser.parse_args()
    models = Models(arguments.cache, arguments.shape, arguments.data)
    questions = read_questions(arguments.data, NUM_WARM_UP + arguments.rounds * arguments.questions)
    workload = make_workload(Codec.load(models.student()), questions, arguments.branches, arguments.tokens)
    results = take_turns(
        arguments.only, lambda name: models.engine(name, arguments.cores), workload, arguments.rounds, arguments
    )
    scored = range(NUM_WARM_UP, len(questions))
    tokens_each = sum(map(workload.num_tokens, scored)) / len(scored)
    num_prefixes = sum(len(workload.ends[question]) for question in scored) / len(scored)
    work = (
        f"{arguments.rounds} rounds of {arguments.questions} questions, {num_prefixes:.2f} prefixes a question, "
        f"{arguments.branches} branches of {arguments.tokens} tokens from each"
    )
    report(results, question_rates(results, tokens_each), arguments.shape, work)


if __name__ == "__main__":
    main()
