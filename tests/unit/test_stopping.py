import math
from collections import Counter
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeelad.bounds import (
    binomial_cdf,
    binomial_lower,
    binomial_upper,
    hypergeometric_lower,
    hypergeometric_upper,
)
from edgeelad.config import StoppingConfig
from edgeelad.records import Question
from edgeelad.stopping import (
    RoundOutcome,
    certify,
    draw_audit,
    should_stop,
    spent_alpha,
)

unhurried = settings(deadline=None)  # a shared machine has slow moments


def smallest_sample(num_hits):
    return next(n for n in range(num_hits + 1, 200) if binomial_upper(num_hits, n, 0.05) <= 0.10)


# --- bounds ---------------------------------------------------------------------------------------------------------


def test_known_sample_sizes_at_ten_percent_and_95_percent_confidence():
    assert [smallest_sample(k) for k in (0, 1, 2)] == [29, 46, 61]


def test_the_defaults_pass_four_disagreements_at_the_first_look_and_three_at_the_second():
    config = StoppingConfig()
    assert (config.audit_size, config.epsilon, config.alpha) == (100, 0.10, 0.05)

    def passes(k, look):
        return certify(k, config.audit_size, None, look, config.epsilon, config.alpha).is_certified

    assert [k for k in range(12) if passes(k, 1)] == [0, 1, 2, 3, 4]
    assert [k for k in range(12) if passes(k, 2)] == [0, 1, 2, 3]


@unhurried
@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(1e-4, 0.5))
def test_clopper_pearson_equals_the_beta_quantiles(sample, alpha):
    beta = pytest.importorskip("scipy.stats").beta

    k, n = sample
    upper = 1.0 if k == n else beta.ppf(1 - alpha, k + 1, n - k)
    lower = 0.0 if k == 0 else beta.ppf(alpha, k, n - k + 1)
    assert binomial_upper(k, n, alpha) == pytest.approx(upper, abs=1e-9)
    assert binomial_lower(k, n, alpha) == pytest.approx(lower, abs=1e-9)


@unhurried
@given(
    st.integers(1, 60)
    .flatmap(lambda size: st.tuples(st.just(size), st.integers(1, size)))
    .flatmap(lambda pair: st.tuples(st.just(pair[0]), st.just(pair[1]), st.integers(0, pair[1]))),
    st.floats(1e-3, 0.5),
)
def test_hypergeometric_bounds_equal_trying_every_population(case, alpha):
    size, n, k = case

    def probability(total, hits):  # exact, as a bound may lie right on α
        ways = sum(math.comb(total, j) * math.comb(size - total, n - j) for j in hits)
        return Fraction(ways, math.comb(size, n))

    possible = range(k, size - n + k + 1)
    not_too_many = [total for total in possible if probability(total, range(k + 1)) > alpha]
    not_too_few = [total for total in possible if probability(total, range(k, n + 1)) > alpha]
    assert hypergeometric_upper(k, n, size, alpha) == max(not_too_many) / size
    assert hypergeometric_lower(k, n, size, alpha) == min(not_too_few) / size


def test_hypergeometric_bounds_agree_with_scipy():
    hypergeom = pytest.importorskip("scipy.stats").hypergeom

    for size, n, k in ((2000, 100, 4), (500, 200, 31), (10_000, 61, 2)):
        upper = round(hypergeometric_upper(k, n, size, 0.025) * size)
        assert hypergeom.cdf(k, size, upper, n) > 0.025 > hypergeom.cdf(k, size, upper + 1, n)
        lower = round(hypergeometric_lower(k, n, size, 0.025) * size)
        assert hypergeom.sf(k - 1, size, lower, n) > 0.025 > hypergeom.sf(k - 1, size, lower - 1, n)


def test_a_whole_population_leaves_no_doubt_and_a_large_one_is_a_stream():
    assert hypergeometric_upper(7, 50, 50, 0.05) == hypergeometric_lower(7, 50, 50, 0.05) == 7 / 50
    assert hypergeometric_upper(4, 100, 1_000_000, 0.025) == pytest.approx(binomial_upper(4, 100, 0.025), abs=1e-4)
    assert hypergeometric_upper(4, 100, 300, 0.025) < binomial_upper(4, 100, 0.025)
    assert binomial_upper(5, 5, 0.05) == 1.0
    assert binomial_cdf(3, 3, 0.2) == 1.0


@unhurried
@given(st.integers(0, 40), st.integers(0, 40), st.one_of(st.none(), st.integers(0, 5000)), st.integers(1, 20))
def test_a_certificate_holds_what_was_seen(k, others, extra, look):
    n = k + others
    outcome = certify(k, n, None if extra is None else n + extra, look, 0.1, 0.05)
    assert 0.0 <= outcome.lower <= (k / n if n else 1.0) <= outcome.upper <= 1.0 or n == 0
    assert outcome.alpha == spent_alpha(look, 0.05)
    assert outcome.is_certified == (outcome.upper <= 0.1)
    assert outcome.confidence == 0.95


def test_an_empty_audit_certifies_nothing():
    outcome = certify(0, 0, None, 1, 0.1, 0.05)
    assert (outcome.lower, outcome.upper, outcome.is_certified) == (0.0, 1.0, False)


# --- repeated looks -------------------------------------------------------------------------------------------------


def test_the_looks_together_spend_no_more_than_alpha():
    assert sum(spent_alpha(look, 0.05) for look in range(1, 10_000)) == pytest.approx(0.05, abs=1e-5)


def test_alpha_spending_certifies_falsely_in_under_five_percent_where_naive_testing_does_not():
    # ten students, each just above ε, on an audit of 100 from a pool of 2,000: every certificate would be false
    population, n, looks, runs = 2000, 100, 10, 4000
    total = int(0.10 * population) + 1
    passing = {
        (look, k): certify(k, n, population, look, 0.10, 0.05).is_certified
        for look in range(1, looks + 1)
        for k in range(n + 1)
    }
    naive = {k: hypergeometric_upper(k, n, population, 0.05) <= 0.10 for k in range(n + 1)}
    draws = np.random.default_rng(7).hypergeometric(total, population - total, n, size=(runs, looks))
    spent = sum(any(passing[look, int(k)] for look, k in enumerate(run, start=1)) for run in draws) / runs
    repeated = sum(any(naive[int(k)] for k in run) for run in draws) / runs
    assert spent < 0.05 < repeated


# --- the audit ------------------------------------------------------------------------------------------------------


def test_the_audit_is_a_uniform_draw_whatever_the_order():
    questions = [Question(f"q{i:02d}", "?") for i in range(12)]
    counts = Counter()
    for seed in range(2000):
        audit = draw_audit(questions, 3, np.random.default_rng(seed))
        assert len({question.id for question in audit}) == 3
        counts[audit[0].id] += 1  # the first alone is uniform too
    assert all(count == pytest.approx(2000 / 12, abs=50) for count in counts.values())
    assert len(draw_audit(questions, 50, np.random.default_rng(0))) == 12
    assert draw_audit(questions, 0, np.random.default_rng(0)) == []


# --- the reasons ----------------------------------------------------------------------------------------------------


def outcomes(accuracies=(), disagreements=None, kappas=None, n=100):
    rounds = max(len(part) for part in (accuracies, disagreements or (), kappas or ()))
    return [
        RoundOutcome(
            number,
            accuracies[number] if accuracies else None,
            certify(disagreements[number], n, None, number, 0.1, 0.05) if disagreements and number else None,
            kappas[number] if kappas else None,
        )
        for number in range(rounds)
    ]


def test_a_rising_curve_is_no_reason_to_stop():
    config = StoppingConfig()
    assert should_stop([], config) is None
    history = outcomes((0.4, 0.5, 0.6, 0.7, 0.8), [0, 50, 40, 30, 20], (None, 0.5, 0.6, 0.7, 0.8))
    for rounds in range(1, len(history) + 1):
        assert should_stop(history[:rounds], config) is None


def test_a_certificate_stops_unless_it_is_told_not_to():
    history = outcomes((0.4, 0.9), [0, 4])
    assert should_stop(history, StoppingConfig()) == "certified"
    assert should_stop(history, StoppingConfig(stop_when_certified=False)) is None
    assert should_stop(outcomes((0.4, 0.9), [0, 5]), StoppingConfig()) is None


def test_a_flat_curve_stops_after_its_rounds():
    config = StoppingConfig(flat_rounds=3, min_gain=0.005)
    assert should_stop(outcomes((0.5, 0.7, 0.7, 0.702)), config) is None
    assert should_stop(outcomes((0.5, 0.7, 0.7, 0.702, 0.69)), config) == "flat"
    assert should_stop(outcomes((0.5, 0.7, 0.7, 0.702, 0.705)), config) is None
    assert should_stop(outcomes((0.7, 0.7, 0.7)), config) is None  # too early to tell


def test_a_flat_curve_far_from_the_teacher_is_the_limit():
    history = outcomes((0.5, 0.7, 0.7, 0.7, 0.7), [0, 40, 40, 40, 40])
    assert should_stop(history, StoppingConfig()) == "limit_reached"
    near = outcomes((0.5, 0.7, 0.7, 0.7, 0.7), [0, 12, 12, 12, 12])
    assert should_stop(near, StoppingConfig()) == "flat"  # 12 of 100 may still be under ε


def test_without_labels_the_curve_is_the_agreement():
    history = outcomes((), [0, 40, 40, 40, 40])
    assert should_stop(history, StoppingConfig()) == "limit_reached"
    assert should_stop(outcomes((), [0, 40, 30, 20, 15]), StoppingConfig()) is None


def test_successive_students_that_answer_alike_have_converged():
    accuracies = (0.5, 0.6, 0.7, 0.8, 0.9)
    config = StoppingConfig(kappa=0.99, kappa_rounds=3)
    assert should_stop(outcomes(accuracies, None, (None, 0.5, 0.99, 1.0, 0.995)), config) == "converged"
    assert should_stop(outcomes(accuracies, None, (None, 0.5, 0.99, 0.98, 0.995)), config) is None
    assert should_stop(outcomes(accuracies[:3], None, (None, 0.99, 0.99)), config) is None


def test_bounds_fall_with_more_evidence():
    assert all(a > b for a, b in pairwise(binomial_upper(2, n, 0.05) for n in range(5, 60, 5)))
    assert all(a < b for a, b in pairwise(binomial_upper(k, 50, 0.05) for k in range(10)))
