"""Compute scores: functions from one reasoning tree to one `Score`, higher = more uncertain (docs/METHOD.md §2).

Notation: T steps; group i of the branches was sampled after steps 1..i, for i = 0..T; p̂_i(a) is the share of group i
that ends in answer a. Group 0 holds the K explanations sampled from the bare question. A score counts only the student
tokens that it needs itself. No score uses the teacher or the reference answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from edgeelad.records import ReasoningTree, Score
from edgeelad.uncertainty.pairs import agreement_between, agreement_within, entropy, squared_distance


@dataclass(frozen=True, slots=True)
class ScoreOptions:
    """Parameters of scores: λ of `elad`, and the seed of `random`."""

    inter_weight: float = 1.0
    seed: int = 0


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


def elad_mc(tree: ReasoningTree, _: ScoreOptions) -> Score:
    """Mean change per step: the unbiased squared distance between p_{i−1} and p_i.

    D²_i = Σ_{j≠k} 1[a_j = a_k]/(m(m−1)) + Σ_{j≠k} 1[b_j = b_k]/(m(m−1)) − 2 Σ_{j,k} 1[a_j = b_k]/m², a and b being the
    answers before and after step i. An estimate: it can be negative. 0 without steps.
    """
    groups = _groups(tree)
    steps = tuple(squared_distance(groups[i - 1], groups[i]) for i in range(1, len(groups)))
    return Score(tree.question.id, "elad-mc", _mean(steps), steps, _branching_tokens(tree))


def probe(tree: ReasoningTree, _: ScoreOptions) -> Score:
    """Share of steps after which the forced answer flips, plus the entropy of the last forced answer (nats).

    Needs one pass and no sampling. A forced answer that was not found counts as a flip.
    """
    assert len(tree.probes) == tree.num_steps + 1, "probe needs a forced answer after each prefix"
    answers = [forced.answer for forced in tree.probes]
    flips = tuple(float(before is None or before != after) for before, after in pairwise(answers))
    num_tokens = tree.tokens.explanation + tree.tokens.probe
    return Score(tree.question.id, "probe", _mean(flips) + tree.probes[-1].entropy, flips, num_tokens)


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
    assert tree.branches, "self-consistency needs explanations sampled from the bare question"
    assert tree.branches[0], "self-consistency needs explanations sampled from the bare question"
    return tree.branch_answers[0]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _root_tokens(tree: ReasoningTree) -> int:
    return sum(branch.num_tokens for branch in tree.branches[0])


def _branching_tokens(tree: ReasoningTree) -> int:
    return tree.tokens.explanation + sum(branch.num_tokens for group in tree.branches for branch in group)
