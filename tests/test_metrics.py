"""The measures of one run, worked out by hand on short curves."""

import numpy as np
import pytest
from records_maker import curves, experiment, measured, record

from gapbench.analysis.metrics import at_train_loss, mean_over_training, steps_to_target

STEP = np.array([0, 10, 20, 30, 40])


def array(*values: float) -> np.ndarray:
    return np.array(values, dtype=float)


@pytest.mark.parametrize(
    ("accuracy", "expected"),
    [
        (array(0.1, 0.5, 0.9, 0.9, 0.9), (17.5, True)),  # between 0.5 and 0.9: 10 + 10 · 0.3 / 0.4
        (array(0.1, 0.9, 0.5, 0.9, 0.9), (27.5, True)),  # a single spike at 10 does not count
        (array(0.1, 0.9, 0.5, 0.9, 0.5), (100.0, False)),  # nor do two that are apart
        (array(0.1, 0.5, 0.5, 0.5, 0.9), (100.0, False)),  # nor the last evaluation alone
        (array(0.1, 0.5, 0.5, 0.8, 0.8), (30.0, True)),  # at the target is reached
        (array(0.8, 0.8, 0.1, 0.1, 0.1), (0.0, True)),  # what comes after does not matter
        (array(0.1, 0.2, 0.3, 0.4, 0.5), (100.0, False)),
    ],
)
def test_a_target_is_reached_on_the_way_to_the_first_of_two_evaluations_in_a_row(
    accuracy: np.ndarray, expected: tuple[float, bool]
) -> None:
    step, reached = steps_to_target(STEP, accuracy, 0.8, horizon=100)
    assert (step, reached) == (pytest.approx(expected[0]), expected[1])


@pytest.mark.parametrize("evaluations", [0, 1])
def test_a_run_with_too_few_evaluations_is_censored(evaluations: int) -> None:
    assert steps_to_target(STEP[:evaluations], np.ones(evaluations), 0.8, horizon=40) == (40.0, False)


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (0.5, 0.25),  # between 1.0 and 0.4: share (1 - 0.5) / 0.6 = 5/6; 0 + 5/6 · 0.3
        (0.4, 0.30),  # at an evaluation, its value
        (1.0, 0.00),
        (0.3, 0.35),  # between 0.4 and 0.2, half the way; the rise to 0.6 afterwards is not looked at
        (2.5, np.nan),  # already there at the first evaluation: nothing was learnt
        (0.1, np.nan),  # never
    ],
)
def test_a_value_at_a_train_loss_is_interpolated_where_the_loss_first_gets_there(level: float, expected: float) -> None:
    train_loss = array(2.0, 1.0, 0.4, 0.2, 0.6)
    overfit = array(0.9, 0.0, 0.3, 0.4, 0.8)
    assert at_train_loss(train_loss, overfit, level) == pytest.approx(expected, rel=1e-12, nan_ok=True)


def test_the_mean_over_training_weighs_each_stretch_by_its_length() -> None:
    # trapezoids: 10 · (0 + 1) / 2 + 30 · 1 = 35, of 40; the plain mean of the values would be 2/3
    assert mean_over_training(np.array([0, 10, 40]), array(0, 1, 1)) == 35 / 40


def test_every_measure_of_a_run_is_the_one_worked_out_by_hand() -> None:
    declared = experiment(seeds=1)
    run = curves(
        train=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.0],
        val=[0.1, 0.2, 0.3, 0.4, 0.5, 0.9, 0.6, 0.9, 0.9, 0.8, 0.7],
        test=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.65, 0.7, 0.7, 0.65, 0.6],
    )
    row = measured(declared, [record(declared.runs[0], run)]).iloc[0]
    expected = {
        "overfit_final": 0.4,  # 1 - 0.6
        "overfit_best_val": 0.0,  # validation is best, 0.9, first at step 50: 0.6 - 0.6
        "overfit_at_0.5": 0.15,  # loss 2 - 2·step/100 is 0.5 at step 75: half-way between 0.1 and 0.2
        "overfit_at_1": 0.0,  # at step 50
        "overfit_area": 0.09,  # 0 up to step 50, then 0.05, 0.1, 0.2, 0.35, 0.4: 10·(0.7 + 0.4/2) / 100
        "test_error": 0.4,
        "train_loss_final": 0.0,
        "best_val_accuracy": 0.9,
        "val_area": 0.59,  # 10·(6.3 - (0.1 + 0.7)/2) / 100
        "steps_to_0.9": 70.0,  # the 0.9 at step 50 stands alone
        "reached_0.9": True,
        "steps_to_0.5": 40.0,
        "reached_0.5": True,
    }
    assert {name: row[name] for name in expected} == pytest.approx(expected, abs=1e-12)


def test_a_diverged_run_has_no_last_step_but_a_time_to_the_target() -> None:
    declared = experiment(seeds=1)
    row = measured(declared, [record(declared.runs[0], curves(reach=20, overfit=0.2), "diverged", upto=60)]).iloc[0]
    finals = ["overfit_final", "overfit_best_val", "overfit_area", "test_error", "train_loss_final", "val_area"]
    assert row[finals].isna().all()
    assert (row["steps_to_0.9"], row["reached_0.9"]) == (20.0, True)
    assert row["best_val_accuracy"] == 0.95
    assert row["overfit_at_1"] == pytest.approx(0.2)  # a train loss of 1 came at step 50
    assert np.isnan(row["overfit_at_0.5"])  # 0.5 would have come at step 75


@pytest.mark.parametrize("upto", [60, 0, -1])
def test_a_run_that_diverged_short_of_the_target_is_censored_at_the_horizon_and_not_at_its_end(upto: int) -> None:
    declared = experiment(seeds=1)
    row = measured(declared, [record(declared.runs[0], curves(reach=70), "diverged", upto=upto)]).iloc[0]
    assert (row["steps_to_0.9"], row["reached_0.9"]) == (100.0, False)


@pytest.mark.parametrize("status", ["failed", "out_of_memory"])
def test_a_run_that_was_not_trained_has_no_row(status: str) -> None:
    declared = experiment(seeds=1)
    flatten, gap = declared.runs
    made = measured(declared, [record(flatten), record(gap, status=status, upto=-1)])
    assert made["run_id"].tolist() == [flatten.run_id]


def test_a_row_carries_the_spec_so_that_it_can_be_grouped() -> None:
    declared = experiment(seeds=2, sizes=(8, 12))
    made = measured(declared, [record(spec) for spec in declared.runs])
    assert made[["px", "head", "seed"]].to_numpy().tolist() == [
        [px, head, seed] for px in (8, 12) for head in ("flatten", "gap") for seed in (0, 1)
    ]
    assert set(made["status"]) == {"ok"}
