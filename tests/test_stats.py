"""Intervals, exact tests, multiplicity and survival, against hand-worked examples, brute force and SciPy."""

import itertools
from typing import Any

import numpy as np
import pytest
from scipy import stats as scipy_stats

from gapbench.analysis import stats
from gapbench.keys import generator_for

SKEWED = np.array([0.0, 1.0, 2.0, 3.0, 10.0])


def array(*values: float) -> np.ndarray:
    return np.array(values, dtype=float)


# Five runs end at 10, 20, 20 (censored), 30 and 40 (censored):
#   at 10 five are at risk, one arrives    4/5             = 0.8
#   at 20 four are at risk, one arrives    0.8 · 3/4       = 0.6
#   at 30 two are at risk, one arrives     0.6 · 1/2       = 0.3
ENDS, REACHED = array(10, 20, 20, 30, 40), np.array([True, True, False, True, False])


def test_kaplan_meier_is_the_product_worked_out_by_hand() -> None:
    curve = stats.kaplan_meier(ENDS, REACHED)
    np.testing.assert_array_equal(curve.time, [0, 10, 20, 30])
    np.testing.assert_allclose(curve.surviving, [1, 0.8, 0.6, 0.3], rtol=1e-14)


def test_kaplan_meier_does_not_depend_on_the_order_of_the_runs() -> None:
    order = [3, 0, 4, 2, 1]
    shuffled = stats.kaplan_meier(ENDS[order], REACHED[order])
    np.testing.assert_array_equal(shuffled.surviving, stats.kaplan_meier(ENDS, REACHED).surviving)


@pytest.mark.parametrize(
    ("horizon", "area"),
    [
        (40.0, 27.0),  # 10·1 + 10·0.8 + 10·0.6 + 10·0.3
        (25.0, 21.0),  # 10·1 + 10·0.8 + 5·0.6: what comes after the horizon does not count
        (30.0, 24.0),
        (5.0, 5.0),
    ],
)
def test_the_restricted_mean_is_the_area_under_the_curve(horizon: float, area: float) -> None:
    assert stats.restricted_mean(stats.kaplan_meier(ENDS, REACHED), horizon) == pytest.approx(area, rel=1e-14)


def test_the_restricted_mean_is_the_mean_of_the_times_when_only_the_horizon_censors() -> None:
    times, reached = array(10, 20, 20, 30, 40), np.array([True, True, True, True, False])
    # S = 1, 0.8, 0.4, 0.2: 10 + 8 + 4 + 2 = 24 = (10 + 20 + 20 + 30 + 40) / 5
    assert stats.restricted_mean(stats.kaplan_meier(times, reached), 40.0) == pytest.approx(24.0, rel=1e-14)


def test_runs_that_never_arrive_all_survive_to_the_horizon() -> None:
    curve = stats.kaplan_meier(array(40, 40, 40), np.array([False, False, False]))
    assert (curve.time.tolist(), curve.surviving.tolist()) == ([0.0], [1.0])
    assert stats.restricted_mean(curve, 40.0) == 40.0


def test_holm_steps_down_and_never_falls() -> None:
    # sorted 0.01, 0.03, 0.04: 3·0.01 = 0.03, 2·0.03 = 0.06, 1·0.04 = 0.04 but not below 0.06
    np.testing.assert_allclose(stats.holm(array(0.01, 0.04, 0.03)), [0.03, 0.06, 0.06], rtol=1e-14)
    np.testing.assert_array_equal(stats.holm(array(0.6, 0.7)), [1.0, 1.0])


def test_holm_passes_nan_through_and_does_not_count_it() -> None:
    adjusted = stats.holm(array(0.01, np.nan, 0.04, 0.03))
    np.testing.assert_allclose(adjusted, [0.03, np.nan, 0.06, 0.06], rtol=1e-14)
    assert np.isnan(stats.holm(array(np.nan))).all()
    assert len(stats.holm(array())) == 0


def brute_force_p(differences: np.ndarray) -> float:
    """The share of sign patterns whose sum is at least as far from zero."""
    signs = np.array(list(itertools.product((1, -1), repeat=len(differences))))
    sums = np.abs(signs @ np.abs(differences))
    return float(np.mean(sums >= abs(differences.sum()) - 1e-12))


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        (array(1, 2, 4), 2 / 8),  # sums of the eight patterns: ±7, ±5, ±3, ±1
        (array(1, -2, 4), 6 / 8),  # 3: seven, five and three are as far, on both sides
        (array(1, 2, 0), 4 / 8),  # ±3 twice each, ±1 twice each
        (array(0, 0, 0), 1.0),
        (array(5), 1.0),  # both of its patterns are as extreme
        (array(*range(1, 6)), 2 / 2**5),  # the smallest possible: 0.0625
        (array(*range(1, 11)), 2 / 2**10),  # and 0.002
    ],
)
def test_the_sign_flip_p_is_exact(differences: np.ndarray, p: float) -> None:
    assert stats.sign_flip_p(differences) == pytest.approx(p, rel=1e-12)
    assert stats.sign_flip_p(-differences) == pytest.approx(p, rel=1e-12)


def test_the_sign_flip_p_agrees_with_brute_force_on_a_table_with_rounding() -> None:
    differences = np.round(generator_for(5, "bootstrap").normal(0.2, 0.5, size=9), 2)  # sums tie up to rounding
    assert 0.02 < brute_force_p(differences) < 0.98
    assert stats.sign_flip_p(differences) == pytest.approx(brute_force_p(differences), rel=1e-12)


def test_beyond_the_exact_number_of_pairs_the_drawn_p_is_near_the_exact_one(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = generator_for(6, "bootstrap").normal(0.2, 0.5, size=12)
    exact = stats.sign_flip_p(differences)
    monkeypatch.setattr(stats, "EXACT_PAIRS", 11)
    monkeypatch.setattr(stats, "DRAWN_PATTERNS", 2**11)  # below 2^12, where SciPy would enumerate as well
    drawn = stats.sign_flip_p(differences)
    assert drawn != exact
    assert drawn == pytest.approx(exact, abs=0.04)  # four standard errors of 2^11 draws or more: 4·√(p(1-p)/2048)


def test_wilcoxon_is_scipys_exact_test_where_nothing_ties() -> None:
    differences = array(0.3, -0.1, 0.7, 1.1, -0.4, 0.9, 1.3, 0.2)
    assert stats.wilcoxon_p(differences) == scipy_stats.wilcoxon(differences, method="exact").pvalue
    assert stats.wilcoxon_p(array(1, 2, 3)) == 2 / 8  # the signed ranks are all positive, or all negative


def test_wilcoxon_splits_zeros_and_finds_nothing_in_equal_pairs() -> None:
    assert stats.wilcoxon_p(array(0, 0, 0)) == 1.0
    balanced = stats.wilcoxon_p(array(0, 1, -1, 2, -2))
    assert balanced == pytest.approx(1.0)
    assert stats.wilcoxon_p(array(0, 1, 1, 2, 2, 3)) < 0.1


def exact_bca(values: np.ndarray) -> tuple[float, float]:
    """Efron's BCa interval of the mean, from every one of the n^n resamples instead of drawn ones, level expanded."""
    n, estimate = len(values), values.mean()
    means = np.array([np.mean(draw) for draw in itertools.product(values, repeat=n)])
    z0 = scipy_stats.norm.ppf((np.mean(means < estimate) + np.mean(means <= estimate)) / 2)
    left_out = np.array([np.delete(values, i).mean() for i in range(n)])
    spread = left_out.mean() - left_out
    a = (spread**3).sum() / (6 * (spread**2).sum() ** 1.5)
    t = np.sqrt(n / (n - 1)) * scipy_stats.t.ppf(0.975, n - 1)
    z = z0 + np.array([-t, t])
    low, high = np.quantile(means, scipy_stats.norm.cdf(z0 + z / (1 - a * z)))
    return float(low), float(high)


def test_the_interval_of_a_mean_is_efrons_bca() -> None:
    interval = stats.mean_interval(SKEWED)
    low, high = exact_bca(SKEWED)
    assert (interval.estimate, interval.n, interval.method) == (3.2, 5, "BCa")
    assert interval.low == pytest.approx(low, abs=0.2)  # the means move in steps of 0.2
    assert interval.high == pytest.approx(high, abs=0.2)
    percentile_high = np.quantile([np.mean(draw) for draw in itertools.product(SKEWED, repeat=5)], 0.975)
    assert interval.high > percentile_high + 0.2  # the correction for skewness is there


def test_the_interval_is_what_scipy_gives_for_the_named_stream() -> None:
    ours = stats.difference_interval(np.ones(5), SKEWED + 1)
    theirs = scipy_stats.bootstrap(
        (SKEWED,),
        np.mean,
        n_resamples=stats.RESAMPLES,
        method="BCa",
        confidence_level=stats.expanded_level(5),
        rng=generator_for(0, "bootstrap"),
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=1e-12)


def test_the_interval_of_symmetric_pairs_is_symmetric() -> None:
    interval = stats.mean_interval(array(*range(-7, 8)) + 100)
    assert interval.estimate == 100
    assert 100 - interval.low == pytest.approx(interval.high - 100, abs=0.1)
    # the standard error of the mean of a resample: √(Σ i² / 15) / √15 = √(280 / 15 / 15) = 1.116; √(15/14)·2.145 = 2.22
    assert interval.high - interval.low == pytest.approx(2 * 2.22 * 1.116, rel=0.04)


def test_the_expanded_level_is_the_one_worked_out_by_hand() -> None:
    # n = 10: t = 2.2622, √(10/9)·2.2622 = 2.3846, Φ(-2.3846) = 0.00855
    assert stats.expanded_level(10) == pytest.approx(1 - 2 * 0.00855, abs=1e-5)
    assert stats.expanded_level(10**6) == pytest.approx(0.95, abs=1e-5)


def test_intervals_hold_the_truth_about_as_often_as_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "RESAMPLES", 1999)
    for draw, truth in ((generator_for(1, "bootstrap").normal, 0.0), (generator_for(1, "bootstrap").gamma, 1.0)):
        samples = draw(1.0, size=(400, 10)) - (1.0 if truth == 0.0 else 0.0)
        inside = [interval.low <= truth <= interval.high for interval in map(stats.mean_interval, samples)]
        assert 365 <= sum(inside) <= 394  # 380 expected; at a plain 95 % BCa holds it in 360 and 347


def test_equal_pairs_fall_back_to_the_percentile_interval_and_say_so() -> None:
    interval = stats.difference_interval(array(1, 2, 3, 4), array(3, 4, 5, 6))
    assert interval == (2.0, 2.0, 2.0, 4, "percentile")


@pytest.mark.parametrize("interval", [stats.mean_interval, stats.median_interval])
def test_one_value_has_no_interval(interval: Any) -> None:
    found = interval(array(4))
    assert (found.estimate, found.n, found.method) == (4.0, 1, "none")
    assert np.isnan([found.low, found.high]).all()


def test_the_bootstrap_neither_reads_nor_moves_numpys_global_state() -> None:
    found = []
    for seed in (1, 2):
        np.random.seed(seed)  # noqa: NPY002 (the state under test)
        before = np.random.get_state(legacy=True)[1].copy()  # noqa: NPY002
        found.append((stats.mean_interval(SKEWED), stats.median_interval(SKEWED), stats.sign_flip_p(SKEWED)))
        np.testing.assert_array_equal(before, np.random.get_state(legacy=True)[1])  # noqa: NPY002
    assert found[0] == found[1]


def test_the_ratio_resamples_pairs() -> None:
    reference = array(10, 20, 40, 80, 160)
    paired = stats.ratio_interval(reference, 2 * reference)
    assert paired[:3] == pytest.approx((2.0, 2.0, 2.0), rel=1e-12)
    broken = stats.ratio_interval(reference, 2 * reference[[3, 4, 0, 1, 2]])  # the same means, the pairs torn apart
    assert broken.estimate == pytest.approx(2.0, rel=1e-12)
    assert broken.high - broken.low > 1


def test_the_ratio_is_that_of_the_means_and_not_the_mean_of_ratios() -> None:
    # (30 + 10) / (10 + 10) = 2, while (3 + 1) / 2 is the same; with unequal references they differ:
    # (30 + 40) / (10 + 40) = 1.4, and (3 + 1) / 2 = 2
    assert stats.ratio_interval(array(10, 40), array(30, 40)).estimate == pytest.approx(1.4, rel=1e-14)


def test_the_probability_of_the_lower_arm_counts_ties_half() -> None:
    # lower in one pair of four, equal in two: 1/4 + 1/2 · 2/4
    assert stats.probability_lower(array(1, 2, 3, 4), array(0, 2, 3, 5)) == 0.5
    assert stats.probability_lower(array(1, 2), array(0, 1)) == 1.0


def test_the_wilson_interval_is_the_one_worked_out_by_hand() -> None:
    # lower in 2 pairs of 5, equal in 1: p = 2.5/5 = 0.5; with z² = 3.8415 the centre stays at 0.5 and the half width is
    # z/(1 + z²/5)·√(0.25/5 + z²/100) = 1.9600/1.7683·√(0.05 + 0.038415) = 0.3296
    found = stats.probability_interval(array(1, 2, 3, 4, 5), array(0, 1, 3, 5, 6))
    assert (found.estimate, found.n, found.method) == (0.5, 5, "Wilson")
    assert (found.low, found.high) == pytest.approx((0.5 - 0.3296, 0.5 + 0.3296), abs=1e-4)


def test_the_wilson_interval_is_scipys_where_nothing_ties() -> None:
    treatment = array(0, 0, 0, 9, 0, 9, 0, 0, 0, 0)
    theirs = scipy_stats.binomtest(8, 10).proportion_ci(method="wilson")
    found = stats.probability_interval(np.ones(10), treatment)
    assert found[:3] == pytest.approx((0.8, theirs.low, theirs.high), rel=1e-9)


def test_an_arm_that_wins_every_pair_is_not_certain_to_win_the_next() -> None:
    # z²/(10 + z²) = 3.8415/13.8415 = 0.2775
    won = stats.probability_interval(np.ones(10), np.zeros(10))
    assert won[:3] == pytest.approx((1.0, 1 - 0.2775, 1.0), abs=1e-4)
    lost = stats.probability_interval(np.zeros(10), np.ones(10))
    assert lost[:3] == pytest.approx((0.0, 0.0, 0.2775), abs=1e-4)
    assert np.isnan(stats.probability_interval(array(), array())[:3]).all()


def test_ties_leave_the_wilson_interval_at_least_as_wide_as_it_says() -> None:
    # lower in 40 %, equal in 40 %, higher in 20 % of pairs: 0.6
    outcomes = generator_for(3, "bootstrap").choice([-1.0, 0.0, 1.0], p=[0.4, 0.4, 0.2], size=(400, 15))
    found = [stats.probability_interval(np.zeros(15), outcome) for outcome in outcomes]
    assert sum(low <= 0.6 <= high for _, low, high, *_ in found) >= 380


def two_one_sided(differences: np.ndarray, margin: float) -> float:
    below, above = (
        scipy_stats.ttest_1samp(differences, bound, alternative=side).pvalue
        for bound, side in ((-margin, "greater"), (margin, "less"))
    )
    return float(max(below, above))


@pytest.mark.parametrize("margin", [0.1, 0.3, 1.0])
def test_equivalence_is_scipys_two_one_sided_tests_and_its_interval_decides(margin: float) -> None:
    outcomes = set()
    for differences in generator_for(4, "bootstrap").normal(0.05, 0.4, size=(40, 12)):
        found = stats.equivalence(differences, margin)
        assert found.p == pytest.approx(two_one_sided(differences, margin), rel=1e-9)
        interval = scipy_stats.ttest_1samp(differences, 0).confidence_interval(0.9)
        assert (found.low, found.high) == pytest.approx(tuple(interval), rel=1e-9)
        assert found.equivalent == (found.p < 0.05) == (-margin < found.low and found.high < margin)
        assert stats.equivalence(-differences, margin).p == pytest.approx(found.p, rel=1e-9)
        outcomes.add(found.equivalent)
    assert outcomes == {0.1: {False}, 0.3: {False, True}, 1.0: {True}}[margin]


def test_equivalence_of_three_pairs_by_hand() -> None:
    # mean 0, s = 1, standard error 1/√3; the 95 % point of t with 2 degrees of freedom is 2.919986:
    # ±2.919986/1.732051 = ±1.685854
    found = stats.equivalence(array(-1, 0, 1), margin=1.7)
    assert (found.low, found.high) == pytest.approx((-1.685854, 1.685854), abs=1e-6)
    assert found.equivalent
    assert not stats.equivalence(array(-1, 0, 1), margin=1.6).equivalent


def test_equivalence_is_wrongly_found_at_the_margin_in_one_of_twenty() -> None:
    samples = generator_for(7, "bootstrap").normal(0.5, 0.3, size=(1000, 10))  # the truth lies on the margin
    found = sum(stats.equivalence(sample, 0.5).equivalent for sample in samples)
    assert 28 <= found <= 74  # 50 ± 3.3·√(1000·0.05·0.95)


def test_without_spread_the_mean_decides_equivalence_and_one_pair_shows_nothing() -> None:
    assert stats.equivalence(array(0.4, 0.4), 0.5) == (0.0, True, 0.4, 0.4)
    assert stats.equivalence(array(-0.5, -0.5), 0.5) == (1.0, False, -0.5, -0.5)  # on the margin is not inside
    one = stats.equivalence(array(0.1), 0.5)
    assert not one.equivalent
    assert np.isnan([one.p, one.low, one.high]).all()


@pytest.mark.parametrize("margin", [0.0, -0.005, float("nan")])
def test_a_margin_that_holds_nothing_is_refused(margin: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        stats.equivalence(SKEWED, margin)


def test_the_correlation_is_pearsons_and_nan_where_an_arm_is_constant() -> None:
    # centred (-1, 0, 1) and (-1, 1, 0): 1 / √(2 · 2)
    assert stats.correlation(array(1, 2, 3), array(1, 3, 2)) == pytest.approx(0.5, rel=1e-12)
    assert np.isnan(stats.correlation(array(1, 1, 1), array(1, 3, 2)))
    assert np.isnan(stats.correlation(array(1, 2, 3), array(2, 2, 2)))
    assert np.isnan(stats.correlation(array(1, 2), array(1, 2)))  # two points are always on a line


def test_the_band_of_a_curve_is_the_percentile_interval_of_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "BAND_RESAMPLES", 400)
    values = generator_for(2, "bootstrap").normal(size=(6, 3)) + array(0, 10, 20)
    low, high = stats.mean_band(values)
    generator = generator_for(0, "bootstrap")
    draws = [generator.integers(6, size=6) for _ in range(400)]
    for t in range(3):
        means = sorted(sum(values[i, t] for i in draw) / 6 for draw in draws)
        # six values: √(6/5)·2.5706 = 2.8159, Φ(-2.8159) = 0.002432, of 399 it is 0.9704: between two order statistics
        assert low[t] == pytest.approx(0.0296 * means[0] + 0.9704 * means[1], abs=1e-4)
        assert high[t] == pytest.approx(0.0296 * means[399] + 0.9704 * means[398], abs=1e-4)
    np.testing.assert_array_equal(stats.mean_band(values[:1]), [values[0], values[0]])


def test_the_interval_of_a_median_is_a_percentile_interval() -> None:
    # of the 27 resamples of (1, 2, 9), 7 have median 1 and 7 have median 9: both tails are fatter than 2.5 %
    assert stats.median_interval(array(1, 2, 9)) == (2.0, 1.0, 9.0, 3, "percentile")


def test_one_disturbed_block_does_not_move_the_median() -> None:
    # 5 or more of 9 draws must hit the one block of 50: 0.14 % of resamples
    assert stats.median_interval(array(1, 1, 1, 1, 50, 1, 1, 1, 1))[:3] == (1.0, 1.0, 1.0)
