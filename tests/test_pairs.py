"""Pairs are joined by seed, whatever the order of the records, and what is left out is counted."""

import numpy as np
import pytest
from records_maker import by_head, curves, experiment, measured, record, sweep

from gapbench.analysis.pairs import cells, compare_pairs, paired_values
from gapbench.experiment import Cell, Experiment
from gapbench.records import Record

DECLARED = experiment(seeds=5)
# seed s: flatten has a test error of 0.3 + 0.02·s, gap of 0.29 + 0.03·s, so the differences are -0.01 + 0.01·s
EFFECT = by_head(lambda s: curves(reach=10 * (s + 1), test=0.7 - 0.02 * s), lambda s: curves(40, test=0.71 - 0.03 * s))
CELL = Cell("shared", "digits", 8, "")


def error_pairs(records: list[Record]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return paired_values(measured(DECLARED, records), CELL, DECLARED.pair, "test_error")


def test_the_halves_of_a_pair_are_joined_by_seed() -> None:
    seeds, flatten, gap = error_pairs(sweep(DECLARED, EFFECT))
    np.testing.assert_array_equal(seeds, range(5))
    np.testing.assert_allclose(flatten, [0.30, 0.32, 0.34, 0.36, 0.38])
    np.testing.assert_allclose(gap, [0.29, 0.32, 0.35, 0.38, 0.41])


def test_the_order_of_the_records_does_not_matter() -> None:
    records = sweep(DECLARED, EFFECT)
    shuffled = [records[i] for i in (7, 2, 9, 0, 5, 3, 8, 1, 6, 4)]
    in_order, mixed = (compare_pairs(measured(DECLARED, rs), DECLARED, "test_error") for rs in (records, shuffled))
    assert in_order.equals(mixed)
    np.testing.assert_array_equal(error_pairs(records), error_pairs(shuffled))


def test_halves_swapped_between_seeds_give_other_pairs() -> None:
    swapped = by_head(lambda s: EFFECT(DECLARED.runs[s]), lambda s: EFFECT(DECLARED.runs[5 + (s + 1) % 5]))
    own, other = (
        compare_pairs(measured(DECLARED, sweep(DECLARED, effect)), DECLARED, "test_error").iloc[0]
        for effect in (EFFECT, swapped)
    )
    assert own["estimate"] == pytest.approx(other["estimate"])  # the means are the same
    assert other["high"] - other["low"] > 2 * (own["high"] - own["low"])


def test_pairs_with_a_missing_half_are_left_out_and_counted() -> None:
    records = sweep(DECLARED, EFFECT)
    del records[7], records[1]  # gap of seed 2, flatten of seed 1
    records.append(record(DECLARED.runs[7], status="failed", upto=-1))
    seeds, flatten, gap = error_pairs(records)
    assert seeds.tolist() == [0, 3, 4]
    np.testing.assert_allclose(gap - flatten, [-0.01, 0.02, 0.03])
    row = compare_pairs(measured(DECLARED, records), DECLARED, "test_error").iloc[0]
    assert (row["n"], row["pairs_left_out"]) == (3, 2)
    assert row["flatten_mean"] == pytest.approx((0.30 + 0.36 + 0.38) / 3)


def test_a_pair_of_which_one_half_has_no_value_is_left_out_and_counted() -> None:
    records = sweep(DECLARED, EFFECT)
    records[6] = record(DECLARED.runs[6], curves(), "diverged", upto=50)
    row = compare_pairs(measured(DECLARED, records), DECLARED, "test_error").iloc[0]
    assert (row["n"], row["pairs_left_out"]) == (4, 1)
    steps = compare_pairs(measured(DECLARED, records), DECLARED, "steps_to_0.9", ratio=True).iloc[0]
    assert (steps["n"], steps["pairs_left_out"]) == (5, 0)  # it has a time to the target


def test_a_row_has_both_means_the_difference_and_its_tests() -> None:
    row = compare_pairs(measured(DECLARED, sweep(DECLARED, EFFECT)), DECLARED, "test_error").iloc[0]
    assert (row["dataset"], row["px"], row["measure"], row["n"], row["pairs_left_out"]) == (
        "digits",
        8,
        "test_error",
        5,
        0,
    )
    # differences -0.01, 0, 0.01, 0.02, 0.03: mean 0.01
    assert row[["flatten_mean", "gap_mean", "estimate"]].tolist() == pytest.approx([0.34, 0.35, 0.01])
    assert -0.01 < row["low"] < 0.01 < row["high"] < 0.03
    # of the 16 patterns of ±1 ±1 ±2 ±3, three sum to 5 or more (7, and 5 by flipping either 1), three to -5 or less
    assert row["sign_flip_p"] == pytest.approx(6 / 16)
    assert row["correlation"] == pytest.approx(1.0)
    assert row["probability_gap_lower"] == pytest.approx(0.2 + 0.1)  # seed 0, and a tie at seed 1


def test_a_ratio_row_is_the_ratio_of_means_with_the_tests_of_the_differences() -> None:
    row = compare_pairs(measured(DECLARED, sweep(DECLARED, EFFECT)), DECLARED, "steps_to_0.9", ratio=True).iloc[0]
    # flatten 10, 20, 30, 40, 50: mean 30; gap 40; differences 30, 20, 10, 0, -10
    assert row[["flatten_mean", "gap_mean", "estimate"]].tolist() == pytest.approx([30, 40, 40 / 30])
    assert row["sign_flip_p"] == pytest.approx(6 / 16)
    assert row["probability_gap_lower"] == pytest.approx(0.2 + 0.1)  # seed 4, and a tie at seed 3


def test_each_size_has_its_row_in_the_order_of_the_sizes() -> None:
    declared = experiment(seeds=2, sizes=(12, 8))
    table = compare_pairs(measured(declared, sweep(declared)), declared, "test_error")
    assert table["px"].tolist() == [8, 12]
    assert [cell.px for cell in cells(measured(declared, sweep(declared)), declared)] == [8, 12]


def only(head: str) -> tuple[Experiment, list[Record]]:
    return DECLARED, [record(spec) for spec in DECLARED.runs if spec.head == head]


def test_a_size_without_a_single_pair_has_a_row_that_says_so() -> None:
    declared, records = only("flatten")
    row = compare_pairs(measured(declared, records), declared, "test_error").iloc[0]
    assert (row["n"], row["pairs_left_out"]) == (0, 5)


def test_a_third_head_is_not_mixed_into_the_pair() -> None:
    declared = experiment(seeds=3, heads=("flatten", "gap", "gmp"))
    records = [record(spec, curves(test=0.1 if spec.head == "gmp" else 0.7)) for spec in declared.runs]
    row = compare_pairs(measured(declared, records), declared, "test_error").iloc[0]
    assert (row["n"], row["estimate"], row["pairs_left_out"]) == (3, 0.0, 0)
