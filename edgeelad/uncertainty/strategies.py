"""Compute scores: functions from one reasoning tree to one `Score`, higher = more uncertain (docs/METHOD.md §2).

Notation: T steps; group i of the branches was sampled after steps 1..i, for i = 0..T; p̂_i(a) is the share of group i
that ends in answer a. Group 0 holds the K explanations sampled from the bare question. A score counts only the student
tokens that it needs itself. No score uses the teacher or the reference answer.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from edgeelad.records import Branch, ReasoningTree, Score
from edgeelad.uncertainty.pairs import agreement_between, agreement_within, entropy, squared_distance
from edgeelad.uncertainty.risk import COLD_START, RiskModel, risk_of
from edgeelad.uncertainty.traces import StepTrace, step_traces


@dataclass(frozen=True, slots=True)
class ScoreOptions:
    """Parameters of scores: λ of `elad` and `elad-removal`, the seed of `random`, the model of `risk`."""

    inter_weight: float = 1.0
    seed: int = 0
    risk: RiskModel = field(default_factory=lambda: COLD_START)


def elad(tree: ReasoningTree, options: ScoreOptions) -> Score:
    """Disagreement inside the explanation, step by step, plus λ times the disagreement between explanations.

    U_intra = (1/T) Σ_i (1 − Σ_a p̂_{i−1}(a)·p̂_i(a)): how often an answer reached without step i and one reached with it
    disagree; 0 without steps. U_inter = 1 − Σ_{j≠k} 1[a_j = a_k] / (K(K−1)), over group 0. The score is
    U_intra + λ·U_inter, in [0, 1 + λ].

    A reconstruction of ELAD (Zhang et al., Findings of ACL 2024, arXiv 2402.13098). The two aspects, and the comparison
    of a step's presence and absence, are published (abstract and figure 2); the form of the two terms and the weight
    λ = 1 are ours.
    """
    groups = _groups(tree)
    steps = tuple(1.0 - agreement_between(groups[i - 1], groups[i]) for i in range(1, len(groups)))
    inter = 1.0 - agreement_within(groups[0])
    return Score(tree.question.id, "elad", _mean(steps) + options.inter_weight * inter, steps, _branching_tokens(tree))


def elad_removal(tree: ReasoningTree, options: ScoreOptions) -> Score:
    """`elad` read the other way: disagreement with and without a step whose later steps are kept, plus λ·U_inter.

    U_intra = (1/T) Σ_i (1 − Σ_a p̂_{−i}(a)·p̂_T(a)), p̂_{−i} over branches sampled after all steps but step i, p̂_T over
    those sampled after all steps. U_inter and λ are those of `elad`; the score is in [0, 1 + λ].

    A reconstruction, too: figure 2's caption ("not conditioned on the i-th step") allows both readings.
    """
    groups = _groups(tree)
    assert len(tree.removals) == tree.num_steps, "elad-removal needs branches without each step"
    steps = tuple(
        1.0 - agreement_between([branch.answer for branch in without], groups[-1]) for without in tree.removals
    )
    inter = 1.0 - agreement_within(groups[0])
    num_tokens = tree.tokens.explanation + sum(
        branch.num_tokens for group in (tree.branches[0], *tree.removals) for branch in group
    )
    if tree.num_steps:
        num_tokens += sum(branch.num_tokens for branch in tree.branches[-1])
    return Score(tree.question.id, "elad-removal", _mean(steps) + options.inter_weight * inter, steps, num_tokens)


def elad_mc(tree: ReasoningTree, _: ScoreOptions) -> Score:
    """Mean change per step: the unbiased squared distance between p_{i−1} and p_i.

    D²_i = Σ_{j≠k} 1[a_j = a_k]/(m(m−1)) + Σ_{j≠k} 1[b_j = b_k]/(m(m−1)) − 2 Σ_{j,k} 1[a_j = b_k]/m², a and b being the
    answers before and after step i. An estimate: it can be negative. 0 without steps.
    """
    groups = _groups(tree)
    steps = tuple(squared_distance(groups[i - 1], groups[i]) for i in range(1, len(groups)))
    return Score(tree.question.id, "elad-mc", _mean(steps), steps, _branching_tokens(tree))


def random_score(tree: ReasoningTree, options: ScoreOptions) -> Score:
    """Uniform in [0, 1), from a hash of seed and question id, so independent of order and batch."""
    digest = hashlib.sha256(f"{options.seed}\0{tree.question.id}".encode("utf-8", "surrogatepass")).digest()
    return Score(tree.question.id, "random", (int.from_bytes(digest[:8], "big") >> 11) / 2**53)


def least_confidence(tree: ReasoningTree, _: ScoreOptions) -> Score:
    """Mean token log-probability of the greedy explanation, negated (nats)."""
    return Score(tree.question.id, "least-confidence", abs(tree.mean_logprob), (), tree.tokens.explanation)


def max_entropy(tree: ReasoningTree, _: ScoreOptions) -> Score:
    """Mean token entropy of the greedy explanation (nats)."""
    return Score(tree.question.id, "max-entropy", tree.mean_entropy, (), tree.tokens.explanation)


def step_entropy(tree: ReasoningTree, _: ScoreOptions) -> Score:
    """Largest mean token entropy of a step or of the answer line (nats)."""
    *steps, last = _traces(tree)
    value = max(trace.mean_entropy for trace in (*steps, last))
    return _cheap(tree, "step-entropy", value, steps)


def first_entropy(tree: ReasoningTree, _: ScoreOptions) -> Score:
    """Mean token entropy of the first step (nats): whether the student knows how to begin."""
    *steps, last = _traces(tree)
    return _cheap(tree, "first-entropy", (steps or [last])[0].mean_entropy, steps)


def symbol_entropy(tree: ReasoningTree, _: ScoreOptions) -> Score:
    """Mean entropy of the tokens that hold a digit or an operator (nats): what is calculated, not how it is worded.

    That of all tokens if there are none.
    """
    traces = _traces(tree)
    num = sum(trace.num_symbols for trace in traces)
    total = math.fsum(trace.symbol_entropy * trace.num_symbols for trace in traces)
    own = tuple(trace.symbol_entropy for trace in traces[:-1])
    return Score(
        tree.question.id, "symbol-entropy", total / num if num else tree.mean_entropy, own, tree.tokens.explanation
    )


def lowest_window(tree: ReasoningTree, _: ScoreOptions) -> Score:
    """Lowest mean log-probability of four tokens in a row within a step, negated (nats)."""
    *steps, last = _traces(tree)
    parts = [trace for trace in (*steps, last) if trace.num_tokens] or [last]
    value = abs(min(trace.lowest_window for trace in parts))
    own = tuple(abs(trace.lowest_window) for trace in steps)
    return Score(tree.question.id, "lowest-window", value, own, tree.tokens.explanation)


def risk(tree: ReasoningTree, options: ScoreOptions) -> Score:
    """Probability that the answer is wrong, by a logistic model of the steps' entropies (`risk.RiskModel`).

    The model is refitted each round on what the teacher has checked; before that, a default. A step's score is its mean
    token entropy (nats).
    """
    *steps, _ = _traces(tree)
    return _cheap(tree, "risk", risk_of(tree, options.risk), steps)


def semantic_entropy(tree: ReasoningTree, _: ScoreOptions) -> Score:
    """Entropy of the answers, weighted by the probabilities of the explanations that reach them (nats).

    After Kuhn et al. 2023, whose clusters of meaning are answers here: p(a) = Σ p(s) over the distinct explanations s
    that reach a (the greedy one and the K sampled ones, at temperature 1), plus the unobserved mass 1 − Σ p(s), divided
    as the K samples are, with one more for an answer not seen. So K equal answers read as certain only if their
    explanations are likely. Deviation: Kuhn et al. take the samples for the whole distribution.
    """
    root = _root_branches(tree)
    observed = {branch.text: (branch.answer, branch.mean_logprob * branch.num_tokens) for branch in root}
    observed[tree.text] = (tree.answer, math.fsum(tree.token_logprobs))
    mass: dict[str | None, list[float]] = {}
    unseen: list[float] = []
    for answer, logprob in observed.values():
        (unseen if answer is None else mass.setdefault(answer, [])).append(math.exp(min(logprob, 0.0)))
    total = math.fsum(value for group in (*mass.values(), unseen) for value in group)
    rest = max(0.0, 1.0 - total)
    share = rest / (len(root) + 1)
    for branch in root:
        (unseen if branch.answer is None else mass.setdefault(branch.answer, [])).append(share)
    # answers that were not found agree with nothing: each counts as distinct
    parts = [math.fsum(group) for group in mass.values()] + [*unseen, share]
    whole = math.fsum(parts)
    value = -math.fsum(part / whole * math.log(part / whole) for part in parts if part > 0.0)
    num_tokens = tree.tokens.explanation + _root_tokens(tree)
    return Score(tree.question.id, "semantic-entropy", abs(value), (), num_tokens)


def answer_entropy(tree: ReasoningTree, _: ScoreOptions) -> Score:
    """Entropy of the answers of the K sampled explanations (nats): self-consistency, Wang et al. 2023."""
    root = _root(tree)
    return Score(tree.question.id, "answer-entropy", entropy(root), (), _root_tokens(tree))


def disagreement(tree: ReasoningTree, _: ScoreOptions) -> Score:
    """Unbiased 1 − Σ_a p(a)² over the answers of the K sampled explanations."""
    root = _root(tree)
    return Score(tree.question.id, "disagreement", 1.0 - agreement_within(root), (), _root_tokens(tree))


def _groups(tree: ReasoningTree) -> tuple[tuple[str | None, ...], ...]:
    assert len(tree.branches) == tree.num_steps + 1, "step scores need a group of branches for each prefix 0..T"
    assert tree.branches[0], "step scores need explanations sampled from the bare question"
    return tree.branch_answers


def _root(tree: ReasoningTree) -> tuple[str | None, ...]:
    return tuple(branch.answer for branch in _root_branches(tree))


def _root_branches(tree: ReasoningTree) -> tuple[Branch, ...]:
    assert tree.branches, "self-consistency needs explanations sampled from the bare question"
    assert tree.branches[0], "self-consistency needs explanations sampled from the bare question"
    return tree.branches[0]


def _traces(tree: ReasoningTree) -> tuple[StepTrace, ...]:
    """The traces of the steps and of the answer line; those of an empty explanation are all 0."""
    return step_traces(tree) or (StepTrace(0, 0.0, 0.0, 0.0, 0.0),) * (tree.num_steps + 1)


def _cheap(tree: ReasoningTree, name: str, value: float, steps: Sequence[StepTrace]) -> Score:
    """A score of the greedy explanation alone; its step scores are the steps' mean entropies."""
    entropies = tuple(trace.mean_entropy for trace in steps)
    return Score(tree.question.id, name, value, entropies, tree.tokens.explanation)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _root_tokens(tree: ReasoningTree) -> int:
    return sum(branch.num_tokens for branch in tree.branches[0])


def _branching_tokens(tree: ReasoningTree) -> int:
    return tree.tokens.explanation + sum(branch.num_tokens for group in tree.branches for branch in group)
