"""Score with a function of your own: here, how many different answers the student's sampled explanations reach.

python examples/own_strategy.py runs/quickstart/package "What is 3 + 4?" "What is 17 + 38?"

To choose questions with it in a run, pass it to `edgeelad.distill(…, strategy=STRATEGY)`, or install it (see
`edgeelad.plugins`) and name it: `edgeelad distill … --set selection.strategy=variety`.
"""

import sys

import edgeelad


def variety(tree: edgeelad.ReasoningTree, options: object) -> float:
    """Number of different answers among the explanations sampled from the bare question; higher = more uncertain."""
    return len({branch.answer for branch in tree.branches[0]})


# a plain function from a tree works, too; this also says that nothing but the sampled explanations is needed
STRATEGY = edgeelad.Strategy(
    "variety", variety, "number of different answers", needs_root_branches=True, needs_explanation=False
)

if __name__ == "__main__":
    package, *questions = sys.argv[1:]
    for record in edgeelad.score(package, questions, STRATEGY, explanations=8):
        print(f"different answers in 8 explanations: {record.score:.0f}  {record.question.text}")
