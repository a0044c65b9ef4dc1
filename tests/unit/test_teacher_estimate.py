import pytest
from fixtures.chaos_server import ChaosServer
from fixtures.fake_teacher import make_tree
from fixtures.planted import make_questions, solver, student_of

from edgeelad.config import TeacherConfig
from edgeelad.records import Question
from edgeelad.teacher import open_teacher
from edgeelad.teacher.estimate import estimate_round
from edgeelad.teacher.ledger.budget import Spent
from edgeelad.teacher.plan.luck import Luck, doubtful
from edgeelad.teacher.revision.annotate import annotate
from edgeelad.teacher.revision.own_chain import own_chain

PRICES = {"usd_per_million_prompt": 1.0, "usd_per_million_completion": 2.0}


def count(text):
    return len(text.split())


def test_low_expected_high_are_in_order():
    questions, _, trees = make_questions(20)
    for settings in ({}, {"walk": "per_step"}, {"mode": "rationale"}, {"max_calls": 2}, {"max_calls": 1}):
        for known in ({}, trees):
            config = TeacherConfig(**settings)
            estimate = estimate_round(questions, known, config, count_tokens=count)
            for field in ("requests", "completion_tokens"):
                values = [getattr(usage, field) for usage in (estimate.low, estimate.expected, estimate.high)]
                if config.max_calls > 2:
                    assert values == sorted(values)
            assert estimate.high.requests <= 20 * config.max_calls or config.mode == "rationale"
            assert estimate.expected.cost_usd is None
            assert not estimate.is_calibrated


def test_what_is_known_to_be_right_costs_nothing():
    questions, truth, trees = make_questions(20, has_answers=True)
    right = [question for question in questions if trees[question.id].steps == truth[question.id][0]]
    wrong = [question for question in questions if question not in right]
    config = TeacherConfig(mode="revise")
    assert estimate_round(right, trees, config).high.requests == 0
    estimate = estimate_round(wrong, trees, config)
    assert estimate.low.requests == len(wrong)
    assert "Student's steps:\n1. " in estimate.example[1].content


def test_prompts_are_counted_as_they_would_be_sent():
    questions, _, _ = make_questions(3)
    estimate = estimate_round(questions, {}, TeacherConfig(mode="rationale"), count_tokens=lambda text: 1000)
    assert estimate.expected.prompt_tokens == 3 * (2 * 1000 + 2 * 8)
    assert estimate.example[1].content.endswith(questions[0].text)


def test_the_ledger_calibrates(tmp_path):
    questions, truth, trees = make_questions(60)
    with ChaosServer(respond=solver) as server:
        config = TeacherConfig(url=server.url, model="m", api_key_env="", mode="revise", **PRICES)
        with open_teacher(config, tmp_path / "l", {}) as teacher:
            list(annotate(questions[:30], trees, teacher, student_of(truth), config))
            first = teacher.usage()
        estimate = estimate_round(questions[30:], trees, config, ledger_path=tmp_path / "l", count_tokens=count)
        num_sent = len(server.requests)
        with open_teacher(config, tmp_path / "l", {}) as teacher:
            list(annotate(questions[30:], trees, teacher, student_of(truth), config))
            second = teacher.usage().completion_tokens - first.completion_tokens
        assert num_sent == first.requests
    assert estimate.is_calibrated
    assert estimate.expected.completion_tokens == pytest.approx(second, rel=0.25)
    # one call was enough for every question: what was wrong was corrected
    assert estimate.low.cost_usd == estimate.expected.cost_usd < estimate.high.cost_usd


def test_what_the_caps_allow():
    questions, _, _ = make_questions(20)
    free = estimate_round(questions, {}, TeacherConfig(**PRICES))
    assert (free.allowed_questions, free.limiting_cap) == (None, "")
    half = TeacherConfig(max_usd=free.expected.cost_usd / 2, max_requests=10_000, **PRICES)
    estimate = estimate_round(questions, {}, half)
    assert estimate.allowed_questions in (9, 10)
    assert estimate.limiting_cap == "teacher.max_usd"
    assert estimate_round(questions, {}, TeacherConfig(max_questions=5)).allowed_questions == 5
    audited = estimate_round(questions, {}, TeacherConfig(max_requests=120), before=Spent(requests=120))
    assert (audited.allowed_questions, audited.limiting_cap) == (0, "teacher.max_requests")
    batch = estimate_round(questions, {}, TeacherConfig(batch=True, **PRICES))
    assert batch.expected.cost_usd == pytest.approx(free.expected.cost_usd / 2)


@pytest.mark.parametrize("mode", ["auto", "revise"])
def test_explanations_that_may_be_luck_are_counted(mode):
    questions = [Question(f"q{i}", f"Does boat {i} float?", "boolean", (), ("no", "yes")[i % 2]) for i in range(60)]
    steps = ("Boats float.", "So it does.")
    trees = {
        q.id: make_tree(steps, q.answer if i < 40 else "yes", [[("x", q.answer, -0.1)] * 3], question=q)
        for i, q in enumerate(questions)
    }
    estimate = estimate_round(questions, trees, TeacherConfig(mode=mode, **PRICES))
    doubts = doubtful(questions, trees, {}, Luck(questions, trees))
    num_free = sum(own_chain(trees[q.id], q.answer) is not None and q.id not in doubts for q in questions)
    assert 0 < num_free < 40
    assert estimate.low.requests == 60 - num_free
    assert estimate.expected.requests >= 60 - num_free


def test_nothing_to_estimate(tmp_path):
    estimate = estimate_round([], {}, TeacherConfig(), ledger_path=tmp_path / "none")
    assert estimate.high.requests == 0
    assert estimate.example == ()
    assert not (tmp_path / "none").exists()
