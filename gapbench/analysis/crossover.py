"""From which training-set size on (or any other x) one arm leads the other: where the mean paired difference turns."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from gapbench.analysis import stats
from gapbench.keys import generator_for

ROUNDING = 1e-12  # of the largest difference: a mean that is nearer to zero is a tie


class Crossover(NamedTuple):
    """The x after which the sign of the mean difference, treatment - reference, stays what it is at the largest x.

    The last of several crossings, therefore: before it the order of the arms is not settled.
    """

    estimate: float  # nan where the sign is the same throughout
    low: float  # of the 95 % percentile interval over pairs; -inf: the sign may be the same throughout
    high: float  # inf: it may be another at the largest x
    n: int  # pairs: seeds with both arms at one x or more
    share: float  # of the resamples, with a crossover in the range; the three shares sum to 1
    share_below: float  # with that sign throughout
    share_above: float  # with another sign at the largest x
    sign: int  # from the crossover on, or throughout: -1 the treatment is lower, 1 the reference is, 0 no difference
    crossings: int  # sign changes in the data


def _mean_differences(
    position: Float[np.ndarray, "X"], differences: Float[np.ndarray, "X S"], weights: Shaped[np.ndarray, "R S"]
) -> Float[np.ndarray, "R X"]:
    """Weighted means over the seeds present at each x; an x that has none of them is bridged by its neighbours."""
    present = np.isfinite(differences)
    with np.errstate(invalid="ignore"):
        means = weights @ np.where(present, differences, 0.0).T / (weights @ present.T)
    for row in np.flatnonzero(np.isnan(means).any(axis=1)):
        known = np.isfinite(means[row])
        means[row] = np.interp(position, position[known], means[row, known])
    return np.where(np.abs(means) > ROUNDING * np.nanmax(np.abs(differences)), means, 0.0)


def _signs(means: Float[np.ndarray, "R X"]) -> Float[np.ndarray, "R X"]:
    """-1 or 1, a tie taking the sign before it: to touch zero is no crossing. 0 only where a row begins with ties."""
    signs = np.sign(means)
    for i in range(1, signs.shape[1]):
        signs[:, i] = np.where(signs[:, i] == 0, signs[:, i - 1], signs[:, i])
    return signs


def _turns(position: Float[np.ndarray, "X"], means: Float[np.ndarray, "R X"]) -> Float[np.ndarray, "R"]:
    """The position after which each row stays positive: -inf if it is never negative, inf if it ends so."""
    rows, columns = means.shape
    negative = _signs(means) < 0
    last = columns - 1 - np.argmax(negative[:, ::-1], axis=1)
    before = np.minimum(last, columns - 2)
    low, high = (means[np.arange(rows), i] for i in (before, before + 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        turns = position[before] + low / (low - high) * (position[before + 1] - position[before])
    turns[last == columns - 1] = np.inf
    turns[~negative.any(axis=1)] = -np.inf
    return turns


def crossover(
    x: Shaped[np.ndarray, "X"], reference: Float[np.ndarray, "X S"], treatment: Float[np.ndarray, "X S"]
) -> Crossover:
    """Where the mean paired difference changes its sign for good, on lines in log x between the grid's points.

    Column s is one seed at every x, nan where it is missing; a column is drawn as a whole, because runs of one seed are
    alike over x, and n - 1 columns are drawn (as in `strata`). Resamples are read for the same sign as the data: one
    that has it from the smallest x on counts as -inf, one that lacks it at the largest as inf, so that the interval may
    be open. No interval for fewer than two pairs. Raises ValueError unless x is two or more increasing positive values.
    """
    if len(x) < 2 or x[0] <= 0 or not np.all(np.diff(x) > 0):
        raise ValueError("a crossover needs two or more increasing positive x")
    differences = treatment - reference
    differences = differences[:, np.isfinite(differences).any(axis=0)]
    n, nan = differences.shape[1], float("nan")
    if n == 0:
        return Crossover(nan, nan, nan, 0, nan, nan, nan, 0, 0)
    position = np.log(x)
    means = _mean_differences(position, differences, np.ones((1, n)))
    signs = _signs(means)[0]
    sign = int(signs[-1])
    turn = float(_turns(position, sign * means)[0])
    estimate = float(np.exp(turn)) if np.isfinite(turn) else nan
    crossings = int(np.count_nonzero(np.diff(signs[signs != 0])))
    if n < 2 or sign == 0:
        return Crossover(estimate, nan, nan, n, nan, nan, nan, sign, crossings)
    weights = generator_for(0, "bootstrap").multinomial(n - 1, np.full(n, 1 / n), size=stats.RESAMPLES)
    turns = np.sort(_turns(position, sign * _mean_differences(position, differences, weights)))
    ranks = np.array([0.025, 0.975]) * (len(turns) - 1)
    ends = turns[[int(np.floor(ranks[0])), int(np.ceil(ranks[1]))]]  # drawn ones: infinity does not interpolate
    low, high = (float(np.exp(end)) if np.isfinite(end) else float(end) for end in ends)
    share, below, above = (float(np.mean(kind)) for kind in (np.isfinite(turns), turns == -np.inf, turns == np.inf))
    return Crossover(estimate, low, high, n, share, below, above, sign, crossings)
