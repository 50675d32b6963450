"""Numbers of pairs against statsmodels, numerical integration and simulation; the gain of pairing by hand."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import integrate
from scipy import stats as scipy_stats
from statsmodels.stats.power import TTestPower

from gapbench.analysis import power
from gapbench.analysis.stats import difference_interval, equivalence, sign_flip_p
from gapbench.keys import generator_for


def array(*values: float) -> np.ndarray:
    return np.array(values, dtype=float)


def spread(deviation: float) -> np.ndarray:
    """Three differences with this standard deviation: their own mean must not matter."""
    return array(-deviation, 0, deviation) + 100


def two_sided_power(effect: float, n: int) -> float:
    """That |t| with n - 1 degrees of freedom passes its 97.5 % point when its noncentrality is effect·√n."""
    bound, shift = scipy_stats.t.ppf(0.975, n - 1), effect * math.sqrt(n)
    return float(scipy_stats.nct.sf(bound, n - 1, shift) + scipy_stats.nct.cdf(-bound, n - 1, shift))


def tost_power(effect: float, n: int) -> float:
    """Exact, at no true difference: |mean| < margin - t·s/√n, integrated over s; effect = margin / deviation."""
    t = scipy_stats.t.ppf(0.95, n - 1)

    def density(s: float) -> float:
        inside = 2 * scipy_stats.norm.cdf(effect * math.sqrt(n) - t * s) - 1
        return float(inside * scipy_stats.chi.pdf(s * math.sqrt(n - 1), n - 1) * math.sqrt(n - 1))

    return float(integrate.quad(density, 0, effect * math.sqrt(n) / t)[0])


@pytest.mark.parametrize("effect", [0.1, 0.3, 0.5, 0.8, 1.0])
def test_the_pairs_needed_are_the_fewest_that_reach_the_power(effect: float) -> None:
    n = power.pairs_needed(spread(1 / effect), margin=1.0)
    assert two_sided_power(effect, n) >= 0.8 > two_sided_power(effect, n - 1)
    assert n == math.ceil(TTestPower().solve_power(effect_size=effect, power=0.8, alpha=0.05))


def test_a_textbook_number_of_pairs() -> None:
    # Cohen's medium effect of half a standard deviation, 80 %, two-sided 5 %: 34
    assert power.pairs_needed(spread(2.0), margin=1.0) == 34
    assert power.pairs_needed(spread(2.0), margin=-1.0) == 34
    assert power.pairs_needed(spread(2.0), margin=1.0, power=0.9) == 44


@pytest.mark.parametrize(
    ("effect", "too_many"), [(0.2, 0), (0.5, 0), (0.8, 0), (1.0, 0), (1.1, 0), (1.2, 0), (1.3, 0), (1.4, 1)]
)
def test_the_pairs_for_equivalence_are_the_fewest_by_exact_integration(effect: float, too_many: int) -> None:
    n = power.pairs_for_equivalence(spread(1 / effect), margin=1.0) - too_many
    assert tost_power(effect, n) >= 0.8 > tost_power(effect, n - 1)


def test_as_many_pairs_find_equivalence_in_four_of_five_simulations() -> None:
    n = power.pairs_for_equivalence(spread(1.0), margin=0.8)
    samples = generator_for(8, "bootstrap").normal(0, 1.0, size=(1000, n))
    found = np.mean([equivalence(sample, 0.8).equivalent for sample in samples])
    assert found == pytest.approx(tost_power(0.8, n), abs=0.042)  # 3.3·√(0.8·0.2/1000)


@pytest.mark.parametrize("needed", [power.pairs_needed, power.pairs_for_equivalence])
def test_a_huge_effect_still_needs_what_the_sign_flip_test_needs(needed: Callable[..., int | None]) -> None:
    for deviation in (0.3, 0.1, 1e-3, 1e-9):
        assert needed(spread(deviation), 1.0) == 6
    assert needed(array(2, 2, 2), 1.0) == 6  # no spread
    assert needed(array(2, 2, 2), 1.0, alpha=0.01) == 8  # 2/2^8 = 0.0078
    assert sign_flip_p(np.ones(6)) <= 0.05 < sign_flip_p(np.ones(5))


@pytest.mark.parametrize("needed", [power.pairs_needed, power.pairs_for_equivalence])
def test_no_number_of_pairs_where_it_cannot_be_known(needed: Callable[..., int | None]) -> None:
    assert needed(array(1), 1.0) is None
    assert needed(array(), 1.0) is None
    assert needed(spread(1.0), 0.0) is None
    assert needed(spread(1.0), float("nan")) is None


def test_a_tiny_margin_needs_the_normal_number_of_pairs() -> None:
    # ((1.959964 + 0.841621)/1e-4)² is 785 million, and the t distribution is normal by then
    normal = ((scipy_stats.norm.ppf(0.975) + scipy_stats.norm.ppf(0.8)) / 1e-4) ** 2
    assert power.pairs_needed(spread(1.0), 1e-4) == pytest.approx(normal, rel=1e-4)


def test_the_pairs_to_decide_go_with_the_square_of_the_distance() -> None:
    # the end that faces the margin is 2 from the estimate, the margin 1: 10 · (2/1)² = 40
    assert power.pairs_to_decide(1.0, 5.0, estimate=3.0, margin=2.0, n=10) == 40
    assert power.pairs_to_decide(1.0, 5.0, estimate=3.0, margin=4.0, n=10) == 40
    # a skewed interval: 0.5 below and 2 above; (0.5/1)² · 40 = 10, (2/1)² · 40 = 160
    assert power.pairs_to_decide(2.5, 5.0, estimate=3.0, margin=2.0, n=40) == 10
    assert power.pairs_to_decide(2.5, 5.0, estimate=3.0, margin=4.0, n=40) == 160


def test_what_is_decided_needs_no_more_pairs_and_what_is_not_needs_more() -> None:
    interval = difference_interval(np.zeros(12), generator_for(9, "bootstrap").exponential(size=12))
    for margin in np.linspace(interval.low - 1, interval.high + 1, 41):
        decided = not interval.low <= margin <= interval.high
        assert (power.pairs_to_decide(interval.low, interval.high, interval.estimate, margin, 12) <= 12) == decided


def test_no_number_of_pairs_decides_when_the_estimate_is_on_the_margin() -> None:
    assert power.pairs_to_decide(-1.0, 1.0, estimate=0.0, margin=0.0, n=10) is None
    for numbers in itertools.permutations((float("nan"), 0.0, 1.0, 2.0)):
        assert power.pairs_to_decide(*numbers, n=10) is None
    assert power.pairs_to_decide(-1.0, float("inf"), estimate=0.0, margin=1.0, n=10) is None
    assert power.pairs_to_decide(0.9, 1.1, estimate=1.0, margin=0.0, n=10) == 6  # even if 10·0.1² would round to 1


def test_the_gain_of_pairing_by_hand() -> None:
    # a = 1 2 3 4, b = 1 3 2 4: variances 5/3 and 5/3; a - b = 0 -1 1 0: 2/3. (5/3 + 5/3)/(2/3) = 5
    # a + b = 2 5 5 8: 6, so v = 6/(2/3) = 9 and (1 + 9)/2 = 5 again; r = 0, t = 4.302653 with 2 degrees of freedom:
    # k = 1 + 2·18.51282/2 = 19.51282, √(k² - 1) = 19.48718; v ends at 9·0.025641 = 0.230770 and 9·39 = 351
    gain = power.pairing_gain(array(1, 2, 3, 4), array(1, 3, 2, 4))
    assert (gain.estimate, gain.n, gain.method) == (pytest.approx(5.0), 4, "Pitman-Morgan")
    assert (gain.low, gain.high) == pytest.approx(((1 + 0.230770) / 2, (1 + 351) / 2), rel=1e-4)


def test_the_gain_is_that_of_the_correlation_when_the_arms_vary_alike() -> None:
    a = array(1, 2, 3, 4, 5)
    b = a[[1, 0, 2, 4, 3]]  # the same variance: 1/(1 - r)
    gain = power.pairing_gain(a, b).estimate
    assert gain == pytest.approx(1 / (1 - scipy_stats.pearsonr(a, b).statistic), rel=1e-12)
    assert gain == power.pairing_gain(b, a).estimate
    torn = power.pairing_gain(a, b[[3, 0, 4, 1, 2]]).estimate  # the pairs torn apart
    assert torn < gain / 3


@pytest.mark.parametrize(("rho", "deviation"), [(0.0, 1.0), (0.8, 1.0), (0.8, 3.0), (-0.5, 2.0)])
def test_the_interval_of_the_gain_holds_it_as_often_as_it_says(rho: float, deviation: float) -> None:
    covariance = np.array([[1.0, rho * deviation], [rho * deviation, deviation**2]])
    truth = (1 + deviation**2) / (1 + deviation**2 - 2 * rho * deviation)
    samples = generator_for(10, "bootstrap").multivariate_normal([0, 5], covariance, size=(800, 8))
    found = [power.pairing_gain(sample[:, 0], sample[:, 1]) for sample in samples]
    inside = np.mean([gain.low <= truth <= gain.high for gain in found])
    assert inside == pytest.approx(0.95, abs=0.026)  # 3.3·√(0.95·0.05/800): the interval is exact


def test_the_gain_where_something_does_not_vary() -> None:
    unbounded = power.pairing_gain(array(1, 2, 4), array(2, 3, 5))
    assert (unbounded.estimate, unbounded.method) == (math.inf, "none")
    assert power.pairing_gain(array(1, 2, 4), array(4, 3, 1)).estimate == 0.5  # what one gains the other loses
    # one arm is constant: the differences vary exactly as the other arm does, and pairing changes nothing
    assert power.pairing_gain(array(1, 1, 1, 1), array(1, 2, 5, 3)).estimate == pytest.approx(1.0)
    for arms in ((array(1, 1, 1), array(2, 2, 2)), (array(1), array(2)), (array(), array())):
        assert np.isnan(power.pairing_gain(*arms)[:3]).all()
    two = power.pairing_gain(array(1, 2), array(1, 4))  # 0.5 + 4.5 over 2, and no interval
    assert two.estimate == pytest.approx(2.5)
    assert np.isnan([two.low, two.high]).all()
