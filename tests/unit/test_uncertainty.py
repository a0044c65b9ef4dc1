import itertools
import json
import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeelad.config import ScoringConfig
from edgeelad.errors import ConfigError, ModelError, RunError, StorageError
from edgeelad.record_files import RowFile
from edgeelad.records import Branch, Probe, Question, ReasoningTree, TokenCounts
from edgeelad.run.scores import ScoreRow, make_row
from edgeelad.uncertainty import STRATEGIES, Strategy, find_strategy, score, tree_params
from edgeelad.uncertainty.pairs import agreement_between, agreement_within, entropy, squared_distance
from edgeelad.uncertainty.risk import risk_of

unhurried = settings(deadline=None)  # a shared machine has slow moments
answers = st.sampled_from(["1", "2", "3", None])


def make_tree(
    groups, *, probes=(), logprobs=(-0.5, -1.5), entropies=(0.25, 0.75), question_id="q", removals=(), step_ends=()
):
    """A tree whose branches end in the given answers; branch j of group i is i + j + 1 tokens long."""
    branches = tuple(
        tuple(Branch("", answer, -1.0, i + j + 1) for j, answer in enumerate(group)) for i, group in enumerate(groups)
    )
    without = tuple(tuple(Branch("", answer, -1.0, 2) for answer in group) for group in removals)
    return ReasoningTree(
        question=Question(question_id, "How many?"),
        text="one\ntwo\nThe answer is 1",
        steps=tuple(f"step {i}" for i in range(max(len(groups), len(probes)) - 1)),
        answer="1",
        finish_reason="eos",
        token_logprobs=logprobs,
        token_entropies=entropies,
        branches=branches,
        probes=probes,
        tokens=TokenCounts(
            prompt=7,
            explanation=len(logprobs),
            branch=sum(branch.num_tokens for group in (*branches, *without) for branch in group),
            probe=len(probes),
        ),
        step_ends=step_ends,
        removals=without,
    )


def only(tree, strategy, **options):
    (scored,) = score([tree], strategy, **options)
    return scored


# --- hand-worked values ---------------------------------------------------------------------------------------------


def test_pairs_worked_by_hand():
    assert agreement_within(["5", "5", "7"]) == pytest.approx(2 / 6)
    assert agreement_within([None, None, None]) == 0.0
    assert agreement_between(["5", "5", "7"], ["5", "7", None]) == pytest.approx((2 * 1 + 1 * 1) / 9)
    assert squared_distance(["5", "5"], ["5", "5"]) == 0.0
    assert squared_distance(["5", "5"], ["7", "7"]) == 2.0
    assert squared_distance(["5", "7"], ["5", "7"]) == -1.0  # an estimate may be negative
    assert entropy(["5", "5", "7", "7"]) == pytest.approx(math.log(2))
    assert entropy([None, None]) == pytest.approx(math.log(2))
    assert entropy(["5", "5"]) == 0.0


def test_elad_worked_by_hand():
    # group 0 has K = 3, the others m = 2: step 1 agrees on 2 of 6 pairs, step 2 on 2 of 4; 1 of 3 root pairs agrees
    tree = make_tree([["5", "5", "7"], ["5", "9"], ["5", "5"]])
    scored = only(tree, "elad", inter_weight=0.5)
    assert scored.step_scores == pytest.approx((2 / 3, 1 / 2))
    assert scored.value == pytest.approx((2 / 3 + 1 / 2) / 2 + 0.5 * 2 / 3)
    assert scored.num_tokens == 2 + (1 + 2 + 3) + (2 + 3) + (3 + 4)


def test_elad_mc_worked_by_hand():
    tree = make_tree([["5", "5", "7"], ["5", "9"], ["5", "5"]])
    scored = only(tree, "elad-mc")
    assert scored.step_scores == pytest.approx((1 / 3 + 0 - 2 * 2 / 6, 0 + 1 - 2 * 2 / 4))
    assert scored.value == pytest.approx((-1 / 3 + 0) / 2)


def test_baselines_worked_by_hand():
    tree = make_tree([["5", "5", "7"]])
    assert only(tree, "least-confidence").value == 1.0
    assert only(tree, "max-entropy").value == 0.5
    assert only(tree, "disagreement").value == pytest.approx(2 / 3)
    assert only(tree, "answer-entropy").value == pytest.approx(math.log(3) - 2 / 3 * math.log(2))


def test_elad_removal_worked_by_hand():
    # without step 1: 2 of 4 pairs agree with the branches after all steps; without step 2: all do
    tree = make_tree([["5", "5", "7"], ["9", "9"], ["5", "5"]], removals=[["5", "7"], ["5", "5"]])
    scored = only(tree, "elad-removal", inter_weight=0.5)
    assert scored.step_scores == (0.5, 0.0)
    assert scored.value == pytest.approx(0.25 + 0.5 * 2 / 3)


def test_scores_of_the_greedy_pass_worked_by_hand():
    # two steps of two and three tokens, then an answer line of one
    logprobs, entropies = (-0.1, -0.3, -2.0, -1.0, -0.6, -0.2), (0.1, 0.3, 0.9, 0.2, 0.4, 0.05)
    tree = make_tree([[], [], []], logprobs=logprobs, entropies=entropies, step_ends=(2, 5))
    assert only(tree, "step-entropy").value == pytest.approx(0.5)
    assert only(tree, "first-entropy").value == pytest.approx(0.2)
    assert only(tree, "symbol-entropy").value == tree.mean_entropy
    calculated = replace(tree, is_symbol=(True, False, False, False, True))
    assert only(calculated, "symbol-entropy").value == pytest.approx(0.25)
    assert only(tree, "lowest-window").value == pytest.approx(1.2)
    assert only(tree, "step-entropy").step_scores == pytest.approx((0.2, 0.5))


def test_semantic_entropy_counts_the_mass_that_was_not_seen():
    def equal_branches(logprob):
        branches = (tuple(Branch(f"way {i}", "1", logprob, 1) for i in range(3)),)
        return replace(make_tree([[]], logprobs=(logprob,), entropies=(0.0,)), branches=branches)

    certain, unlikely = (only(equal_branches(math.log(p)), "semantic-entropy").value for p in (0.25, 0.01))
    assert certain == pytest.approx(0.0, abs=1e-12)  # four ways of a quarter each: everything was seen
    share = 0.96 / 4  # of the mass that was not seen, for an answer that was not
    assert unlikely == pytest.approx(-(share * math.log(share) + (1 - share) * math.log(1 - share)))


def test_each_score_counts_only_the_tokens_that_it_needs():
    tree = make_tree(
        [["5", "5", "7"], ["5", "9"], ["5", "5"]], probes=(Probe("5", 0.0),) * 3, removals=[["5", "7"], ["5", "5"]]
    )
    costs = {name: only(tree, name).num_tokens for name in STRATEGIES}
    assert costs == {
        "risk": 2,
        "elad": 20,
        "elad-removal": 2 + 6 + 7 + 4 * 2,
        "elad-mc": 20,
        "disagreement": 6,
        "answer-entropy": 6,
        "semantic-entropy": 2 + 6,
        **dict.fromkeys(("step-entropy", "first-entropy", "symbol-entropy", "lowest-window"), 2),
        "least-confidence": 2,
        "max-entropy": 2,
        "random": 0,
    }


def test_an_explanation_without_steps_is_scored():
    tree = make_tree([["5", "7"]], logprobs=(), entropies=())
    assert only(tree, "risk").step_scores == only(tree, "symbol-entropy").step_scores == ()
    assert only(tree, "elad").value == 1.0  # all of it from between the explanations
    assert only(tree, "elad-mc").value == 0.0
    assert only(tree, "least-confidence").value == 0.0


def test_answers_that_were_not_found_are_full_disagreement():
    tree = make_tree([[None] * 3, [None] * 3])
    assert only(tree, "elad").value == 2.0
    assert only(tree, "disagreement").value == 1.0
    assert only(tree, "answer-entropy").value == pytest.approx(math.log(3))


def test_a_prefix_that_leaves_no_room_for_branches_agrees_with_nothing():
    tree = make_tree([["5", "5"], ["5", "5"], []])
    assert only(tree, "elad").step_scores == (0.0, 1.0)
    assert only(tree, "elad-mc").step_scores == (0.0, 1.0)


# --- against the naive formulas -------------------------------------------------------------------------------------


def same(first, second):
    return first is not None and first == second


def naive_within(group):
    pairs = [(j, k) for j in range(len(group)) for k in range(len(group)) if j != k]
    return sum(same(group[j], group[k]) for j, k in pairs) / len(pairs)


def naive_between(first, second):
    return sum(same(a, b) for a, b in itertools.product(first, second)) / (len(first) * len(second))


@st.composite
def answer_groups(draw):
    branches, explanations = draw(st.integers(2, 6)), draw(st.integers(2, 6))
    num_steps = draw(st.integers(0, 5))
    sizes = [explanations] + [branches] * num_steps
    return [draw(st.lists(answers, min_size=size, max_size=size)) for size in sizes]


@unhurried
@given(answer_groups(), st.floats(0, 3))
def test_scores_equal_the_naive_formulas(groups, weight):
    tree = make_tree(groups)
    steps = [1 - naive_between(before, after) for before, after in itertools.pairwise(groups)]
    inter = 1 - naive_within(groups[0])
    intra = sum(steps) / len(steps) if steps else 0.0
    elad = only(tree, "elad", inter_weight=weight)
    assert elad.value == pytest.approx(intra + weight * inter)
    assert elad.step_scores == pytest.approx(steps)
    assert -1e-12 <= elad.value <= 1 + weight + 1e-12
    moved = [naive_within(a) + naive_within(b) - 2 * naive_between(a, b) for a, b in itertools.pairwise(groups)]
    assert only(tree, "elad-mc").step_scores == pytest.approx(moved, abs=1e-12)
    assert only(tree, "disagreement").value == pytest.approx(inter)
    # an answer that was not found is equal to no other: give each its own name
    named = [answer if answer is not None else f"none {i}" for i, answer in enumerate(groups[0])]
    shares = [named.count(answer) / len(named) for answer in set(named)]
    assert only(tree, "answer-entropy").value == pytest.approx(-sum(p * math.log(p) for p in shares), abs=1e-12)


@unhurried
@given(answer_groups(), st.randoms(use_true_random=False), st.permutations(["x", "y", "z"]))
def test_names_of_answers_and_order_of_branches_do_not_matter(groups, rng, names):
    renamed = dict(zip(["1", "2", "3"], names, strict=True)) | {None: None}
    shuffled = [[renamed[answer] for answer in rng.sample(group, len(group))] for group in groups]
    for strategy in ("elad", "elad-mc", "disagreement", "answer-entropy"):
        before, after = only(make_tree(groups), strategy), only(make_tree(shuffled), strategy)
        assert (before.value, before.step_scores) == (after.value, after.step_scores)  # to the last bit


def test_the_distance_is_unbiased_where_the_plug_in_is_not():
    # p = (0.5, 0.3, 0.2), q = (0.2, 0.3, 0.5): the squared distance is 0.18; the plug-in adds 2 · 0.62 / 3 at m = 3
    rng = random.Random(1)
    draws = [(rng.choices("abc", (5, 3, 2), k=3), rng.choices("abc", (2, 3, 5), k=3)) for _ in range(20_000)]
    unbiased = sum(squared_distance(a, b) for a, b in draws) / len(draws)
    plug_in = sum((a.count(x) - b.count(x)) ** 2 / 9 for a, b in draws for x in "abc") / len(draws)
    assert unbiased == pytest.approx(0.18, abs=0.015)
    assert plug_in == pytest.approx(0.18 + 2 * 0.62 / 3, abs=0.015)


# --- the table ------------------------------------------------------------------------------------------------------


def test_random_scores_depend_on_seed_and_id_alone():
    trees = [make_tree([["5", "5"]], question_id=f"q{i}") for i in range(2_000)]
    forward = {s.question_id: s.value for s in score(trees, "random", seed=3)}
    backward = {s.question_id: s.value for s in score(reversed(trees), "random", seed=3)}
    assert forward == backward
    assert forward != {s.question_id: s.value for s in score(trees, "random", seed=4)}
    assert all(0.0 <= value < 1.0 for value in forward.values())
    assert sum(forward.values()) / len(forward) == pytest.approx(0.5, abs=0.03)


def test_every_strategy_scores_the_trees_that_it_asks_for():
    config = ScoringConfig(num_branches=2, num_explanations=4)
    for name in STRATEGIES:
        params = tree_params(name, config, seed=9)
        groups = [["5"] * (params.num_root_branches or params.num_branches)] + [["5"] * params.num_branches] * 2
        tree = make_tree(
            groups if params.num_root_branches or params.num_branches else [],
            probes=(Probe("5", 0.0),) * 3 if params.probe else (),
            removals=[["5"] * params.num_removal_branches] * 2 if params.num_removal_branches else [],
        )
        scored = only(tree, name, seed=9)
        assert scored.strategy == name
        assert (params.seed, params.temperature) == (9, config.temperature)


def test_trees_are_grown_no_further_than_needed():
    config = ScoringConfig(num_branches=3, num_explanations=5)
    needs = {
        name: (params.num_branches, params.num_root_branches, params.probe)
        for name in STRATEGIES
        for params in [tree_params(name, config, seed=0)]
    }
    assert needs["elad"] == needs["elad-mc"] == (3, 5, False)
    assert needs["disagreement"] == needs["answer-entropy"] == (0, 5, False)
    forced = Strategy("own", lambda tree, _: tree.probes[-1].entropy, "own", needs_probe=True)
    assert tree_params(forced, config, seed=0).probe
    assert not any(probe for _, _, probe in needs.values())
    assert tree_params("elad-removal", config, seed=0).num_removal_branches == 3
    assert tree_params("elad", config, seed=0).num_removal_branches == 0
    for name in ("random", "risk", "least-confidence", "max-entropy", "step-entropy", "lowest-window"):
        assert needs[name] == (0, 0, False)


def test_an_unknown_strategy_is_an_error_that_suggests_the_nearest():
    with pytest.raises(ConfigError, match="did you mean elad-mc"):
        find_strategy("elad_mc")
    with pytest.raises(ConfigError, match=r"unknown name 'zzz'; built in: risk, elad, .*; installed: none"):
        score([], "zzz")


def test_a_removed_strategy_says_why_and_what_to_use():
    with pytest.raises(ConfigError, match=r"selection\.strategy: strategy 'probe' was removed: .*; use risk"):
        find_strategy("probe", "selection.strategy")


def test_every_score_has_the_risk_also_of_a_function_of_that_name():
    def risk(tree):
        return 7.0

    tree = make_tree([[]], logprobs=(-0.1, -2.0), entropies=(0.3, 1.2), step_ends=())
    assert only(tree, risk).value == 7.0
    assert only(tree, "risk").value == risk_of(tree)
    assert {only(tree, strategy).risk for strategy in (risk, "risk", "max-entropy")} == {risk_of(tree)}
    assert only(replace(tree, token_entropies=()), "random").risk is None


def test_a_score_that_is_not_finite_is_an_error():
    with pytest.raises(ModelError, match=r"question q: .*least-confidence score is nan"):
        only(make_tree([], logprobs=(math.nan,)), "least-confidence")


# --- the file -------------------------------------------------------------------------------------------------------


def write_scores(path, rows):
    return RowFile(path, ScoreRow).write(make_row(tree, scored) for tree, scored in rows)


def read_scores(path):
    return RowFile(path, ScoreRow).read()


def scored_trees():
    trees = [
        make_tree([["5", "5", "7"], ["5", None]], question_id="q1", logprobs=(-1 / 3,)),
        make_tree([["5", "7"]], question_id="q2é"),
    ]
    return list(zip(trees, score(trees, "elad"), strict=True))


def test_scores_are_read_back_as_written(tmp_path):
    path = tmp_path / "scores.jsonl"
    rows = scored_trees()
    assert write_scores(path, rows) == 2
    assert [json.loads(line)["id"] for line in path.read_text(encoding="utf-8").splitlines()] == ["q1", "q2é"]
    read = list(read_scores(path))
    assert [row.score for row in read] == pytest.approx([scored.value for _, scored in rows], rel=1e-5)
    assert read[0].branch_answers == (("5", "5", "7"), ("5", None))
    assert (read[0].steps, read[0].answer, read[0].num_tokens) == (rows[0][0].steps, "1", rows[0][1].num_tokens)
    assert read[0].mean_logprob == -0.333333
    assert set(json.loads(path.read_text(encoding="utf-8").splitlines()[0])) == {
        "id", "strategy", "score", "explanation", "steps", "answer", "branch_answers", "step_scores", "mean_logprob",
        "mean_entropy", "num_tokens", "risk", "traces",
    }  # fmt: skip


def test_the_same_scores_give_the_same_bytes(tmp_path):
    write_scores(tmp_path / "a", scored_trees())
    write_scores(tmp_path / "b", iter(scored_trees()))
    noisy = [(make_tree([["5"] * 2], logprobs=(-1 / 3 + noise,)),) for noise in (0.0, 1e-12)]
    for name, (tree,) in zip("cd", noisy, strict=True):
        write_scores(tmp_path / name, zip([tree], score([tree], "least-confidence"), strict=True))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "c").read_bytes() == (tmp_path / "d").read_bytes()


def test_a_scores_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "scores.jsonl"

    def interrupted():
        yield scored_trees()[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_scores(path, interrupted())
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"scores\.jsonl"):
        write_scores(tmp_path / "file" / "scores.jsonl", scored_trees())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row.pop("score"), "field score is missing"),
        (lambda row: row.update(score="high"), "field score: input should be a valid number"),
        (lambda row: row.update(id=3), "field id: input should be a valid string"),
        (lambda row: row.update(step_scores=None), "field step_scores: input should be a valid array"),
    ],
)
def test_a_damaged_row_is_named(tmp_path, change, message):
    path = tmp_path / "scores.jsonl"
    write_scores(path, scored_trees())
    first, second = path.read_text(encoding="utf-8").splitlines()
    row = json.loads(second)
    change(row)
    path.write_text(f"{first}\n{json.dumps(row)}\n", encoding="utf-8")
    with pytest.raises(RunError, match=rf"scores\.jsonl:2: .*{message}"):
        list(read_scores(path))


def test_a_missing_or_torn_scores_file_is_named(tmp_path):
    with pytest.raises(RunError, match="missing"):
        list(read_scores(tmp_path / "none.jsonl"))
    (tmp_path / "torn.jsonl").write_text('{"id": "q1", "sc', encoding="utf-8")
    with pytest.raises(RunError, match=r"torn\.jsonl:1"):
        list(read_scores(tmp_path / "torn.jsonl"))
