"""The statistics that the benchmarks report, against known values and against scipy's own tests."""

import sys
from pathlib import Path

import pytest
from scipy import stats

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from paired import compare_all, holm, signed_rank
from teacher_arms import ARMS, ArmResult, area, contrasts, show

sys.path.pop(0)

PAIRS = (0.021, -0.004, 0.033, 0.012, 0.026, 0.008)


def test_a_comparison_is_the_paired_t_test() -> None:
    comparison = compare_all({"a - b": PAIRS})["a - b"]
    expected = stats.ttest_1samp(PAIRS, 0.0)
    low, high = expected.confidence_interval(0.95)
    assert comparison.mean == pytest.approx(sum(PAIRS) / 6)
    assert (comparison.low, comparison.high) == (pytest.approx(low), pytest.approx(high))
    assert comparison.p_t == comparison.p_holm == pytest.approx(expected.pvalue)
    assert comparison.p_wilcoxon == stats.wilcoxon(PAIRS, method="exact").pvalue


def test_pairs_that_do_not_differ() -> None:
    same = compare_all({"same": (0.0,) * 6, "shifted": (0.5,) * 6})
    assert (same["same"].p_t, same["same"].p_wilcoxon) == (1.0, 1.0)
    assert (same["shifted"].p_t, same["shifted"].p_wilcoxon) == (0.0, 1 / 32)
    assert signed_rank((0.0, 1.0, 2.0)) == 0.5  # of two pairs that differ, both up: 2 of 4 patterns are as extreme


def test_ties_share_their_rank() -> None:
    # ranks 1.5, 1.5, 3 with signs -, +, +: sums of the positive ones as far from 3 as 4.5 are 0, 1.5, 1.5, 4.5, 4.5, 6
    assert signed_rank((-1.0, 1.0, 2.0)) == 6 / 8


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_the_area_is_the_mean_accuracy_up_to_an_amount() -> None:
    assert area([0, 100, 200], [0.4, 0.6, 0.8], 150) == pytest.approx((0.5 * 100 + 0.65 * 50) / 150)
    assert area([0, 100], [0.4, 0.6], 200) == pytest.approx((0.5 * 100 + 0.6 * 100) / 200)


def _result(seed: int, strategy: str, mode: str) -> ArmResult:
    better = 0.1 * (strategy == "elad") + 0.01 * seed
    tokens = 200 if mode == "rationale" else 300
    return ArmResult(
        seed=seed,
        strategy=strategy,
        mode=mode,
        accuracy=[0.4, 0.5 + better, 0.6 + better],
        annotated=[0, 10, 20],
        tokens=[0, tokens // 2, tokens],
        by_prompt={"answer": (100, 1, 1)} if mode == "revise" else {},
        rungs={},
    )


def test_arms_are_compared_pair_by_pair(capsys: pytest.CaptureFixture[str]) -> None:
    figures = show([_result(seed, *arm) for seed in range(6) for arm in ARMS])
    final = figures["comparisons"]["final accuracy"]
    assert set(final) == {
        "elad - random, rationale",
        "elad - random, revise",
        "revise - rationale, random",
        "revise - rationale, elad",
    }
    assert final["elad - random, revise"]["mean"] == pytest.approx(0.1)
    assert final["revise - rationale, elad"]["pairs"] == (0.0,) * 6
    # to the 200 tokens that every arm spent, revision has come two thirds of its way
    assert figures["comparisons"]["area, tokens"]["revise - rationale, random"]["mean"] < 0.0
    assert figures["arms"]["tokens each"]["random/revise"] == [15.0] * 6
    assert figures["arms"]["without answers"]["random/revise"] == [10.0] * 6
    assert "elad - random, revise" in capsys.readouterr().out


def test_arms_that_differ_in_two_things_are_not_compared() -> None:
    risk, full, auto = ("risk", "rationale"), ("random", "rationale"), ("risk", "auto")
    assert contrasts([full, risk, auto]) == {
        "risk - random, rationale": (risk, full),
        "auto - rationale, risk": (auto, risk),
    }
