"""One number over several strata (data sets × sizes), each with pairs of its own: an equally weighted mean of effects.

It speaks of these strata and of no others: seeds vary, strata do not. Where the effects contradict each other the mean
hides it, so a table shows the strata beside it.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from gapbench.analysis import stats
from gapbench.analysis.stats import Interval
from gapbench.keys import generator_for

Strata = Sequence[Float[np.ndarray, "_"]]  # one array a stratum, of a length of its own


def stratified_interval(reference: Strata, treatment: Strata, ratio: bool = False) -> Interval:
    """Mean over strata of the mean paired difference, or the geometric mean over strata of the ratio of means.

    Entry k of both arms is one stratum with its n_k pairs; strata count alike whatever their n_k. The percentile
    bootstrap draws within each stratum, as rliable does (Agarwal et al. 2021), but whole pairs, and n_k - 1 of them:
    drawing n_k makes the variance too small by (n_k - 1) / n_k in each, which more strata do not mend (McCarthy &
    Snowden 1985). The ends are nan where a stratum has fewer than two pairs or a resample has no finite ratio, and the
    estimate too where a stratum has none. Raises ValueError if the arms do not match, or a mean of a ratio is not
    positive.
    """
    pairs = [np.stack(arms) for arms in zip(reference, treatment, strict=True)]
    sizes = [stratum.shape[1] for stratum in pairs]
    nan = float("nan")
    if not pairs or min(sizes) == 0:
        return Interval(nan, nan, nan, sum(sizes), "none")

    def effect(means: np.ndarray) -> np.ndarray:  # its first axis holds the two arms
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.log(means[1]) - np.log(means[0]) if ratio else means[1] - means[0])

    means = [stratum.mean(axis=1) for stratum in pairs]
    if ratio and np.min(means) <= 0:
        raise ValueError("a ratio needs positive means in every stratum")
    scale = np.exp if ratio else np.positive
    estimate = float(scale(np.mean([effect(mean) for mean in means])))
    drawn = np.zeros(stats.RESAMPLES)
    generator = generator_for(0, "bootstrap")
    for stratum, n in zip(pairs, sizes, strict=True):
        if n > 1:
            draws = generator.integers(n, size=(stats.RESAMPLES, n - 1))
            drawn += effect(stratum[:, draws].mean(axis=-1)) / len(pairs)
    if min(sizes) < 2 or not np.isfinite(drawn).all():
        return Interval(estimate, nan, nan, sum(sizes), "none")
    low, high = (float(end) for end in scale(np.quantile(drawn, [0.025, 0.975])))
    return Interval(estimate, low, high, sum(sizes), "stratified percentile")
