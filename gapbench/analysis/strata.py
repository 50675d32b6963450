"""One number over several strata (data sets × sizes, recipes): an equally weighted mean of effects.

It speaks of these strata and of no others: seeds vary, strata do not. Where the effects contradict each other the mean
hides it, so a table shows the strata beside it.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from gapbench.analysis import stats
from gapbench.analysis.stats import Interval
from gapbench.keys import generator_for

Groups = Sequence[Float[np.ndarray, "*_ _"]]  # [strata, seeds]: strata of one group share seeds; nan: no such pair


def stratified_interval(reference: Groups, treatment: Groups, ratio: bool = False) -> Interval:
    """Mean over strata of the mean paired difference, or the geometric mean over strata of the ratio of means.

    Entry k of both arms is one group of strata that were run with the same seeds, [strata, n_k] or, of one stratum,
    [n_k]; all strata count alike. The percentile bootstrap draws within each group, as rliable does within each task
    (Agarwal et al. 2021), but whole pairs, and a seed in all strata of the group at once: its subset and its initial
    weights are theirs in common. It draws n_k - 1 seeds, since n_k would make the variance too small by (n_k - 1) / n_k
    in each, which more groups do not mend (McCarthy & Snowden 1985). The ends are nan where a stratum has fewer than
    two pairs or a resample has no finite effect, and the estimate too where a stratum has no pair. Raises ValueError if
    the arms do not match, or a mean of a ratio is not positive.
    """
    groups = [np.stack([np.atleast_2d(arm) for arm in arms]) for arms in zip(reference, treatment, strict=True)]
    present = [~np.isnan(group).any(axis=0) for group in groups]
    sizes = np.concatenate([pairs.sum(axis=1) for pairs in present]) if groups else np.zeros(0, int)
    nan = float("nan")
    if not sizes.size or not sizes.all():
        return Interval(nan, nan, nan, int(sizes.sum()), "none")

    def effects(weights: Sequence[np.ndarray]) -> np.ndarray:
        """The mean effect for each column of seeds' weights, of which each group has a matrix."""
        found = []
        for group, pairs, weight in zip(groups, present, weights, strict=True):
            with np.errstate(divide="ignore", invalid="ignore"):
                means = np.where(pairs, group, 0) @ weight / (pairs @ weight)
                found.append(np.log(means[1]) - np.log(means[0]) if ratio else means[1] - means[0])
        return np.concatenate(found).mean(axis=0)

    if ratio and min(np.nanmin(np.nanmean(group, axis=2)) for group in groups) <= 0:
        raise ValueError("a ratio needs positive means in every stratum")
    scale = np.exp if ratio else np.positive
    estimate = float(scale(effects([np.ones((group.shape[2], 1)) for group in groups])[0]))
    if sizes.min() < 2:
        return Interval(estimate, nan, nan, int(sizes.sum()), "none")
    generator = generator_for(0, "bootstrap")
    seeds = [group.shape[2] for group in groups]
    drawn = effects([generator.multinomial(n - 1, np.full(n, 1 / n), size=stats.RESAMPLES).T for n in seeds])
    if not np.isfinite(drawn).all():
        return Interval(estimate, nan, nan, int(sizes.sum()), "none")
    low, high = (float(end) for end in scale(np.quantile(drawn, [0.025, 0.975])))
    return Interval(estimate, low, high, int(sizes.sum()), "stratified percentile")
