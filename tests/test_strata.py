"""The mean over strata, by hand, by every resample of a small table, and against a mixed model."""

import itertools
import math

import numpy as np
import pytest
from statsmodels.regression.mixed_linear_model import MixedLM

from gapbench.analysis import stats
from gapbench.analysis.strata import stratified_interval
from gapbench.keys import generator_for


def array(*values: float) -> np.ndarray:
    return np.array(values, dtype=float)


def made_up(sizes: tuple[int, ...], seed: int = 1) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Arms that correlate over seeds; stratum k has the true difference 0.3·k, which varies by 0.2 + 0.1·k."""
    generator = generator_for(seed, "bootstrap")
    reference = [generator.normal(10 + 2 * k, 1, n) for k, n in enumerate(sizes)]
    noise = [generator.normal(0.3 * k, 0.2 + 0.1 * k, n) for k, n in enumerate(sizes)]
    return reference, [r + d for r, d in zip(reference, noise, strict=True)]


def test_strata_count_alike_whatever_their_number_of_pairs() -> None:
    # differences 1, 1, 1, 1 and 4, 6: (1 + 5)/2 = 3, and not (4 + 10)/6
    found = stratified_interval([np.zeros(4), array(10, 20)], [np.ones(4), array(14, 26)])
    # of the second stratum one pair is drawn, 4 or 6: (1 + 4)/2 and (1 + 6)/2
    assert found == (3.0, 2.5, 3.5, 6, "stratified percentile")


def test_a_ratio_is_the_geometric_mean_of_the_ratios_of_means() -> None:
    # (30 + 50)/(10 + 30) = 2 and (4 + 4)/(0.5 + 0.5) = 8: √(2·8) = 4
    reference, treatment = [array(10, 30), array(0.5, 0.5)], [array(30, 50), array(4, 4)]
    found = stratified_interval(reference, treatment, ratio=True)
    # of the first stratum one pair is drawn, 3 or 5/3: √(3·8) and √(5/3·8)
    assert found[:4] == pytest.approx((4.0, math.sqrt(40 / 3), math.sqrt(24), 4), rel=1e-12)
    inverse = stratified_interval(treatment, reference, ratio=True)
    assert inverse[:3] == pytest.approx((1 / 4, 1 / found.high, 1 / found.low), rel=1e-12)


def test_the_interval_is_that_of_every_resample() -> None:
    strata = [array(0, 1, 2), array(0, 5, 7, 20)]
    means = [[np.mean(draw) for draw in itertools.product(s, repeat=len(s) - 1)] for s in strata]
    every = [(a + b) / 2 for a, b in itertools.product(*means)]
    low, high = np.quantile(every, [0.025, 0.975])
    found = stratified_interval([np.zeros(3), np.zeros(4)], strata)
    assert found.estimate == (1 + 8) / 2
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.25)  # the means move in steps of 0.25 and more


def test_the_variance_of_the_resamples_is_the_unbiased_one(monkeypatch: pytest.MonkeyPatch) -> None:
    # differences -1, 0, 1 in each of 100 strata: s² = 1, so the standard error is √(1/3)/10 = 0.0577; drawing three of
    # three would make it 0.0471. The mean of 100 strata is normal
    monkeypatch.setattr(stats, "RESAMPLES", 4999)
    found = stratified_interval([np.zeros(3)] * 100, [array(-1, 0, 1)] * 100)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * 0.0577, rel=0.05)


def test_a_balanced_table_gets_the_interval_of_a_mixed_model() -> None:
    # value = stratum + arm + stratum × arm + pair (random) + noise, by REML; strata in sum coding, so that the arm's
    # coefficient is the equally weighted mean of its effects. With ten pairs in each stratum its standard error is that
    # of the bootstrap. The tolerance is for the ends, which are drawn, and for resamples that are not quite normal
    strata, n = 5, 10
    reference, treatment = made_up((n,) * strata)
    stratum = np.repeat(np.arange(strata), n)
    coded = np.vstack([np.eye(strata - 1), -np.ones(strata - 1)])[stratum]
    halves = [
        np.column_stack([np.ones(n * strata), coded, arm * np.ones(n * strata), arm * coded]) for arm in (-0.5, 0.5)
    ]
    values = np.concatenate([*reference, *treatment])
    fit = MixedLM(values, np.vstack(halves), groups=np.tile(np.arange(n * strata), 2)).fit(reml=True)
    effect, error = fit.fe_params[strata], fit.bse_fe[strata]
    found = stratified_interval(reference, treatment)
    assert found.estimate == pytest.approx(effect, rel=1e-6)
    assert (found.low, found.high) == pytest.approx((effect - 1.96 * error, effect + 1.96 * error), abs=0.1 * error)


def test_the_pairs_are_kept_together() -> None:
    reference, treatment = made_up((10, 10, 10))
    paired = stratified_interval(reference, treatment)
    torn = stratified_interval(reference, [np.roll(values, 1) for values in treatment])
    assert torn.estimate == pytest.approx(paired.estimate, rel=1e-12)
    assert torn.high - torn.low > 2 * (paired.high - paired.low)


def test_the_strata_are_not_drawn() -> None:
    # effects 0 and 100, no spread inside: an interval over strata would hold both
    found = stratified_interval([np.zeros(3), np.zeros(3)], [np.zeros(3), np.full(3, 100.0)])
    assert found[:3] == (50.0, 50.0, 50.0)


def test_the_interval_holds_the_truth_about_as_often_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "RESAMPLES", 499)
    tables = [made_up((5, 8, 12, 5), seed=seed) for seed in range(300)]
    inside = [low <= 0.45 <= high for _, low, high, *_ in (stratified_interval(*table) for table in tables)]
    assert 270 <= sum(inside) <= 297  # 285 expected, a few less for few pairs; 99.9 % of binomials lie in this range


def test_strata_that_cannot_be_resampled_have_no_interval() -> None:
    one = stratified_interval([array(1, 2), array(3)], [array(2, 3), array(7)])
    assert (one.estimate, one.n, one.method) == (2.5, 3, "none")
    assert np.isnan([one.low, one.high]).all()
    for empty in (([], []), ([array(1, 2), array()], [array(1, 2), array()])):
        assert np.isnan(stratified_interval(*empty)[:3]).all()
    # means 1 and 2, but one of the two pairs that may be drawn has a reference of zero
    unbounded = stratified_interval([array(0, 2)], [array(1, 3)], ratio=True)
    assert unbounded.estimate == pytest.approx(2.0)
    assert (unbounded.method, np.isnan([unbounded.low, unbounded.high]).all()) == ("none", True)


def test_arms_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="same shape"):
        stratified_interval([array(1, 2)], [array(1, 2, 3)])
    with pytest.raises(ValueError, match="shorter"):
        stratified_interval([array(1, 2), array(3, 4)], [array(1, 2)])
    with pytest.raises(ValueError, match="positive"):
        stratified_interval([array(-1, 1)], [array(1, 2)], ratio=True)


def test_strata_of_one_group_are_drawn_with_the_same_seeds() -> None:
    # two strata with differences 0, 2 and 2, 0: whichever seed is drawn, the mean over the strata is 1
    found = stratified_interval([np.zeros((2, 2))], [array(0, 2, 2, 0).reshape(2, 2)])
    assert found == (1.0, 1.0, 1.0, 4, "stratified percentile")
    apart = stratified_interval([np.zeros(2), np.zeros(2)], [array(0, 2), array(2, 0)])
    assert apart[:3] == (1.0, 0.0, 2.0)
    # strata that are copies of one another say no more than one of them
    reference, treatment = made_up((12,))
    alone = stratified_interval(reference, treatment)
    copied = stratified_interval([np.tile(reference[0], (5, 1))], [np.tile(treatment[0], (5, 1))])
    assert copied[:3] == pytest.approx(alone[:3], rel=1e-12)


def test_a_missing_pair_leaves_the_means_of_its_own_stratum_alone() -> None:
    # differences 1, 3, 5 and 10, -, 20: (3 + 15)/2 of five pairs
    nan = float("nan")
    found = stratified_interval([np.zeros((2, 3))], [np.array([[1, 3, 5], [10, nan, 20]])])
    assert (found.estimate, found.n) == (9.0, 5)
    # two of three seeds are drawn, so that some resample holds the missing one alone
    assert (found.method, np.isnan([found.low, found.high]).all()) == ("none", True)
    many = np.array([np.arange(10.0), [*np.arange(9.0), nan]])
    assert np.isfinite(stratified_interval([np.zeros((2, 10))], [many])[:3]).all()
