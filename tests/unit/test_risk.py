"""Traces of the steps, and the model of how likely the student is wrong."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeelad.records import Question, ReasoningTree
from edgeelad.uncertainty.risk import COLD_START, FEATURES, MEANS, SCALES, RiskModel, features, fit, risk_of
from edgeelad.uncertainty.traces import StepTrace, step_traces, trace_of

unhurried = settings(deadline=None)
values = st.lists(st.floats(0.0, 12.0), min_size=1, max_size=20)


def explained(entropies, ends, *, steps=("2 + 3 = 5",), answer="5"):
    logprobs = tuple(-entropy for entropy in entropies)
    question = Question("q", "How many?")
    return ReasoningTree(
        question, "", tuple(steps), answer, "eos", logprobs, tuple(entropies), (), step_ends=tuple(ends)
    )


def test_traces_worked_by_hand():
    first, second, last = step_traces(explained((0.1, 0.3, 2.0, 1.0, 1.0, 0.0, 0.2), (2, 6), steps=("one", "two")))
    assert first == StepTrace(2, pytest.approx(-0.2), pytest.approx(-0.2), pytest.approx(0.2), 0.3)
    assert second == StepTrace(4, -1.0, -1.0, 1.0, 2.0)
    assert last == StepTrace(1, -0.2, -0.2, 0.2, 0.2)
    assert trace_of([-1.0] * 3, [0.5, 0.7, 0.2], [True, True])[5:] == (2, pytest.approx(0.6))


def test_the_lowest_window_is_of_four_tokens():
    assert trace_of([-0.1, -3.0, -1.0, -1.0, -1.0, -0.1], [0.0] * 6).lowest_window == -1.5
    assert trace_of([], []) == StepTrace(0, 0.0, 0.0, 0.0, 0.0)


def test_tokens_whose_steps_are_unknown_are_in_the_last_trace():
    assert [trace.num_tokens for trace in step_traces(explained((0.1, 0.2), ()))] == [0, 2]
    assert step_traces(explained((), (0,))) == ()


@unhurried
@given(values, st.data())
def test_traces_cover_every_token_once(entropies, data):
    ends = sorted(data.draw(st.lists(st.integers(0, len(entropies)), min_size=1, max_size=4)))
    traces = step_traces(explained(entropies, ends, steps=["step"] * len(ends)))
    assert sum(trace.num_tokens for trace in traces) == len(entropies)
    assert max(trace.max_entropy for trace in traces) == max(entropies)
    assert 0.0 < risk_of(explained(entropies, ends, steps=["step"] * len(ends))) < 1.0


def test_an_unsure_explanation_is_riskier_and_so_are_a_false_equation_and_a_missing_answer():
    sure = risk_of(explained((0.001,) * 6, (5,)))
    assert sure < risk_of(explained((0.5,) * 6, (5,)))
    assert sure < risk_of(explained((0.001,) * 6, (5,), steps=("2 + 3 = 6",)))
    assert sure < risk_of(explained((0.001,) * 6, (5,), answer=None))


def test_a_false_equation_says_nothing_where_the_answer_is_no_number():
    traces = (StepTrace(1, -0.1, -0.1, 0.1, 0.1),) * 2
    by_kind = {kind: features(traces, ("2 + 3 = 6",), "a", kind)[-1] for kind in ("number", "text")}
    assert by_kind == {"number": 1.0, "text": 0.0}


def test_a_probability_worked_by_hand():
    model = RiskModel((1.0, *[0.0] * (len(FEATURES) - 1)), -0.5)
    row = [MEANS[0] + 2 * SCALES[0], *MEANS[1:]]
    assert model.probability(row) == pytest.approx(1 / (1 + math.exp(-1.5)))
    assert model.probability([MEANS[0] - 99 * SCALES[0], *MEANS[1:]]) == pytest.approx(0.0, abs=1e-30)


def drawn(num, seed, offset=0.0):
    """Explanations whose first feature alone decides."""
    dice = random.Random(seed)
    rows = [[mean + scale * dice.gauss(0, 1) for mean, scale in zip(MEANS, SCALES, strict=True)] for _ in range(num)]
    odds = [offset + 3 * (row[0] - MEANS[0]) / SCALES[0] for row in rows]
    return rows, [dice.random() < 1 / (1 + math.exp(-value)) for value in odds]


def test_without_enough_checked_questions_the_cold_start_stays():
    rows, wrong = drawn(19, 0)
    assert fit(rows, wrong) is COLD_START
    rows, _ = drawn(200, 0)
    assert fit(rows, [True] * 198 + [False] * 2) is COLD_START
    assert fit([], []).is_cold


def test_fifty_checked_questions_improve_the_model_and_two_thousand_find_the_truth():
    rows, wrong = drawn(4000, 1, offset=-1.0)

    def loss(model):
        probabilities = [model.probability(row) for row in rows[2000:]]
        pairs = zip(probabilities, wrong[2000:], strict=True)
        return -sum(math.log(p if is_wrong else 1 - p) for p, is_wrong in pairs) / 2000

    few, many = fit(rows[:50], wrong[:50]), fit(rows[:2000], wrong[:2000])
    assert loss(many) < loss(few) < loss(COLD_START)
    assert many.coefficients[0] == pytest.approx(3.0, abs=0.6)
    assert many.intercept == pytest.approx(-1.0, abs=0.4)
    assert (many.num_checked, many.num_wrong) == (2000, sum(wrong[:2000]))


def test_the_order_of_the_checked_questions_changes_nothing():
    rows, wrong = drawn(120, 2)
    assert fit(rows, wrong) == fit(rows[::-1], wrong[::-1])


@pytest.mark.parametrize("seed", range(10))
def test_features_that_tell_less_than_the_cold_start_believes_do_not_lead_it_astray(seed):
    dice, num = random.Random(seed), 300
    rows, wrong = [], []
    for _ in range(num):
        common = dice.gauss(0, 1)  # entropies rise and fall together
        rows.append([mean + scale * (common + dice.gauss(0, 0.5)) for mean, scale in zip(MEANS, SCALES, strict=True)])
        wrong.append(dice.random() < 1 / (1 + math.exp(-common)))
    model = fit(rows, wrong)
    # at the optimum of a model with an intercept, the share expected to be wrong is nearly that observed
    assert sum(map(model.probability, rows)) / num == pytest.approx(sum(wrong) / num, abs=0.02)


def test_questions_that_a_line_separates_give_finite_coefficients():
    rows, _ = drawn(100, 3)
    model = fit(rows, [row[0] > MEANS[0] for row in rows])
    assert all(abs(weight) < 10 for weight in model.coefficients)
