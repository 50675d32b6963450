"""Arrays in, numbers out: paired intervals, exact tests, multiplicity and survival, by SciPy and statsmodels.

Nothing here reads a file, draws, or knows what a head is. The unit is the pair: entry i of both arrays is one seed.
"""

import warnings
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped
from scipy import stats
from statsmodels.duration.survfunc import SurvfuncRight
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import DescrStatsW

from gapbench.keys import generator_for

Values = Float[np.ndarray, "S"]
RESAMPLES = 9999
BAND_RESAMPLES = 1999  # of a figure's band, whose ends are read off to a pixel
EXACT_PAIRS = 20  # up to 2^20 sign patterns are enumerated, which SciPy's permutation_test takes seconds for
DRAWN_PATTERNS = 2**17  # beyond
ROUNDING = 1e-12
ALPHA = 0.05  # of each of the two tests of an equivalence


class Interval(NamedTuple):
    """An estimate with its two-sided 95 % interval over pairs, by bootstrap where `method` names no closed form."""

    estimate: float
    low: float
    high: float
    n: int  # pairs; blocks of a timing
    method: str  # BCa, or percentile where that is undefined, at the expanded level; nested: processes, then blocks


def expanded_level(n: int) -> float:
    """The nominal level at which a bootstrap of n values covers 95 %: that of a t interval, seen by the bootstrap.

    Resamples vary by (n - 1) / n of what they should, and their quantiles are normal where t's are wider, so that a
    nominal 95 % covers 90 % at n = 10. Hesterberg's expansion (2015, The American Statistician 69, section 4) asks for
    the tail Φ(-√(n / (n - 1)) t) instead, with t the 0.975 quantile of n - 1 degrees of freedom.
    """
    return float(1 - 2 * stats.norm.cdf(-np.sqrt(n / (n - 1)) * stats.t.ppf(0.975, n - 1)))


def _bootstrap(
    samples: tuple[Values, ...], statistic: object, estimate: float, methods: tuple[str, ...] = ("BCa", "percentile")
) -> Interval:
    n = len(samples[0])
    if n < 2:
        return Interval(estimate, float("nan"), float("nan"), n, "none")
    for method in methods:  # BCa is nan when its jackknife has no spread, as when all pairs are equal
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", stats.DegenerateDataWarning)
            warnings.simplefilter("ignore", RuntimeWarning)
            result = stats.bootstrap(
                samples,
                statistic,
                paired=True,
                vectorized=True,
                method=method,
                n_resamples=RESAMPLES,
                confidence_level=expanded_level(n),
                rng=generator_for(0, "bootstrap"),
            )
        low, high = (float(end) for end in result.confidence_interval)
        if np.isfinite([low, high]).all():
            break
    return Interval(estimate, low, high, n, method)


NO_VALUES = Interval(float("nan"), float("nan"), float("nan"), 0, "none")


def mean_interval(values: Values) -> Interval:
    """Mean over seeds; nan where there is none."""
    if not len(values):
        return NO_VALUES
    return _bootstrap((values,), lambda x, axis: np.mean(x, axis=axis), float(np.mean(values)))


def mean_band(values: Float[np.ndarray, "S T"]) -> tuple[Float[np.ndarray, "T"], Float[np.ndarray, "T"]]:
    """Ends of the interval of the mean over seeds at each step of a curve (percentile: T intervals at once).

    Of one seed alone, the curve itself.
    """
    if len(values) == 1:
        return values[0], values[0]
    draws = generator_for(0, "bootstrap").integers(len(values), size=(BAND_RESAMPLES, len(values)))
    weights = np.stack([np.bincount(draw, minlength=len(values)) for draw in draws]) / len(values)
    outside = (1 - expanded_level(len(values))) / 2
    low, high = np.quantile(weights @ values, [outside, 1 - outside], axis=0)
    return low, high


def median_interval(values: Values) -> Interval:
    """Median over interleaved blocks: one disturbed block does not move it (percentile: BCa fits smooth statistics).

    nan where there is none.
    """
    if not len(values):
        return NO_VALUES
    return _bootstrap(
        (values,), lambda x, axis: np.median(x, axis=axis), float(np.median(values)), methods=("percentile",)
    )


def nested_interval(blocks: Float[np.ndarray, "P N"]) -> Interval:
    """Median over the N blocks of P processes; the bootstrap draws processes, then blocks within each that it drew.

    With few processes the ends come near the lowest and the highest process: more blocks do not average away what
    differs between processes. Of one process alone only the blocks can be drawn (`median_interval`): too narrow.
    """
    processes, n = blocks.shape
    if processes < 2:
        return median_interval(blocks[0])
    generator = generator_for(0, "bootstrap")
    drawn = generator.integers(processes, size=(RESAMPLES, processes, 1))
    within = generator.integers(n, size=(RESAMPLES, processes, n))
    medians = np.median(blocks[drawn, within].reshape(RESAMPLES, -1), axis=1)
    low, high = (float(end) for end in np.quantile(medians, [0.025, 0.975]))
    return Interval(float(np.median(blocks)), low, high, blocks.size, "nested percentile")


def difference_interval(reference: Values, treatment: Values) -> Interval:
    """Mean paired difference, treatment - reference."""
    return mean_interval(treatment - reference)


def ratio_interval(reference: Values, treatment: Values) -> Interval:
    """Ratio of means, mean(treatment) / mean(reference), resampling pairs."""

    def ratio(t: np.ndarray, r: np.ndarray, axis: int) -> np.ndarray:
        return np.asarray(np.mean(t, axis=axis) / np.mean(r, axis=axis))

    return _bootstrap((treatment, reference), ratio, float(np.mean(treatment) / np.mean(reference)))


def sign_flip_p(differences: Values) -> float:
    """Two-sided exact p of the mean difference when every pair's sign may flip: k / 2^n patterns as extreme.

    The smallest possible value is 2 / 2^n: 0.0625 for 5 pairs, 0.002 for 10.
    """
    if len(differences) < 2 or not np.any(differences):
        return 1.0  # one pair: both of its patterns are as extreme
    if len(differences) > EXACT_PAIRS:
        drawn = stats.permutation_test(
            (differences,),
            lambda x, axis: np.mean(x, axis=axis),
            permutation_type="samples",
            vectorized=True,
            n_resamples=DRAWN_PATTERNS,
            batch=2**14,
            rng=generator_for(0, "bootstrap"),
        )
        return float(drawn.pvalue)
    sums = np.zeros(1)
    for difference in differences:
        sums = np.concatenate([sums + difference, sums - difference])
    rounding = 1e-12 * np.abs(differences).sum()  # patterns that tie but for rounding count as extreme
    return float(np.mean(np.abs(sums) >= abs(differences.sum()) - rounding))


def wilcoxon_p(differences: Values) -> float:
    """Two-sided Wilcoxon signed-rank p; zeros split between the signs."""
    if not np.any(differences):
        return 1.0
    ties = len(np.unique(np.abs(differences))) < len(differences) or not np.all(differences)
    return float(stats.wilcoxon(differences, zero_method="zsplit", method="asymptotic" if ties else "exact").pvalue)


class Equivalence(NamedTuple):
    """Whether a mean difference is too small to matter: two one-sided t tests (TOST) against -margin and +margin."""

    p: float  # the larger of the two
    equivalent: bool  # p < 0.05
    low: float  # of the 90 % t interval, which lies inside the margins exactly when p < 0.05
    high: float


def equivalence(differences: Values, margin: float) -> Equivalence:
    """Is the mean of the paired differences inside (-margin, margin)? Schuirmann (1987).

    Not the reverse of a test for a difference: few pairs show neither. With no spread the mean itself decides; p is
    nan for fewer than two pairs. Raises ValueError unless margin > 0.
    """
    if not margin > 0:
        raise ValueError(f"an equivalence margin is positive, and not {margin}")
    if len(differences) < 2:
        return Equivalence(float("nan"), False, float("nan"), float("nan"))
    mean = float(np.mean(differences))
    if np.ptp(differences) == 0:
        inside = bool(abs(mean) < margin)
        return Equivalence(0.0 if inside else 1.0, inside, mean, mean)
    sample = DescrStatsW(differences)
    p = float(sample.ttost_mean(-margin, margin)[0])
    low, high = sample.tconfint_mean(alpha=2 * ALPHA)
    return Equivalence(p, p < ALPHA, float(low), float(high))


def holm(p_values: Float[np.ndarray, "M"]) -> Float[np.ndarray, "M"]:
    """Holm's step-down adjustment over the family: of the i-th smallest of m, max over j <= i of (m - j + 1) p_j.

    At most 1; nan stays nan and counts as no test. Not statsmodels', which collects garbage at every call.
    """
    adjusted = np.full(len(p_values), np.nan)
    order = np.argsort(p_values)[: np.isfinite(p_values).sum()]  # nan comes last
    stepped = np.maximum.accumulate(p_values[order] * np.arange(len(order), 0, -1))
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def correlation(a: Values, b: Values) -> float:
    """Pearson correlation of the two arms over seeds; nan where an arm does not vary."""
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    found = float(stats.pearsonr(a, b).statistic)
    return found if abs(found) > ROUNDING else 0.0  # else another processor would print other digits of nothing


def probability_lower(reference: Values, treatment: Values) -> float:
    """P(treatment < reference) over pairs, ties counted half."""
    return float(np.mean(treatment < reference) + 0.5 * np.mean(treatment == reference))


def probability_interval(reference: Values, treatment: Values) -> Interval:
    """P(treatment < reference) with its Wilson interval, ties half a win.

    Wilson and no bootstrap, because one arm often wins every pair: all resamples are then equal, and 10 of 10 would
    read [1, 1] instead of [0.72, 1]. A tie varies less than a win and a loss, so with ties it is a little too wide.
    """
    n = len(reference)
    if n == 0:
        return Interval(float("nan"), float("nan"), float("nan"), 0, "none")
    estimate = probability_lower(reference, treatment)
    low, high = (float(end) for end in proportion_confint(estimate * n, n, alpha=0.05, method="wilson"))
    return Interval(estimate, low, high, n, "Wilson")


class Survival(NamedTuple):
    """A Kaplan-Meier curve: the fraction not yet there after each time, a step function from (0, 1)."""

    time: Float[np.ndarray, "T"]
    surviving: Float[np.ndarray, "T"]


def kaplan_meier(time: Shaped[np.ndarray, "S"], reached: Bool[np.ndarray, "S"]) -> Survival:
    """S(t) over runs; a run that never reached its target is censored at its time."""
    if not reached.any():
        return Survival(np.array([0.0]), np.array([1.0]))
    curve = SurvfuncRight(np.asarray(time, float), reached.astype(int))
    return Survival(np.r_[0.0, curve.surv_times], np.r_[1.0, curve.surv_prob])


def restricted_mean(survival: Survival, horizon: float) -> float:
    """Area under S(t) from 0 to the horizon: the mean of min(time, horizon)."""
    edges = np.r_[survival.time, horizon].clip(max=horizon)
    return float(np.sum(np.diff(edges) * survival.surviving))
