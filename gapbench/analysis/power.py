"""How many pairs a question needs, from the spread that was measured, and what pairing saves.

Every answer rests on an estimated spread: for normal differences of 10 pairs its own 95 % interval reaches from 0.69 to
1.83 times the estimate, so the number of pairs, which goes with its square, from half to three times what is said here.
"""

import math

import numpy as np
from scipy import stats
from statsmodels.stats.power import TTestPower

from gapbench.analysis.stats import ALPHA, Interval, Values

LARGE_EFFECT = 3.0  # in standard deviations; a larger one needs no more pairs, but breaks SciPy's noncentral t


def fewest_pairs(alpha: float = ALPHA) -> int:
    """The fewest pairs whose two-sided sign-flip p, 2 / 2^n at best, can reach alpha: 6 for 0.05."""
    return math.ceil(math.log2(2 / alpha))


def _pairs(differences: Values, margin: float, power: float, alpha: float, alternative: str) -> int | None:
    """Pairs with which a t test finds a true difference of `margin` with probability `power`."""
    if len(differences) < 2 or not (math.isfinite(margin) and margin):
        return None
    spread = float(np.std(differences, ddof=1))
    if np.ptp(differences) == 0:
        return fewest_pairs(alpha)
    effect = min(abs(margin) / spread, LARGE_EFFECT)
    n = TTestPower().solve_power(effect_size=effect, power=power, alpha=alpha, alternative=alternative)
    return max(fewest_pairs(alpha), math.ceil(float(n)))


def pairs_needed(differences: Values, margin: float, power: float = 0.8, alpha: float = ALPHA) -> int | None:
    """Pairs with which a two-sided paired t test finds a true mean difference of `margin` with probability `power`.

    Never fewer than the exact sign-flip test needs to reach alpha. None where fewer than two pairs leave the spread
    unknown, or the margin is zero.
    """
    return _pairs(differences, margin, power, alpha, "two-sided")


def pairs_for_equivalence(differences: Values, margin: float, power: float = 0.8, alpha: float = ALPHA) -> int | None:
    """Pairs with which TOST finds equivalence within ±margin with probability `power` if the true difference is zero.

    Both one-sided tests must reject; each fails with probability β, and both at once only when the interval is wider
    than the margins, so the power is 1 - 2β or a little more, and (1 + power) / 2 is asked of each test: exact, or one
    pair too many where about ten are enough. Never fewer than a verdict needs, and None as in `pairs_needed`.
    """
    return _pairs(differences, margin, (1 + power) / 2, alpha, "larger")


def pairs_to_decide(low: float, high: float, estimate: float, margin: float, n: int) -> int | None:
    """About how many pairs would bring the end of the interval to the margin if the estimate stayed where it is.

    n · (distance from the estimate to the end that faces the margin / distance to the margin)²: at most n where the
    interval of n pairs already excludes the margin, but for the fewest that any verdict needs. A forecast and no
    stopping rule: adding pairs until one likes the answer inflates its error. None where the estimate is on the margin
    or a number is not finite.
    """
    if not np.isfinite([low, high, estimate, margin]).all() or estimate == margin:
        return None
    reach = high - estimate if margin > estimate else estimate - low
    return max(fewest_pairs(), math.ceil(n * (reach / (margin - estimate)) ** 2))


def pairing_gain(reference: Values, treatment: Values) -> Interval:
    """How many times as many runs would be needed without pairing: (var a + var b) / var(a - b), 1 if unrelated.

    With v = var(a + b) / var(a - b) it is (1 + v) / 2, and v is the ratio of two correlated variances, whose interval
    is Pitman's and Morgan's (1939), exact for normal arms: v · (k ± √(k² - 1)), k = 1 + 2 (1 - r²) t² / (n - 2).
    Between 1/2 (what one arm gains the other loses) and inf (the arms vary, and every difference is the same: the gain
    has no bound). nan where nothing varies or there are fewer than two pairs; the ends are nan for fewer than three.
    """
    n, nan = len(reference), float("nan")
    differences, sums = treatment - reference, treatment + reference
    if n < 2 or (np.ptp(differences) == 0 and np.ptp(sums) == 0):
        return Interval(nan, nan, nan, n, "none")
    if np.ptp(differences) == 0:
        return Interval(float("inf"), nan, nan, n, "none")
    ratio = float(np.var(sums) / np.var(differences))
    if n < 3 or ratio == 0:
        return Interval((1 + ratio) / 2, nan, nan, n, "none")
    unexplained = 1 - float(np.corrcoef(sums, differences)[0, 1]) ** 2
    k = 1 + 2 * unexplained * float(stats.t.ppf(0.975, n - 2)) ** 2 / (n - 2)
    width = math.sqrt(k**2 - 1)
    low, high = ((1 + ratio * factor) / 2 for factor in (k - width, k + width))
    return Interval((1 + ratio) / 2, low, high, n, "Pitman-Morgan")
