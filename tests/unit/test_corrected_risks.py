"""How likely the student is wrong, told by what it gets wrong around a question."""

import numpy as np
import pytest

from edgeelad.config import SelectionConfig, make_config
from edgeelad.pool.store import Pool
from edgeelad.progress import Silent
from edgeelad.records import Question
from edgeelad.run.folder import RunFolder
from edgeelad.run.records import SelectedRow
from edgeelad.run.scores import ScoreRow
from edgeelad.selection import select
from edgeelad.selection.odds import Neighborhood, corrected
from edgeelad.stages import risks
from edgeelad.stages.risks import corrected_risks, outcomes, scored_with_answers
from edgeelad.stages.run import Run
from edgeelad.stages.select import select as select_stage


def two_kinds(num):
    """Sums and halves in turns, each with its answer."""
    return [
        Question(f"q{i:04d}", f"What is {i} + {i} ?", "number", (), str(2 * i))
        if i % 2
        else Question(f"q{i:04d}", f"Ann eats half of her {2 * i} nuts . How many are left ?", "number", (), str(i))
        for i in range(1, num + 1)
    ]


def test_a_question_among_wrong_ones_is_likely_wrong_however_sure_the_student_is():
    questions = two_kinds(400)
    is_half = np.array([not question.text.startswith("What") for question in questions])
    is_wrong = is_half.astype(float)
    lucky = 41  # a half that the student gets right
    is_wrong[lucky] = 0.0
    found = corrected(np.full(400, 0.2), is_wrong, Neighborhood.of(questions, 20))
    assert found[is_half].min() > 0.9
    assert found[lucky] > 0.9
    assert found[~is_half].max() < 0.1


def test_where_neighbors_tell_nothing_the_given_probabilities_stand():
    rng = np.random.default_rng(0)
    questions = [Question(f"q{i}", f"w{i} x{i} y{i}", "number", (), "1") for i in range(2000)]
    given = rng.choice([0.05, 0.3, 0.8], 2000)
    is_wrong = (rng.random(2000) < given).astype(float)
    found = corrected(given, is_wrong, Neighborhood.of(questions, 20))
    for probability in (0.05, 0.3, 0.8):
        assert found[given == probability].mean() == pytest.approx(probability, abs=0.04)
        assert found[given == probability].std() < 0.05


def chosen(questions, is_wrong, num=40, **config):
    """Ids of a batch that is drawn where the explanations tell nothing."""
    found = select(
        questions,
        np.full(len(questions), 0.2),
        SelectionConfig(**{"exploration_share": 0.0, "cluster_cap": 1.0, "max_similarity": 1.0, **config}),
        num=num,
        first_round=False,
        rng=np.random.default_rng(0),
        outcomes=lambda asked: np.array([is_wrong[question.id] for question in asked]),
    )
    return [choice.question_id for choice in found]


def test_a_batch_is_drawn_from_the_kinds_that_are_wrong_where_the_answers_tell():
    questions = two_kinds(400)
    halves = {q.id for q in questions if q.text.startswith("Ann")}
    is_wrong = {q.id: float(q.id in halves) for q in questions}
    assert len(halves & set(chosen(questions, is_wrong))) >= 38
    # explanations that tell nothing draw from both alike
    nothing = dict.fromkeys(is_wrong, np.nan)
    assert 8 < len(halves & set(chosen(questions, nothing))) < 32
    # answers of a few do not stand for the pool
    few = {id_: value if i < 150 else np.nan for i, (id_, value) in enumerate(is_wrong.items())}
    assert chosen(questions, few) == chosen(questions, nothing)
    assert chosen(questions, is_wrong, neighbors=0) == chosen(questions, nothing, neighbors=0)


def test_kinds_that_are_mostly_wrong_are_asked_side_by_side():
    quarters = [
        Question(f"r{i:04d}", f"Ben's {4 * i} eggs fill four boxes . How many fill one ?", "number", (), str(i))
        for i in range(1, 201)
    ]
    questions = [*two_kinds(400), *quarters]
    # of one kind all, of another nine in ten
    is_wrong = {q.id: float(q.text.startswith("Ann") or (q.id[0] == "r" and q.id[-1] != "0")) for q in questions}
    found = chosen(questions, is_wrong, num=200)
    kinds = [sum(q.text.startswith(name) for q in questions if q.id in set(found)) for name in ("Ann", "Ben", "What")]
    assert kinds[2] <= 4
    assert min(kinds[:2]) > 70


def test_wrong_answers_of_a_pool_are_not_what_is_chosen():
    rng = np.random.default_rng(1)
    questions = two_kinds(1000)
    mislabeled = {questions[i].id for i in rng.choice(1000, 50, replace=False)}
    halves = {q.id for q in questions if q.text.startswith("Ann") and int(q.id[1:]) % 10 < 4}
    is_wrong = {q.id: float(q.id in mislabeled | halves) for q in questions}
    found = set(chosen(questions, is_wrong, num=100))
    # one in twenty, as in the pool, and not all of them
    assert len(found & (mislabeled - halves)) <= 12


def stored(folder, questions, batch, **selection):
    config = make_config({"selection": selection})
    run = Run(config, RunFolder(folder), Silent(), Pool.store(questions), (), (), frozenset(), (), "x")
    run.folder.round(1).selected.write(SelectedRow(q.id, q.text, (), "score", 0.5, 1.0) for q in batch)
    return run


def row(question, answer, risk=0.2):
    return ScoreRow(question.id, "risk", risk or 0.0, answer, (answer,), answer, (), (), 0.0, 0.0, 1, risk)


def test_the_stage_reads_answers_of_the_batch_too_and_of_the_pool_alone(tmp_path):
    questions = [*two_kinds(100), Question("bare", "What is 9 + 9 ?", "number"), Question("mute", "?", answer="1")]
    halves = [q for q in questions if q.text.startswith("Ann")]
    run = stored(tmp_path, questions, batch=halves[5:])
    # all halves are wrong but five, which were not asked
    wrong = {q.id for q in halves[5:]}
    given = [row(q, "77" if q.id in wrong else q.answer or "18") for q in questions[:-1]]
    run.folder.round(1).scores.write([*given, row(questions[-1], "1", risk=None)])
    rows = scored_with_answers(run, 1)
    assert [row.id for row in rows] == [q.id for q in questions[:100]]
    found = corrected_risks(run, rows)
    assert list(found) == [row.id for row in rows]
    assert min(found[q.id] for q in halves) > 0.8
    assert max(found[q.id] for q in questions[:100] if q not in halves) < 0.1
    off = stored(tmp_path / "off", questions, batch=halves[5:], neighbors=0)
    assert corrected_risks(off, rows) == {row.id: 0.2 for row in rows}
    assert corrected_risks(run, []) == {}
    run.folder.round(2).selected.write([])
    assert scored_with_answers(run, 2) == []  # a text strategy scores nothing


def test_of_a_large_pool_the_batch_and_others_at_random_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(risks, "MAX_COMPARED", 30)
    questions = two_kinds(200)
    run = stored(tmp_path, questions, batch=questions[190:])
    run.folder.round(1).scores.write(row(q, q.answer) for q in questions)
    rows = scored_with_answers(run, 1)
    assert len(rows) == 30
    assert {q.id for q in questions[190:]} < {row.id for row in rows}
    assert rows == scored_with_answers(run, 1)


def test_the_stage_chooses_by_what_the_pool_answers_tell(tmp_path):
    questions = two_kinds(300)
    halves = {q.id for q in questions if q.text.startswith("Ann")}
    run = stored(tmp_path, questions, (), batch_size=30, exploration_share=0.0, cluster_cap=1.0, max_similarity=1.0)
    first = run.folder.round(1)
    first.selected.path.unlink()
    first.scores.write(row(q, "77" if q.id in halves else q.answer) for q in questions)
    assert outcomes(run, 1, questions[:4]).tolist() == [float(q.id in halves) for q in questions[:4]]
    assert select_stage(run, 1)
    found = list(first.selected.read())
    assert sum(row.id in halves for row in found) >= 28
    assert {row.score for row in found} == {0.2}, "what was scored is told, not what it was corrected to"


def test_a_bare_pool_is_scored_once_and_not_read_again(tmp_path):
    bare = [Question(q.id, q.text, "number") for q in two_kinds(10)]
    run = stored(tmp_path, bare, batch=())
    run.folder.round(1).scores.path.write_text("no scores: whoever reads them fails")
    assert np.isnan(outcomes(run, 1, bare)).all()
    assert scored_with_answers(run, 1) == []
