"""From what the student did on each question to how uncertain it is: the table of strategies, and scoring by name.

Takes reasoning trees, gives scores in the same order, one at a time, so that any number of questions fits in memory. To
add a score: a function in `strategies`, and its line in the table below.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from edgeelad.config import ScoringConfig
from edgeelad.engine.tree import TreeParams
from edgeelad.errors import ConfigError, ModelError
from edgeelad.records import ReasoningTree, Score
from edgeelad.uncertainty import strategies
from edgeelad.uncertainty.strategies import ScoreOptions

__all__ = ["STRATEGIES", "ScoreOptions", "Strategy", "find_strategy", "score", "tree_params"]


@dataclass(frozen=True, slots=True)
class Strategy:
    """A way to score, and what it needs of the student.

    Attributes:
        name: What the user types.
        function: From a tree and the options to its score.
        description: One line for help texts and the report.
        needs_branches: Whether it needs branches from every step prefix (then those from the bare question too).
        needs_root_branches: Whether it needs explanations sampled from the bare question.
        needs_probe: Whether it needs the forced answers.
        needs_explanation: Whether it needs the greedy explanation at all.
        is_random: Whether the score is a coin, so that selection by it is uniform.
    """

    name: str
    function: Callable[[ReasoningTree, ScoreOptions], Score]
    description: str
    needs_branches: bool = False
    needs_root_branches: bool = False
    needs_probe: bool = False
    needs_explanation: bool = True
    is_random: bool = False


_TABLE = (
    Strategy(
        "elad",
        strategies.elad,
        "disagreement with and without each step, plus disagreement between explanations (reconstruction of ELAD)",
        needs_branches=True,
        needs_root_branches=True,
    ),
    Strategy(
        "elad-mc",
        strategies.elad_mc,
        "how far each step moves the distribution of answers (unbiased squared distance)",
        needs_branches=True,
        needs_root_branches=True,
    ),
    Strategy(
        "probe",
        strategies.probe,
        "how often the answer forced after each step flips, plus its last entropy; cheap",
        needs_probe=True,
    ),
    Strategy(
        "disagreement",
        strategies.disagreement,
        "disagreement of sampled explanations' answers (self-consistency)",
        needs_root_branches=True,
        needs_explanation=False,
    ),
    Strategy(
        "answer-entropy",
        strategies.answer_entropy,
        "entropy of sampled explanations' answers (self-consistency)",
        needs_root_branches=True,
        needs_explanation=False,
    ),
    Strategy("least-confidence", strategies.least_confidence, "mean token log-probability, negated"),
    Strategy("max-entropy", strategies.max_entropy, "mean token entropy"),
    Strategy("random", strategies.random_score, "a coin: the baseline", needs_explanation=False, is_random=True),
)
STRATEGIES: dict[str, Strategy] = {strategy.name: strategy for strategy in _TABLE}


def find_strategy(name: str) -> Strategy:
    """The strategy of that name.

    Raises:
        ConfigError: There is none; the message suggests the nearest.
    """
    if name not in STRATEGIES:
        near = difflib.get_close_matches(name, STRATEGIES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(STRATEGIES)}"
        raise ConfigError(f"unknown scoring strategy {name!r}; {hint}")
    return STRATEGIES[name]


def score(
    trees: Iterable[ReasoningTree], strategy: str, *, inter_weight: float = 1.0, seed: int = 0
) -> Iterator[Score]:
    """Score trees by the strategy of that name, in their order.

    Args:
        trees: Grown with `tree_params` of this strategy, or with more.
        strategy: A name in `STRATEGIES`.
        inter_weight: λ of `elad`.
        seed: Of `random`.

    Raises:
        ConfigError: There is no such strategy.
        ModelError: A score is not finite: the student computes NaN or infinity.
    """
    found, options = find_strategy(strategy), ScoreOptions(inter_weight, seed)
    return (_checked(found.function(tree, options)) for tree in trees)


def tree_params(strategy: str, config: ScoringConfig, seed: int) -> TreeParams:
    """How trees must be grown for a strategy: only what it needs.

    Raises:
        ConfigError: There is no such strategy.
    """
    found = find_strategy(strategy)
    return TreeParams(
        num_branches=config.num_branches if found.needs_branches else 0,
        num_root_branches=config.num_explanations if found.needs_root_branches else 0,
        temperature=config.temperature,
        top_k=config.top_k,
        top_p=config.top_p,
        max_explanation_tokens=config.max_explanation_tokens,
        max_branch_tokens=config.max_branch_tokens,
        probe=found.needs_probe,
        seed=seed,
    )


def _checked(scored: Score) -> Score:
    if not math.isfinite(scored.value):
        raise ModelError(
            f"question {scored.question_id}: the student's {scored.strategy} score is {scored.value}; its weights "
            "give no finite probabilities: export a student that was trained without NaN"
        )
    return scored
