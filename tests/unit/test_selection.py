import logging
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeelad import selection
from edgeelad.config import PoolConfig, SelectionConfig, make_config
from edgeelad.errors import ConfigError, UsageError
from edgeelad.pool.store import Pool, Questions
from edgeelad.progress import Silent
from edgeelad.records import Annotation, Question
from edgeelad.run.folder import RunFolder
from edgeelad.run.records import SelectedRow
from edgeelad.run.scores import ScoreRow
from edgeelad.scoring.score import score_pool
from edgeelad.selection import select
from edgeelad.selection.batch import NUM_CLUSTERS
from edgeelad.selection.diversity import k_center, typiclust
from edgeelad.selection.ranking import inclusion_probabilities, rank_by_score, rank_uniformly
from edgeelad.selection.vectors import TextVectors, cluster
from edgeelad.stages.run import Run
from edgeelad.stages.score import score as score_stage
from edgeelad.stages.select import select as select_stage
from edgeelad.uncertainty import STRATEGIES

unhurried = settings(deadline=None)  # a shared machine has slow moments

TOPICS = ("apples in a basket", "trains between two towns", "coins of copper", "pages of a long novel")
NAMES = ("Ada", "Ben", "Cora", "Dov", "Eli", "Fay", "Gus", "Hal", "Ina", "Jon")


def make_questions(num, prefix="q"):
    """Questions on four topics, each its own numbers."""
    return [
        Question(
            f"{prefix}{i:05d}",
            f"{NAMES[i % 10]} counts {i * 7 + 3} {TOPICS[i % 4]} on day {i * 13 + 5}. How many of {i * 11 + 1} remain?",
        )
        for i in range(num)
    ]


def make_scores(questions, value=lambda i: float(i)):
    return {q.id: value(i) for i, q in enumerate(questions)}


def choose(questions, scores=None, *, num, seed=0, first_round=False, already=(), **config):
    scores = make_scores(questions) if scores is None else scores
    pool = questions if isinstance(questions, Questions) else sorted(questions, key=lambda question: question.id)
    values = np.array([scores.get(question.id, np.nan) for question in pool])
    rng = np.random.default_rng(seed)
    # the default's scores are probabilities
    config = SelectionConfig(**{"strategy": "max-entropy", **config})
    return select(pool, values, config, num=num, first_round=first_round, rng=rng, already=already)


NO_TEXT = {"max_similarity": 1.0, "cluster_cap": 1.0}
PLAIN = {"exploration_share": 0.0, "gumbel": False, **NO_TEXT}


def ids(choices):
    return [choice.question_id for choice in choices]


# --- by score -------------------------------------------------------------------------------------------------------


def test_plain_top_takes_the_highest_scores_in_order():
    choices = choose(make_questions(10), num=3, **PLAIN)
    assert ids(choices) == ["q00009", "q00008", "q00007"]
    assert [(c.reason, c.score, c.propensity) for c in choices] == [("score", s, 1.0) for s in (9.0, 8.0, 7.0)]


def test_ties_are_broken_by_id_whatever_the_order():
    questions = make_questions(10)
    scores = make_scores(questions, lambda i: 1.0)
    assert ids(choose(Pool.store(questions[::-1]).by_id(), scores, num=3, **PLAIN)) == ["q00000", "q00001", "q00002"]


def test_the_order_of_the_pool_does_not_matter():
    questions = make_questions(60)
    scores = make_scores(questions)
    for config in ({}, {"gumbel": False}, {"strategy": "k-center"}, {"strategy": "typiclust"}, {"strategy": "random"}):
        there = choose(questions, scores, num=12, **config)
        assert there == choose(Pool.store(questions[::-1]).by_id(), scores, num=12, **config)
        assert len(set(ids(there))) == 12


def test_a_share_is_explored_uniformly_and_spread_over_the_batch():
    questions = make_questions(200)
    choices = choose(questions, num=40, exploration_share=0.25, cluster_cap=1.0)
    explored = [i for i, c in enumerate(choices) if c.reason == "explore"]
    assert len(explored) == 10
    assert all(c.propensity == 10 / 200 for c in choices if c.reason == "explore")
    assert all(sum(start <= i < start + 20 for i in explored) == 5 for start in (0, 20))


def test_exploration_reaches_every_question():
    questions = make_questions(20)
    seen = set()
    for seed in range(60):
        seen |= {c.question_id for c in choose(questions, num=4, seed=seed, exploration_share=1.0, **NO_TEXT)}
    assert len(seen) == 20


def test_gumbel_draws_in_proportion_to_score_with_the_propensities_that_it_states():
    questions = make_questions(30)
    scores = make_scores(questions, lambda i: [0.1, 1.0, 4.0][i % 3])
    counts, stated = dict.fromkeys(scores, 0), {}
    for seed in range(3000):
        for choice in choose(questions, scores, num=6, seed=seed, exploration_share=0.0, **NO_TEXT):
            counts[choice.question_id] += 1
            stated[choice.question_id] = choice.propensity
    for question_id, propensity in stated.items():
        assert counts[question_id] / 3000 == pytest.approx(propensity, abs=0.05)
    assert sum(counts[q.id] for q in questions[2::3]) > 3 * sum(counts[q.id] for q in questions[1::3])


def test_probabilities_are_drawn_in_proportion_to_their_odds():
    questions = make_questions(30)
    scores = make_scores(questions, lambda i: [0.1, 0.5, 0.9][i % 3])
    config = {"strategy": "risk", "neighbors": 0, "exploration_share": 0.0, **NO_TEXT}
    stated = dict(zip(scores, inclusion_probabilities(np.array([1 / 9, 1.0, 9.0] * 10), 6), strict=True))
    for choice in choose(questions, scores, num=6, **config):
        assert choice.propensity == pytest.approx(stated[choice.question_id])
        assert choice.score == scores[choice.question_id]
    sure = choose(questions, make_scores(questions, lambda i: [0.0, 1.0, 1.0 - 1e-12][i % 3]), num=6, **config)
    assert len({choice.propensity for choice in sure}) == 1  # no odds beyond what a model knows


def test_a_question_among_risky_ones_is_chosen_before_a_lone_risky_one():
    questions = make_questions(40)  # of four topics
    scores = make_scores(questions, lambda i: 0.9 if i % 4 == 1 else 0.1)
    scores |= {"q00005": 0.2, "q00006": 0.5}
    alone = ids(choose(questions, scores, num=10, strategy="risk", neighbors=0, **PLAIN))
    assert "q00006" in alone
    assert "q00005" not in alone
    pooled = choose(questions, scores, num=10, strategy="risk", neighbors=5, **PLAIN)
    assert sorted(ids(pooled)) == [f"q{i:05}" for i in range(1, 40, 4)]
    assert {choice.question_id: choice.score for choice in pooled}["q00005"] == 0.2


@given(st.integers(2, 300), st.integers(1, 30), st.integers(0, 100))
@unhurried
def test_neighbors_are_the_nearest_others_and_those_as_near(num_questions, num, seed):
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(list("abcdefgh"), 3)) for _ in range(num_questions)]
    vectors = TextVectors([Question(f"q{i}", text) for i, text in enumerate(texts)])
    values = rng.normal(size=num_questions)
    among = np.sort(rng.choice(num_questions, max(2, num_questions // 2), replace=False))
    means = vectors.neighbor_means(values, num, among)
    for place in range(num_questions):
        near = vectors.similarities(place).astype(float)
        others = [other for other in among.tolist() if other != place]
        border = sorted(near[others])[-min(num, len(among) - 1)]
        counted = [other for other in others if near[other] >= border - 1e-5]
        assert means[place] == pytest.approx(values[counted].mean())


def test_a_question_has_no_neighbor_but_itself_in_a_pool_of_one():
    (choice,) = choose(make_questions(1), {"q00000": 0.3}, num=1, strategy="risk")
    assert (choice.score, choice.propensity) == (0.3, 1.0)


@pytest.mark.parametrize("value", [0.0, 3.5, -1.0])
def test_equal_scores_are_a_uniform_draw(value):
    questions = make_questions(50)
    choices = choose(questions, make_scores(questions, lambda i: value), num=10, exploration_share=0.0, cluster_cap=1.0)
    assert len(set(ids(choices))) == 10
    assert [c.propensity for c in choices] == pytest.approx([0.2] * 10)


def test_questions_with_score_zero_fill_the_batch_last():
    questions = make_questions(20)
    scores = make_scores(questions, lambda i: 1.0 if i in (3, 7) else 0.0)
    choices = choose(questions, scores, num=5, exploration_share=0.0, **NO_TEXT)
    assert set(ids(choices)[:2]) == {"q00003", "q00007"}
    assert all(0.0 < c.propensity <= 1.0 for c in choices)


def test_a_random_strategy_is_a_uniform_draw():
    questions = make_questions(40)
    choices = choose(questions, {}, num=8, strategy="random", exploration_share=0.0, **NO_TEXT)
    assert [c.propensity for c in choices] == [0.2] * 8


def test_a_pool_smaller_than_the_batch_is_taken_whole():
    questions = make_questions(3)
    for config in ({}, PLAIN, {"strategy": "typiclust"}, {"strategy": "k-center"}, {"first_batch": "representative"}):
        assert sorted(ids(choose(questions, num=10, first_round=True, **config))) == [q.id for q in questions]
    assert choose([], num=10) == []
    assert choose(questions, num=0) == []


def test_an_unknown_strategy_is_an_error():
    with pytest.raises(ConfigError, match="did you mean elad"):
        choose(make_questions(3), num=2, strategy="eald")
    with pytest.raises(ConfigError, match="did you mean k-center"):
        choose(make_questions(3), num=2, strategy="k_center")


@pytest.mark.parametrize("strategy", ["k-center", "typiclust"])
def test_a_text_strategy_needs_no_scores_and_states_none(tmp_path, strategy):
    questions = make_questions(40)
    expected = choose(questions, {}, num=8, strategy=strategy, exploration_share=0.0)
    assert [c.score for c in expected] == [None] * 8
    config = make_config({"selection": {"strategy": strategy, "batch_size": 8}})
    pool = Pool.store(questions)
    run = Run(config, RunFolder(tmp_path), Silent(), pool, (), (), frozenset(), (), "x")
    score_stage(run, 1)  # there is no student: nothing is explained
    assert not run.folder.round(1).scores.exists()
    assert select_stage(run, 1)
    rows = list(run.folder.round(1).selected.read())
    assert [(row.score, row.id in pool) for row in rows] == [(None, True)] * 8
    with pytest.raises(UsageError, match=f"gives no scores; use it .* --set selection.strategy={strategy}"):
        score_pool(tmp_path, PoolConfig(path="pool.jsonl"), tmp_path / "out", Silent(), strategy=strategy)
    assert strategy not in STRATEGIES


def test_the_stage_selects_alike_whatever_the_order_of_the_pool(tmp_path):
    questions = make_questions(60)
    scores = make_scores([q for q in questions if q.id != "q00050"], lambda i: 1.0 + i % 7)  # one was set aside
    config = make_config({"selection": {"batch_size": 8, "first_batch": "score"}})
    selected = []
    for number, order in enumerate((questions, questions[::-1], questions[30:] + questions[:30])):
        run = Run(config, RunFolder(tmp_path / str(number)), Silent(), Pool.store(order), (), (), frozenset(), (), "x")
        asked = [question for question in order if question.id in scores]
        run.folder.round(1).scores.write(
            ScoreRow(q.id, "risk", scores[q.id], "", (), None, (), (), 0.0, 0.0, 1) for q in asked
        )
        assert select_stage(run, 1)
        selected.append([(row.id, row.question, row.score) for row in run.folder.round(1).selected.read()])
    rng = run.rng(1, "select")
    pool = [question for question in questions if question.id in scores]
    values = np.array([scores[question.id] for question in pool])
    expected = select(pool, values, config.selection, num=8, first_round=True, rng=rng)
    texts = {question.id: question.text for question in questions}
    assert selected == [[(c.question_id, texts[c.question_id], c.score) for c in expected]] * 3


def test_questions_that_were_set_aside_or_not_reached_can_be_chosen_again(tmp_path):
    questions = make_questions(40)
    config = make_config({"selection": {"batch_size": 8, "exploration_share": 0.0, "gumbel": False, "neighbors": 0}})
    run = Run(config, RunFolder(tmp_path), Silent(), Pool.store(questions), (), (), frozenset(), (), "x")
    first = run.folder.round(1)
    first.selected.write(SelectedRow(q.id, q.text, (), "score", 0.5, 1.0) for q in questions[:8])
    # four were set aside three rounds ago, four never asked: the budget was spent
    first.annotations.write(Annotation(q.id, "set_aside", "", (), None, "no agreement") for q in questions[:4])
    for number in (2, 3):
        run.folder.round(number).selected.write([])
        run.folder.round(number).annotations.write([])
    run.folder.round(4).scores.write(
        ScoreRow(q.id, "risk", 0.9 - i / 50, "", (), None, (), (), 0.0, 0.0, 1) for i, q in enumerate(questions)
    )
    assert select_stage(run, 4)
    assert [row.id for row in run.folder.round(4).selected.read()] == [q.id for q in questions[:8]]


# --- near-duplicates and clusters -----------------------------------------------------------------------------------


def test_near_duplicates_of_chosen_questions_are_passed_over():
    questions = [*make_questions(20), Question("q00019-again", make_questions(20)[19].text.upper())]
    scores = make_scores(questions)
    chosen = ids(choose(questions, scores, num=5, **{**PLAIN, "max_similarity": 0.95}))
    assert chosen == ["q00019-again", "q00018", "q00017", "q00016", "q00015"]
    later = ids(choose(questions, scores, num=5, already=[questions[18]], **{**PLAIN, "max_similarity": 0.95}))
    assert later == ["q00019-again", "q00017", "q00016", "q00015", "q00014"]


def test_questions_that_differ_in_their_numbers_are_no_duplicates():
    questions = [Question(f"q{i}", f"Tom has {i} apples and buys {i + 3} more. How many has he?") for i in range(1, 7)]
    vectors = TextVectors(questions)
    similar = np.array([vectors.similarities(i) for i in range(6)])
    assert similar.diagonal() == pytest.approx(1.0)
    assert (similar - np.eye(6)).max() < 0.95


def test_questions_of_the_same_few_words_in_another_order_are_no_duplicates():
    rng = np.random.default_rng(0)
    names = "abcdefgh"
    chains = []
    for number in range(60):
        values, signs = rng.integers(1, 10, 8), rng.choice(["+", "*"], 8)
        parts = [f"{name} = {names[i]} {signs[i]} {values[i]}" for i, name in enumerate(names[1:])]
        text = " ; ".join([f"a = {values[7]}", *(parts[i] for i in rng.permutation(7))])
        chains.append(Question(f"q{number:05}", f"{text} ? h"))
    vectors = TextVectors(chains[30:], chains[:30])
    assert vectors.similarity_to_already().max() < SelectionConfig().max_similarity
    again = TextVectors([Question("again", chains[0].text + " ")], chains[:30])
    assert again.similarity_to_already() == pytest.approx(1.0)


def test_no_cluster_fills_more_than_its_share():
    # the crowd's questions differ in one number, and score highest: they would fill the batch
    crowd = [
        Question(f"a{i:03d}", f"A farmer sells red apples at the market each day, {i} in all.") for i in range(100)
    ]
    others = [Question(f"b{i:03d}", f"{TOPICS[1 + i % 3]} {NAMES[i % 10]} {i}") for i in range(100)]
    pool = [*crowd, *others]
    scores = make_scores(crowd, lambda i: 5.0) | make_scores(others, lambda i: 1.0)
    free = ids(choose(pool, scores, num=20, **PLAIN))
    capped = ids(choose(pool, scores, num=20, **{**PLAIN, "cluster_cap": 0.25}))
    rng = np.random.default_rng(0)
    labels = dict(zip([q.id for q in pool], cluster(TextVectors(pool).dense(rng), NUM_CLUSTERS, rng), strict=True))
    largest = [max(Counter(labels[question_id] for question_id in batch).values()) for batch in (free, capped)]
    assert largest[0] > 5 >= largest[1]
    assert len(set(capped)) == 20


def test_a_short_batch_lifts_the_cap_first_and_then_the_ban(caplog):
    texts = ["What is two plus three?", "What is two plus three ?", "What is TWO plus three?", "How far is the moon?"]
    questions = [Question(f"q{i}", text) for i, text in enumerate(texts)] + make_questions(30, "z")
    scores = make_scores(questions, lambda i: 40.0 - i)
    pair = questions[:4]
    with caplog.at_level(logging.INFO):
        chosen = ids(choose(pair, scores, num=3, **{**PLAIN, "max_similarity": 0.95}))
    assert chosen == ["q0", "q3", "q1"]
    assert "1 near-duplicates were chosen" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO):
        chosen = ids(choose(questions, scores, num=30, **{**PLAIN, "max_similarity": 0.95, "cluster_cap": 0.01}))
    assert len(set(chosen)) == 30
    assert "above the cluster cap" in caplog.text
    assert "near-duplicates" not in caplog.text


# --- by text alone --------------------------------------------------------------------------------------------------


def test_the_representative_first_batch_covers_the_topics():
    questions = make_questions(200)
    choices = choose(questions, {}, num=8, first_round=True, first_batch="representative")
    topics = {next(t for t in TOPICS if t in q.text) for q in questions if q.id in ids(choices)}
    assert topics == set(TOPICS)
    assert {(c.reason, c.propensity) for c in choices} == {("seed", 1.0)}
    again = choose(questions, {}, num=8, first_round=False, strategy="random", first_batch="representative")
    assert {c.reason for c in again} == {"score", "explore"}


def test_a_random_first_batch_is_uniform_and_says_so():
    choices = choose(make_questions(50), {}, num=10, first_round=True, first_batch="random")
    assert {(c.reason, c.propensity) for c in choices} == {("seed", 0.2)}


def test_k_center_takes_the_farthest_question_next():
    texts = ["red apple", "red apple pie", "blue train", "blue train track", "green river"]
    questions = [Question(f"q{i}", text) for i, text in enumerate(texts)]
    vectors = TextVectors(questions, [Question("x", "red apple")])
    dense = vectors.dense(np.random.default_rng(0))
    ranking = k_center(vectors, np.arange(5), 3, np.random.default_rng(0))
    covered = [dense[5]]
    for index in ranking.order[:3]:
        nearest = [max(float(dense[i] @ c) for c in covered) for i in range(5)]
        assert nearest[index] == pytest.approx(min(nearest))
        covered.append(dense[index])
    assert set(ranking.order.tolist()) == set(range(5))


def test_typiclust_prefers_clusters_without_a_chosen_question():
    questions = make_questions(80)
    on_topic = [q for q in questions if TOPICS[0] in q.text]
    others = [q for q in questions if TOPICS[0] not in q.text]
    vectors = TextVectors(others, on_topic)
    ranking = typiclust(vectors, np.arange(len(others)), 3, np.random.default_rng(0))
    assert sorted(ranking.order.tolist()) == list(range(len(others)))
    first = {next(t for t in TOPICS if t in others[i].text) for i in ranking.order[:12]}
    assert first == set(TOPICS[1:])


def test_equal_and_wordless_questions_can_be_ranked():
    for texts in (["same text"] * 40, ["?"] * 40, ["?", "!", "."] * 14):
        questions = [Question(f"q{i:02d}", text) for i, text in enumerate(texts)]
        for config in ({}, {"strategy": "typiclust"}, {"strategy": "k-center"}):
            assert len(set(ids(choose(questions, num=10, **config)))) == 10


# --- rankings -------------------------------------------------------------------------------------------------------


@unhurried
@given(st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=40), st.data())
def test_inclusion_probabilities_sum_to_the_number_chosen(weights, data):
    num = data.draw(st.integers(0, len(weights)))
    probabilities = inclusion_probabilities(np.array(weights), num)
    assert probabilities.sum() == pytest.approx(num, abs=1e-6)
    assert ((probabilities >= 0.0) & (probabilities <= 1.0)).all()
    order = np.argsort(weights)
    assert (np.diff(probabilities[order]) >= -1e-12).all()


@unhurried
@given(st.lists(st.floats(-1.0, 10.0), max_size=30), st.integers(0, 40), st.booleans())
def test_every_ranking_is_a_permutation(values, num, is_plain):
    candidates = np.arange(len(values)) * 3
    rng = np.random.default_rng(0)
    by_score = rank_by_score(candidates, np.array(values), num, None if is_plain else rng)
    for ranking in (by_score, rank_uniformly(candidates, num, rng)):
        assert sorted(ranking.order.tolist()) == candidates.tolist()
        assert len(ranking.propensities) == len(values)


def test_a_large_pool_is_chosen_from_in_bounded_memory():
    code = """
import resource, numpy as np
from edgeelad.config import SelectionConfig
from edgeelad.records import Question
from edgeelad.selection import select
words = [f"word{i}" for i in range(3000)]
rng = np.random.default_rng(0)
questions = [Question(f"q{i:05}", " ".join(words[j] for j in rng.integers(0, 3000, 12))) for i in range(20_000)]
scores = np.arange(200, 20_000) % 97.0
import sklearn.cluster, sklearn.decomposition, sklearn.neighbors
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
scores /= 100.0
for config in (SelectionConfig(), SelectionConfig(strategy="typiclust"), SelectionConfig(strategy="k-center")):
    batch = select(questions[200:], scores, config, num=50, first_round=False, rng=rng, already=questions[:200])
    assert len({choice.question_id for choice in batch}) == 50
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(result.stdout) < 600  # MB; a dense matrix of all pairs would be 1,600


class CountedVectors(TextVectors):
    """Text vectors that tell how many questions they were made of."""

    sizes: list[int] = []  # noqa: RUF012 - cleared by the tests

    def __init__(self, pool, already=()):
        super().__init__(pool, already)
        self.sizes.append(len(pool))


@pytest.fixture
def small_shortlist(monkeypatch):
    """Pools of more than 40 questions are large."""
    monkeypatch.setattr(selection, "MAX_COMPARED", 40)
    monkeypatch.setattr(selection, "COMPARED_PER_CHOICE", 1)
    monkeypatch.setattr(selection, "TextVectors", CountedVectors)
    CountedVectors.sizes.clear()


@pytest.mark.parametrize("gumbel", [False, True])
def test_only_the_best_of_a_large_pool_are_compared(small_shortlist, gumbel):
    questions = make_questions(500)
    scores = make_scores(questions)
    config = {"exploration_share": 0.2, "gumbel": gumbel, "cluster_cap": 0.6}
    choices = choose(questions, scores, num=10, **config)
    assert choices == choose(Pool.store(questions[::-1]).by_id(), scores, num=10, **config)
    assert len(set(ids(choices))) == 10
    assert CountedVectors.sizes[0] in range(20, 41)
    explored = [choice for choice in choices if choice.reason == "explore"]
    ranked = [choice for choice in choices if choice.reason == "score"]
    assert (len(explored), len(ranked)) == (2, 8)
    assert {choice.propensity for choice in explored} == {2 / 500}
    assert all(choice.score == scores[choice.question_id] for choice in choices)
    if gumbel:
        stated = inclusion_probabilities(np.maximum(np.arange(500.0), 499e-6), 8)
        assert [choice.propensity for choice in ranked] == [stated[int(choice.question_id[1:])] for choice in ranked]
    else:
        assert {choice.question_id for choice in ranked} <= set(ids(choose(questions, scores, num=30, **PLAIN)))


def test_propensities_hold_where_neighbors_are_those_of_a_large_pool(small_shortlist):
    questions = make_questions(90)
    scores = make_scores(questions, lambda i: [0.3, 0.5, 0.8][i % 3])
    config = {"strategy": "risk", "neighbors": 4, "exploration_share": 0.0, **NO_TEXT}
    totals = []
    for seed in range(300):
        choices = choose(questions, scores, num=8, seed=seed, **config)
        assert len(set(ids(choices))) == 8
        totals.append(sum(1.0 / choice.propensity for choice in choices))
    # Horvitz and Thompson's estimate of the pool's size
    assert np.mean(totals) == pytest.approx(90, rel=0.15)
    assert max(CountedVectors.sizes) <= 40


def test_the_cap_of_a_large_pool_holds_where_the_best_are_of_one_kind(monkeypatch):
    monkeypatch.setattr(selection, "MAX_COMPARED", 200)
    monkeypatch.setattr(selection, "COMPARED_PER_CHOICE", 10)
    dice = np.random.default_rng(0)
    kinds = [0 if i % 10 < 3 else 1 + i % 7 for i in range(1600)]
    words = [[f"w{kind}x{j}" for j in range(12)] for kind in range(8)]
    questions = [Question(f"q{i:05d}", " ".join(dice.choice(words[kind], 8))) for i, kind in enumerate(kinds)]
    scores = {f"q{i:05d}": 0.15 if kind else 0.97 for i, kind in enumerate(kinds)}
    for seed in range(3):
        chosen = choose(questions, scores, num=20, seed=seed, strategy="risk", exploration_share=0.0)
        by_kind = Counter(kinds[int(choice.question_id[1:])] for choice in chosen)
        assert by_kind[0] < 17, "others of the shortlist follow where the cap is reached"


def test_scores_below_zero_are_said_to_be_drawn_alike(caplog):
    questions = make_questions(40)
    with caplog.at_level(logging.WARNING):
        choose(questions, make_scores(questions, lambda i: -1.0 - i), num=8)
    assert "no score is above 0" in caplog.text


def test_typical_questions_of_a_first_batch_that_is_all_explored():
    chosen = choose(
        make_questions(30), num=4, first_round=True, first_batch="score", exploration_share=1.0, strategy="typiclust"
    )
    assert [choice.reason for choice in chosen] == ["explore"] * 4


def test_a_large_pool_is_explored_uniformly(small_shortlist):
    questions = make_questions(60)
    counts = Counter()
    for seed in range(300):
        config = {"exploration_share": 0.5, **NO_TEXT}
        choices = choose(questions, make_scores(questions), num=10, seed=seed, **config)
        counts.update(choice.question_id for choice in choices if choice.reason == "explore")
    drawn = np.array([counts[question.id] for question in questions])
    assert drawn.sum() == 1500
    assert ((drawn - 25) ** 2 / 25).sum() < 110  # chi-squared, 59 degrees of freedom: one in 10,000


@pytest.mark.parametrize("strategy", ["typiclust", "k-center"])
def test_text_strategies_rank_a_sample_of_a_large_pool(small_shortlist, strategy):
    questions = make_questions(500)
    choices = choose(questions, {}, num=10, strategy=strategy)
    assert len(set(ids(choices))) == 10
    assert CountedVectors.sizes[0] in range(20, 41)
