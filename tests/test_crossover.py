"""The x from which one arm leads: by hand, by every resample of a small table, and by simulation."""

import itertools
import math

import numpy as np
import pytest

from gapbench.analysis import stats
from gapbench.analysis.crossover import Crossover, crossover
from gapbench.keys import generator_for

INF, NAN = math.inf, math.nan


def array(*values: float) -> np.ndarray:
    return np.array(values, dtype=float)


def cross(x: np.ndarray, differences: np.ndarray) -> Crossover:
    """Of these differences [X, S], with a reference that varies; an array [X] is the same for two seeds."""
    if differences.ndim == 1:
        differences = np.stack([differences, differences], axis=1)
    reference = np.arange(differences.size, dtype=float).reshape(differences.shape)
    return crossover(x, reference, reference + differences)


def turn(x: np.ndarray, means: np.ndarray) -> float:
    """Plain walk from the largest x down to where the mean stops being positive; no ties."""
    if means[-1] < 0:
        return INF
    for i in range(len(x) - 2, -1, -1):
        if means[i] < 0:
            share = means[i] / (means[i] - means[i + 1])
            return float(x[i] * (x[i + 1] / x[i]) ** share)
    return -INF


def test_the_crossover_lies_on_the_line_in_log_x() -> None:
    # from -1 to 3 between 1 and 100: a quarter of the way, 100^(1/4) = √10
    found = cross(array(1, 100), array(-1, 3))
    root = math.sqrt(10)
    assert found[:4] == (pytest.approx(root), pytest.approx(root), pytest.approx(root), 2)
    assert found[4:] == (1.0, 0.0, 0.0, 1, 1)


@pytest.mark.parametrize(
    ("differences", "estimate", "sign", "crossings"),
    [
        (array(-1, -1, 1, 3), math.sqrt(10) * 10, 1, 1),  # between 10 and 100
        (array(1, 1, -1, -3), math.sqrt(10) * 10, -1, 1),
        (array(1, -1, 1, 1), math.sqrt(10) * 10, 1, 2),  # the last of two: before it the order is not settled
        (array(-1, 1, -1, 1), math.sqrt(10) * 100, 1, 3),
        (array(1, 2, 3, 4), NAN, 1, 0),
        (array(-1, -2, -3, -4), NAN, -1, 0),
        (array(-1, 0, 1, 1), 10.0, 1, 1),  # through zero at a point of the grid
        (array(-1, 0, 0, 1), 100.0, 1, 1),  # not settled before the last tie
        (array(1, 0, 1, 1), NAN, 1, 0),  # to touch zero is no crossing
        (array(0, 0, -1, -1), NAN, -1, 0),
        (array(-1, -1, -1, 0), NAN, -1, 0),
        (array(0, 0, 0, 0), NAN, 0, 0),
    ],
)
def test_the_last_change_of_sign_is_the_crossover(
    differences: np.ndarray, estimate: float, sign: int, crossings: int
) -> None:
    found = cross(array(1, 10, 100, 1000), differences)
    assert found.estimate == pytest.approx(estimate, nan_ok=True)
    assert (found.sign, found.crossings) == (sign, crossings)


def test_the_interval_is_open_where_resamples_have_no_crossover() -> None:
    # seeds A, B: -1, 3 and C: -1, -5, so the means are -1 and 1/3: three quarters of the way. Of the nine draws of two,
    # four are of A and B alone (crossing at √10), four have one C (-1 at the end) and one has two: 4/9 and 5/9
    found = cross(array(1, 100), np.array([[-1.0, -1, -1], [3, 3, -5]]))
    assert found.estimate == pytest.approx(100**0.75)
    assert (found.low, found.high) == (pytest.approx(math.sqrt(10)), INF)
    assert (found.share, found.share_below) == (pytest.approx(4 / 9, abs=0.02), 0.0)
    assert found.share + found.share_above == pytest.approx(1.0)
    # the other way round in x: 1/3 and -1; A and B alone 3, -1, the rest negative throughout
    mirrored = cross(array(1, 100), np.array([[3.0, 3, -5], [-1, -1, -1]]))
    assert mirrored.estimate == pytest.approx(100**0.25)
    assert (mirrored.low, mirrored.high) == (-INF, pytest.approx(100**0.75))
    assert (mirrored.share, mirrored.share_below) == (found.share, found.share_above)


def test_an_arm_that_leads_throughout_is_named_and_bounded() -> None:
    clear = cross(array(1, 10, 100), array(-3, -2, -1))
    assert (clear.low, clear.high, clear.share_below, clear.sign) == (-INF, -INF, 1.0, -1)
    # at the smallest x one seed of three disagrees: A, B: -1 and C: 1.5, mean -1/6; two C (1/9 of draws) or one (4/9)
    # are positive there and cross, at the latest from 1.5 to -1: 0.6 of the way from 1 to 10
    unsure = cross(array(1, 10, 100), np.array([[-1.0, -1, 1.5], [-1, -1, -1], [-1, -1, -1]]))
    assert math.isnan(unsure.estimate)
    assert (unsure.low, unsure.high) == (-INF, pytest.approx(10**0.6))
    assert (unsure.share, unsure.share_above) == (pytest.approx(5 / 9, abs=0.02), 0.0)


def test_the_shares_and_ends_are_those_of_every_resample() -> None:
    x = array(50, 100, 300, 1000)
    differences = np.array([[-4.0, -3, -7, 1], [-3, 1, -2, 2.5], [2, -1.1, -2.2, 3], [4, 1, -3.3, 5]])
    every = sorted(turn(x, differences[:, draw].mean(axis=1)) for draw in itertools.product(range(4), repeat=3))
    found = cross(x, differences)
    assert found.estimate == pytest.approx(turn(x, differences.mean(axis=1)))
    assert found.share == pytest.approx(np.mean(np.isfinite(every)), abs=0.02)
    assert found.share_below == pytest.approx(np.mean(np.array(every) == -INF), abs=0.02)
    assert min(found.share, found.share_below, found.share_above) > 0.01
    assert found.low in (pytest.approx(every[0]), pytest.approx(every[1]), pytest.approx(every[2]))  # 0.025·63 = 1.6
    assert found.high == INF


def test_arms_swapped_turn_the_sign_alone_and_x_carries_its_unit() -> None:
    generator = generator_for(1, "bootstrap")
    x, reference = array(1, 2, 4, 8), generator.normal(size=(4, 6))
    treatment = reference + np.log2(x)[:, None] - 1.4 + generator.normal(0, 0.5, size=(4, 6))
    found, swapped = crossover(x, reference, treatment), crossover(x, treatment, reference)
    assert swapped == found._replace(sign=-found.sign)
    hundred = crossover(100 * x, reference, treatment)
    assert hundred[:3] == pytest.approx([100 * value for value in found[:3]], rel=1e-12)


def test_missing_runs_leave_the_mean_of_those_that_are_there() -> None:
    # at 100: (3 + 1)/2 = 2 where C is missing, so a third of the way from -1
    found = cross(array(1, 100), np.array([[-1.0, -1, -1], [3, 1, NAN]]))
    assert (found.estimate, found.n) == (pytest.approx(100 ** (1 / 3)), 3)
    # a resample of C alone has no mean at 100 and stays where it was, at -1: 1 of 9 draws
    assert found.share_above == pytest.approx(1 / 9, abs=0.02)


def test_a_missing_half_is_a_missing_pair() -> None:
    reference, treatment = np.zeros((2, 3)), np.array([[-1.0, -1, -9], [3, 3, 9]])
    reference[:, 2] = NAN
    assert crossover(array(1, 100), reference, treatment) == crossover(
        array(1, 100), reference[:, :2], treatment[:, :2]
    )


def test_an_x_that_no_run_reached_is_as_if_it_were_not_on_the_grid() -> None:
    generator = generator_for(2, "bootstrap")
    differences = np.log(array(1, 10, 100))[:, None] - 2 + generator.normal(0, 1, size=(3, 7))
    whole = cross(array(1, 10, 100), differences)
    for at in (0, 2, 3):
        with_hole = np.insert(differences, at, np.full(7, NAN), axis=0)
        x = np.insert(array(1, 10, 100), at, [0.5, 5, 50, 500][at])
        assert cross(x, with_hole) == pytest.approx(whole, rel=1e-9)


def test_a_seed_is_drawn_at_every_x_at_once() -> None:
    # A: -1, 1 and B: -3, 3 cross halfway, and so does every resample of them
    own = cross(array(1, 100), np.array([[-1.0, -3], [1, 3]]))
    assert own[:3] == pytest.approx((10, 10, 10))
    # torn apart the means are the same, but A: -1, 3 crosses at a quarter and B: -3, 1 at three quarters
    torn = cross(array(1, 100), np.array([[-1.0, -3], [3, 1]]))
    assert torn[:3] == pytest.approx((10, 100**0.25, 100**0.75))


def test_the_interval_holds_the_truth_about_as_often_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "RESAMPLES", 499)
    generator, x = generator_for(4, "bootstrap"), array(100, 200, 400, 800, 1600)
    inside = 0
    for _ in range(300):
        seed, run = generator.normal(0, 0.5, size=15), generator.normal(0, 0.5, size=(5, 15))
        found = cross(x, np.log(x / 350)[:, None] + seed + run)
        inside += found.low <= 350 <= found.high
    assert 264 <= inside <= 297  # 285 expected, a few less for a percentile interval of 15 pairs


def test_too_few_pairs_have_no_interval() -> None:
    one = cross(array(1, 100), np.array([[-1.0], [3.0]]))
    assert (one.estimate, one.n, one.sign, one.crossings) == (pytest.approx(math.sqrt(10)), 1, 1, 1)
    assert np.isnan([one.low, one.high, one.share, one.share_below, one.share_above]).all()
    none = cross(array(1, 100), np.full((2, 3), NAN))
    assert (none.n, none.sign, none.crossings) == (0, 0, 0)
    assert np.isnan(none[:3]).all()


@pytest.mark.parametrize("x", [array(1), array(1, 1), array(2, 1), array(0, 1), array(-1, 1)])
def test_an_x_without_an_order_or_a_logarithm_is_refused(x: np.ndarray) -> None:
    with pytest.raises(ValueError, match="increasing positive"):
        cross(x, np.arange(len(x), dtype=float))
