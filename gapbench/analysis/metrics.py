"""What one run's curve says about overfitting and convergence: one number a measure, nan where it is undefined.

Accuracies are fractions, `overfit` is train accuracy minus test accuracy, both evaluated in eval mode.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped

from gapbench.analysis.audits import audit_measures, both_right
from gapbench.experiment import Cell, Experiment
from gapbench.records import Record

Column = Float[np.ndarray, "T"]


class TimeTo(NamedTuple):
    """Steps until a target, or the last step where it was never reached (right-censored)."""

    step: float
    reached: bool


def steps_to_target(step: Shaped[np.ndarray, "T"], accuracy: Column, target: float, horizon: int) -> TimeTo:
    """Where the line to the first of two consecutive evaluations at or above the target crosses it.

    The grid's intervals grow, so taking the evaluation itself would be late by more the slower the head is.
    A run that ends earlier because it diverged never reaches it either: it is censored at the horizon too.
    """
    above = accuracy >= target
    twice = np.flatnonzero(above[:-1] & above[1:])
    if not len(twice):
        return TimeTo(float(horizon), False)
    after = int(twice[0])
    if after == 0:
        return TimeTo(float(step[0]), True)
    share = (target - accuracy[after - 1]) / (accuracy[after] - accuracy[after - 1])
    return TimeTo(float(step[after - 1] + share * (step[after] - step[after - 1])), True)


def at_train_loss(train_loss: Column, values: Column, level: float) -> float:
    """`values` where the train loss first falls to `level`, linear between the two evaluations around it.

    nan where the run never gets there, or starts below it.
    """
    below = np.flatnonzero(train_loss <= level)
    if not len(below) or below[0] == 0:
        return float("nan")
    after = int(below[0])
    span = train_loss[after - 1] - train_loss[after]
    share = (train_loss[after - 1] - level) / span
    return float(values[after - 1] + share * (values[after] - values[after - 1]))


def mean_over_training(step: Shaped[np.ndarray, "T"], values: Column) -> float:
    """Area under the curve divided by its length (trapezoids)."""
    return float(np.trapezoid(values, step) / (step[-1] - step[0]))


def geometric_mean(values: Column) -> float:
    """exp of the mean logarithm; nan where there is none or one is zero."""
    return float(np.exp(np.mean(np.log(values)))) if len(values) and np.all(values > 0) else float("nan")


def measure_run(record: Record, curve: pd.DataFrame, experiment: Experiment) -> dict[str, float | bool]:
    """Every measure of one run; `curve` holds its rows of the curves frame.

    overfit_final, overfit_best_val, overfit_at_LOSS, overfit_area, test_error, train_loss_final, val_accuracy_final,
    best_val_accuracy, val_area, {backbone,head}_gradient_{first,mean} (at the initial weights; geometric mean along
    training), and for each target steps_to_TARGET (restricted to the last step) with reached_TARGET.
    """
    nan = float("nan")
    row: dict[str, float | bool] = {}
    steps = curve["step"].to_numpy()
    train, val, test = (curve[f"{split}_accuracy"].to_numpy() for split in ("train", "val", "test"))
    overfit, train_loss = train - test, curve["train_loss"].to_numpy()
    whole = record.status == "ok"  # a diverged run has no last step, but it has a path to a target
    best = int(np.argmax(val)) if len(val) else 0
    row["overfit_final"] = record.final["train"].accuracy - record.final["test"].accuracy if whole else nan
    row["overfit_best_val"] = float(overfit[best]) if whole else nan
    for level in experiment.train_losses:
        row[f"overfit_at_{level:g}"] = at_train_loss(train_loss, overfit, level)
    row["overfit_area"] = mean_over_training(steps, overfit) if whole else nan
    row["test_error"] = 1 - record.final["test"].accuracy if whole else nan
    row["train_loss_final"] = record.final["train"].loss if whole else nan
    row["val_accuracy_final"] = record.final["val"].accuracy if whole else nan
    row["best_val_accuracy"] = float(val[best]) if len(val) else nan
    row["val_area"] = mean_over_training(steps, val) if whole else nan
    for part in ("backbone", "head"):
        norms = np.array(getattr(record.gradients, part))
        row[f"{part}_gradient_first"] = float(norms[0]) if len(norms) else nan
        row[f"{part}_gradient_mean"] = geometric_mean(norms)
    for target in experiment.targets:
        time = steps_to_target(steps, val, target, record.spec.recipe.steps)
        row[f"steps_to_{target:g}"], row[f"reached_{target:g}"] = time
    return row


def measures_frame(records: list[Record], curves: pd.DataFrame, experiment: Experiment) -> pd.DataFrame:
    """One row a trained run (ok or diverged) and regime that has it: its cell and arm, spec's fields and measures."""
    columns = ["step", *(f"{split}_{value}" for split in ("train", "val", "test") for value in ("loss", "accuracy"))]
    by_run = {str(run_id): rows for run_id, rows in curves.groupby("run_id")}
    empty = pd.DataFrame(columns=columns, dtype=float)
    measured = {
        record.spec: {
            "run_id": record.run_id,
            **record.spec.row,
            "arm": record.spec.arm,
            "status": record.status,
            **measure_run(record, by_run.get(record.run_id, empty), experiment),
            **audit_measures(record),
        }
        for record in records
        if record.status in ("ok", "diverged")
    }
    members = [(cell, spec) for cell, specs in experiment.cells.items() for spec in specs]
    frame = pd.DataFrame([cell._asdict() | measured[spec] for cell, spec in members if spec in measured])
    return add_both_right(frame, records, experiment)


def add_both_right(frame: pd.DataFrame, records: list[Record], experiment: Experiment) -> pd.DataFrame:
    """The frame with what the two halves of a pair score on the images that both classify correctly."""
    audited = {record.run_id: record for record in records if "images" in record.audits}
    if not audited:
        return frame
    for _, pair in frame[frame["arm"].isin(experiment.pair)].groupby([*Cell._fields, "seed"]):
        if len(pair) == 2 and set(pair["run_id"]) <= set(audited):
            for measure, values in both_right([audited[run_id] for run_id in pair["run_id"]]).items():
                frame.loc[pair.index, measure] = values
    return frame
