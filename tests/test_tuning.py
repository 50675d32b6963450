"""The tuned rate: the best validation accuracy at the last step, over seeds and sizes, by one rule for both heads."""

import pytest
from records_maker import Curves, curves, evidence_of, experiment, measured, record, sweep

from gapbench.analysis.tuning import derive_rules, tuning_frame
from gapbench.experiment import Experiment, grid
from gapbench.report.setting import setting
from gapbench.report.tuning import tuning_table
from gapbench.spec import Backbone, Recipe, RunSpec, Task

RATES = (1e-3, 1e-2, 1e-1)
BEST = {("flatten", 8): (0.90, 0.94, 0.5), ("flatten", 12): (0.90, 0.94, 0.5)}  # accuracy by rate
BEST |= {("gap", 8): (0.5, 0.80, 0.84), ("gap", 12): (0.5, 0.90, 0.84)}


def declare() -> Experiment:
    recipes = [Recipe(peak_lr=rate, batch=16, steps=100, eval_every=10) for rate in RATES]
    tasks = [Task(dataset="digits", px=px, train_images=100) for px in (8, 12)]
    runs = grid(task=tasks, backbone=Backbone(width=4, stages=1), head=("flatten", "gap"), recipe=recipes, seed=(7, 8))
    return experiment(runs=runs, axis="peak_lr", family=())


def learn(spec: RunSpec) -> Curves:
    """Validation accuracy rises to its last value at once; seed 8 is a point better; the loss ends at 1 - accuracy."""
    accuracy = BEST[spec.head, spec.task.px][RATES.index(spec.recipe.peak_lr)] + 0.01 * (spec.seed == 8)
    made = curves()
    return {**made, "val": [0.1] + [accuracy] * 10, "train_loss": [2.0] * 10 + [1 - accuracy]}


def test_each_head_gets_the_rate_with_the_best_mean_over_seeds_and_sizes() -> None:
    declared = declare()
    frame = tuning_frame(measured(declared, sweep(declared, learn)), declared)
    # gap at 0.01: (0.80 + 0.90) / 2 and half a point from seed 8 beats (0.84 + 0.84) / 2 at 0.1
    chosen = frame[frame["chosen"]]
    assert dict(zip(chosen["arm"], chosen["peak_lr"], strict=True)) == {"flatten": 1e-2, "gap": 1e-2}
    gap = frame[(frame["arm"] == "gap") & (frame["peak_lr"] == 1e-2)].iloc[0]
    assert (gap["estimate"], gap["n"]) == (pytest.approx(0.855), 2)
    assert not frame["at_edge"].any()


def test_of_equal_rates_the_smaller_is_chosen_and_an_edge_is_marked() -> None:
    declared = declare()
    flat = sweep(declared, lambda spec: learn(spec.with_recipe(peak_lr=1e-2)))
    frame = tuning_frame(measured(declared, flat), declared)
    assert frame.loc[frame["chosen"], "peak_lr"].tolist() == [1e-3, 1e-3]
    assert frame.loc[frame["chosen"], "at_edge"].all()


def test_a_diverged_run_counts_as_zero_and_is_not_passed_over() -> None:
    declared = declare()
    records = [
        record(spec, learn(spec), "diverged", upto=50)
        if (spec.head, spec.recipe.peak_lr, spec.seed) == ("flatten", 1e-2, 7)
        else record(spec, learn(spec))
        for spec in declared.runs
    ]
    frame = tuning_frame(measured(declared, records), declared)
    flatten = frame[frame["arm"] == "flatten"].set_index("peak_lr")
    assert flatten.loc[1e-2, "estimate"] == pytest.approx((0 + 0.95) / 2)  # not the 0.95 of the seed that ended
    assert bool(flatten.loc[1e-3, "chosen"])


def test_target_and_train_loss_are_those_of_the_weakest_tuned_and_of_every_used_run() -> None:
    declared = declare()
    rules = derive_rules(measured(declared, sweep(declared, learn)), declared, shared_rate=1e-1)
    assert rules.rates == {"flatten": 1e-2, "gap": 1e-2}
    assert rules.target == 0.80  # gap at 8 px, tuned: the median of 0.80 and 0.81, rounded down to a percent
    assert rules.train_loss == 0.5  # flatten at the shared rate ends at 1 - 0.5 = 0.5 and 0.49: up to a tenth


def test_the_table_marks_the_chosen_rate() -> None:
    evidence = evidence_of(declare(), learn)
    table = tuning_table(evidence)
    assert [row[-1] for row in table.shown] == ["", "chosen", "", "", "chosen", ""]
    assert setting(evidence) in table.caption
