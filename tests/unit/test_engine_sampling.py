import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgeelad.engine.sampling import (
    MAX_TOP,
    SamplingParams,
    choose,
    choose_tokens,
    make_seed,
    normalizers_and_entropies,
    top_logits,
    uniforms,
)

unhurried = settings(deadline=None)
# few distinct values, so that ties are everywhere
tied_logits = arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 90)), elements=st.integers(-3, 3))


def seeds_of(*values):
    return np.array(values, dtype=np.uint64)


def test_uniform_numbers_are_splitmix64():
    # the generator's published first outputs for seed 0 (Vigna, splitmix64.c), shifted to 53 bits
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC]
    found = uniforms(seeds_of(0, 0, 0, 0), np.arange(4))
    assert found.tolist() == [(value >> 11) * 2.0**-53 for value in published]


def test_uniform_numbers_are_uniform_over_seeds_and_positions():
    seeds = seeds_of(*(make_seed(0, f"q{index}", 0, 0) for index in range(4000)))
    for position in (0, 1, 100):
        numbers = uniforms(seeds, np.full(4000, position))
        counts, _ = np.histogram(numbers, bins=10, range=(0, 1))
        assert ((counts - 400.0) ** 2 / 400).sum() < 27.9  # chi-squared with 9 degrees of freedom, 0.1 %
        assert numbers.min() >= 0.0
        assert numbers.max() < 1.0


def test_seeds_are_stable_and_their_own():
    assert make_seed(0, "q", 0, 0) == 17086314769432930058  # written into runs: it must not change
    parts = [
        (run, id_, prefix, branch) for run in (0, 1) for id_ in ("a", "b") for prefix in (0, 1) for branch in (0, 1)
    ]
    assert len({make_seed(*part) for part in parts}) == len(parts)
    assert make_seed(0, "\ud800", 0, 0) != make_seed(0, "?", 0, 0)  # an id that is no Unicode text has a seed too


@unhurried
@given(tied_logits, st.integers(1, MAX_TOP))
def test_top_logits_are_the_largest_ties_by_id(logits, num_top):
    values, ids = top_logits(logits, num_top)
    for row, row_values, row_ids in zip(logits, values, ids, strict=True):
        expected = sorted(range(len(row)), key=lambda id_: (-row[id_], id_))[:num_top]
        assert row_ids.tolist() == expected
        assert row_values.tolist() == row[expected].tolist()


@pytest.mark.parametrize("num_tokens", [2 * 64 * 3, 1000, 64 * 200, 64 * 200 + 63])
@pytest.mark.parametrize("num_values", [2, 40, 10**6])
def test_large_vocabularies_are_searched_in_blocks_with_the_same_outcome(num_tokens, num_values):
    rng = np.random.default_rng(num_tokens)
    logits = rng.integers(num_values, size=(6, num_tokens)).astype(np.float32)
    logits[:, ::7] = -np.inf
    for num_top in (2, 3, MAX_TOP):
        values, ids = top_logits(logits, num_top)
        expected = np.argsort(-logits, axis=1, kind="stable")[:, :num_top]
        assert (ids == expected).all()
        assert (values == np.take_along_axis(logits, expected, axis=1)).all()


@pytest.mark.parametrize("num_nan", [1, 70, 1000])
def test_logits_that_are_no_numbers_have_no_probability(num_nan):
    logits = np.zeros((2, 1000), dtype=np.float32)
    logits[0, :num_nan] = np.nan
    for params in (SamplingParams(1), SamplingParams(1, 0.7)):
        chosen = choose_tokens(logits, params, seeds_of(1, 2), np.zeros(2, dtype=np.int64))
        assert np.isnan(chosen.logprobs).tolist() == [True, False]


def test_choices_come_with_the_frequencies_of_the_softmax():
    logits = np.array([[2.0, 1.0, 0.0, -1.0]], dtype=np.float32)
    draws = (np.arange(10_000) + 0.5) / 10_000
    for temperature in (0.5, 1.0, 2.0):
        params = SamplingParams(1, temperature)
        columns = choose(np.repeat(logits, len(draws), axis=0), params, draws)
        weights = np.exp(logits[0].astype(np.float64) / temperature)
        shares = np.bincount(columns, minlength=4) / len(draws)
        assert shares == pytest.approx(weights / weights.sum(), abs=2e-4)


def test_top_k_and_top_p_leave_out_the_tail():
    top = np.log(np.array([[0.5, 0.25, 0.15, 0.1]], dtype=np.float32))
    draws = (np.arange(1000) + 0.5) / 1000
    rows = np.repeat(top, len(draws), axis=0)

    def shares(**options):
        return (np.bincount(choose(rows, SamplingParams(1, 1.0, **options), draws), minlength=4) / 1000).tolist()

    assert shares(top_k=2) == pytest.approx([2 / 3, 1 / 3, 0, 0], abs=2e-3)
    assert shares(top_p=0.7) == pytest.approx([2 / 3, 1 / 3, 0, 0], abs=2e-3)  # 0.5 alone does not reach 0.7
    assert shares(top_p=0.4) == [1, 0, 0, 0]
    assert shares(top_p=1e-9) == [1, 0, 0, 0]  # the likeliest always stays
    assert shares(top_k=3, top_p=0.99) == pytest.approx([5 / 9, 2.5 / 9, 1.5 / 9, 0], abs=2e-3)


@pytest.mark.parametrize("draw", [0.0, np.nextafter(1.0, 0.0)])
def test_the_ends_of_the_unit_interval_choose_a_token_that_is_possible(draw):
    top = np.array([[0.0, -1.0, -200.0, -3000.0]], dtype=np.float32)
    column = choose(top, SamplingParams(1, 1.0, top_p=0.9), np.array([draw]))[0]
    assert column in (0, 1)


def test_sampling_is_among_64_tokens_at_most():
    logits = np.zeros((500, 1000), dtype=np.float32)
    chosen = choose_tokens(logits, SamplingParams(1, 1.0), seeds_of(*range(500)), np.zeros(500, dtype=np.int64))
    assert chosen.tokens.max() == MAX_TOP - 1
    assert len(set(chosen.tokens.tolist())) > 55
    assert chosen.logprobs == pytest.approx(-math.log(1000))  # of the whole distribution, all the same


def test_temperature_zero_takes_the_likeliest_the_lowest_id_of_several():
    logits = np.array([[0.0, 3.0, 3.0], [1.0, 1.0, 1.0]], dtype=np.float32)
    chosen = choose_tokens(logits, SamplingParams(1), seeds_of(1, 2), np.zeros(2, dtype=np.int64))
    assert chosen.tokens.tolist() == [1, 0]
    assert chosen.logprobs == pytest.approx([math.log(math.e**3 / (1 + 2 * math.e**3)), -math.log(3)])


def test_normalizers_and_entropies_worked_by_hand():
    logits = np.array([[0, 0, 0, 0], [1000, 0, 0, 0], [math.log(3), 0, -1e4, -1e4]], dtype=np.float32)
    normalizers, entropies = normalizers_and_entropies(logits)
    assert normalizers == pytest.approx([math.log(4), 1000.0, math.log(4)])
    assert entropies == pytest.approx([math.log(4), 0.0, -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))], abs=1e-7)


def test_normalizers_are_computed_in_float64():
    # 2^17 tokens of equal weight: summed in float32 the error would be far above 1e-9
    logits = np.full((1, 1 << 17), 0.1, dtype=np.float32)
    normalizers, entropies = normalizers_and_entropies(logits)
    assert normalizers[0] == pytest.approx(17 * math.log(2) + float(np.float32(0.1)), abs=1e-12)
    assert entropies[0] == pytest.approx(17 * math.log(2), abs=1e-12)


@unhurried
@given(st.data())
def test_a_row_is_the_same_to_the_last_bit_whatever_its_batch_mates(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    num_rows, vocabulary = data.draw(st.integers(2, 40)), data.draw(st.integers(2, 500))
    logits = rng.normal(size=(num_rows, vocabulary)).astype(np.float32) * 3
    seeds, positions = rng.integers(0, 2**63, num_rows).astype(np.uint64), rng.integers(0, 50, num_rows)
    params = SamplingParams(
        1, data.draw(st.sampled_from([0.0, 0.7, 1.3])), top_p=data.draw(st.sampled_from([0.9, 1.0]))
    )
    together = choose_tokens(logits, params, seeds, positions)
    for row in range(num_rows):
        own = slice(row, row + 1)
        alone = choose_tokens(logits[own], params, seeds[own], positions[own])
        assert alone.tokens[0] == together.tokens[row]
        assert alone.logprobs[0] == together.logprobs[row]
        assert alone.entropies[0] == together.entropies[row]
