"""Score the student's uncertainty about questions: the table of strategies, and scoring by name.

Takes reasoning trees and yields scores in the same order, one at a time, so that any number of questions fits in
memory. To add a score, write a function in `strategies` and its line in the table below. Your own score needs neither:
pass a function or a `Strategy`, or install it (`edgeelad.plugins`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from edgeelad.config import ScoringConfig
from edgeelad.engine.tree import TreeParams
from edgeelad.errors import ConfigError, ModelError
from edgeelad.plugins import PYTHON, find_plugin
from edgeelad.records import ReasoningTree, Score
from edgeelad.uncertainty import strategies
from edgeelad.uncertainty.risk import COLD_START, RiskModel, risk_of
from edgeelad.uncertainty.strategies import ScoreOptions

__all__ = [
    "COLD_START",
    "STRATEGIES",
    "AnyStrategy",
    "RiskModel",
    "ScoreOptions",
    "Strategy",
    "find_strategy",
    "full_tree_params",
    "score",
    "tree_params",
]


@dataclass(frozen=True, slots=True)
class Strategy:
    """A way to score, and what it needs from the student.

    >>> steps = Strategy("steps", lambda tree, options: tree.num_steps, "number of steps")

    Attributes:
        name: Its name on the command line and in configurations.
        function: Computes the score of a tree, as a `Score` or a number; higher = more uncertain.
        description: One line for help texts and the report.
        needs_branches: Whether it needs branches from every step prefix (then those from the bare question too).
        needs_root_branches: Whether it needs explanations sampled from the bare question.
        needs_probe: Whether it needs the forced answers.
        needs_removals: Whether it needs branches sampled after all steps but one, for each step.
        needs_explanation: Whether it needs the greedy explanation at all.
        is_random: Whether the score is random, so that selection by it is uniform.
        is_probability: Whether the score is the probability that the answer is wrong; selection then goes by its odds
            and by those of the nearest questions.
    """

    name: str
    function: Callable[[ReasoningTree, ScoreOptions], Score | float]
    description: str
    needs_branches: bool = False
    needs_root_branches: bool = False
    needs_probe: bool = False
    needs_explanation: bool = True
    is_random: bool = False
    needs_removals: bool = False
    is_probability: bool = False

    @property
    def needs_sampling(self) -> bool:
        """Whether it needs branches of any kind."""
        return self.needs_branches or self.needs_root_branches or self.needs_removals

    @property
    def is_free(self) -> bool:
        """Whether the student need not generate anything."""
        return not (self.needs_explanation or self.needs_sampling or self.needs_probe)


_TABLE = (
    Strategy(
        "risk",
        strategies.risk,
        "probability that the answer is wrong, by a logistic model of the steps' entropies fitted on checked questions",
        is_probability=True,
    ),
    Strategy(
        "elad",
        strategies.elad,
        "disagreement with and without each step, plus disagreement between explanations (reconstruction of ELAD)",
        needs_branches=True,
        needs_root_branches=True,
    ),
    Strategy(
        "elad-removal",
        strategies.elad_removal,
        "disagreement with and without each step, the later steps kept, plus disagreement between explanations",
        needs_branches=True,
        needs_root_branches=True,
        needs_removals=True,
    ),
    Strategy(
        "elad-mc",
        strategies.elad_mc,
        "how far each step moves the distribution of answers (unbiased squared distance)",
        needs_branches=True,
        needs_root_branches=True,
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
    Strategy(
        "semantic-entropy",
        strategies.semantic_entropy,
        "entropy of answers weighted by the explanations' probabilities, with the unobserved mass (Kuhn et al. 2023)",
        needs_root_branches=True,
    ),
    Strategy("step-entropy", strategies.step_entropy, "largest mean token entropy of a step"),
    Strategy("first-entropy", strategies.first_entropy, "mean token entropy of the first step"),
    Strategy("symbol-entropy", strategies.symbol_entropy, "mean entropy of tokens with a digit or an operator"),
    Strategy("lowest-window", strategies.lowest_window, "lowest mean log-probability of four tokens in a row, negated"),
    Strategy("least-confidence", strategies.least_confidence, "mean token log-probability, negated"),
    Strategy("max-entropy", strategies.max_entropy, "mean token entropy"),
    Strategy(
        "random", strategies.random_score, "random numbers: the baseline", needs_explanation=False, is_random=True
    ),
)
STRATEGIES: dict[str, Strategy] = {strategy.name: strategy for strategy in _TABLE}
REMOVED = {
    "probe": "it tells wrong answers no better than chance, for an answer forced after a step repeats that step's "
    "result; use risk, which needs fewer student tokens",
}
"""Strategies of earlier versions, and why they are gone."""


AnyStrategy = str | Strategy | Callable[[ReasoningTree], float]
"""The name of a strategy, a strategy, or a function from a tree to a number (higher = more uncertain)."""


def find_strategy(strategy: AnyStrategy, key: str = "strategy", also: tuple[str, ...] = ()) -> Strategy:
    """Find a strategy by its name, or make one of a function.

    A function is given trees with branches from every step prefix, and no forced answers.

    Args:
        strategy: A name (built in or installed), a strategy, or a function.
        key: The option or configuration key that holds the name, for messages.
        also: Other names that the key may hold, for messages.

    Raises:
        ConfigError: The name is unknown; the message suggests the nearest.
    """
    if isinstance(strategy, str):
        if strategy in STRATEGIES:
            return STRATEGIES[strategy]
        if strategy in REMOVED:
            raise ConfigError(f"{key}: strategy {strategy!r} was removed: {REMOVED[strategy]}")
        if strategy.startswith(f"{PYTHON}:"):
            raise ConfigError(
                f"this run is scored by the Python function {strategy.partition(':')[2]!r}; resume it from "
                'Python: edgeelad.distill("RUN-FOLDER", resume=True, strategy=…)'
            )
        found = find_plugin("edgeelad.strategies", strategy, (*STRATEGIES, *also), key)
        return found if isinstance(found, Strategy) else _from_function(found, strategy)
    if isinstance(strategy, Strategy):
        return strategy
    return _from_function(strategy, getattr(strategy, "__name__", type(strategy).__name__))


def score(
    trees: Iterable[ReasoningTree],
    strategy: AnyStrategy,
    *,
    inter_weight: float = 1.0,
    seed: int = 0,
    risk: RiskModel = COLD_START,
) -> Iterator[Score]:
    """Score trees, in their order.

    Args:
        trees: Generated with `tree_params` of this strategy, or with more.
        strategy: See `find_strategy`.
        inter_weight: λ of `elad`.
        seed: Of `random`.
        risk: The model of `risk`, and of every score's `Score.risk`.

    Raises:
        ConfigError: There is no such strategy, or it returns no number.
        ModelError: A score is not finite: the student computes NaN or infinity.
    """
    found, options = find_strategy(strategy), ScoreOptions(inter_weight, seed, risk)
    return (_with_risk(_checked(found.name, tree, found.function(tree, options)), tree, found, risk) for tree in trees)


def full_tree_params(config: ScoringConfig, seed: int) -> TreeParams:
    """How to generate trees with all branches, and no probes."""
    return TreeParams(
        num_branches=config.num_branches,
        num_root_branches=config.num_explanations,
        temperature=config.temperature,
        top_k=config.top_k,
        top_p=config.top_p,
        max_explanation_tokens=config.max_explanation_tokens,
        max_branch_tokens=config.max_branch_tokens,
        probe=False,
        seed=seed,
    )


def tree_params(strategy: AnyStrategy, config: ScoringConfig, seed: int) -> TreeParams:
    """How to generate trees for a strategy: only what it needs.

    Raises:
        ConfigError: There is no such strategy.
    """
    found, full = find_strategy(strategy), full_tree_params(config, seed)
    return replace(
        full,
        num_branches=full.num_branches if found.needs_branches else 0,
        num_root_branches=full.num_root_branches if found.needs_root_branches else 0,
        probe=found.needs_probe,
        num_removal_branches=full.num_branches if found.needs_removals else 0,
    )


def _from_function(function: Any, name: str) -> Strategy:
    if not callable(function):
        raise ConfigError(f"strategy {name!r}: expected a Strategy or a function, found {type(function).__name__}")
    return Strategy(
        name,
        lambda tree, options: function(tree),
        (getattr(function, "__doc__", None) or name).strip().partition("\n")[0],
        needs_branches=True,
        needs_root_branches=True,
    )


def _checked(name: str, tree: ReasoningTree, value: Any) -> Score:
    try:
        scored = (
            value
            if isinstance(value, Score)
            else Score(tree.question.id, name, float(value), (), tree.tokens.generated)
        )
    except (TypeError, ValueError):
        raise ConfigError(
            f"strategy {name!r} returned {type(value).__name__} for question {tree.question.id}; expected a number"
        ) from None
    if not math.isfinite(scored.value):
        raise ModelError(
            f"question {tree.question.id}: the student's {name} score is {scored.value}; its weights "
            "give no finite probabilities: export a student that was trained without NaN"
        )
    return scored


def _with_risk(scored: Score, tree: ReasoningTree, strategy: Strategy, model: RiskModel) -> Score:
    if not tree.token_entropies:
        return scored
    # reading equations takes 0.2 ms per step, which a tiny student's greedy pass would notice: not twice
    return replace(scored, risk=scored.value if strategy is STRATEGIES["risk"] else risk_of(tree, model))
