"""Which peak learning rate each head would choose, by one rule, from an experiment whose axis is `peak_lr`.

The rule: the rate with the highest validation accuracy at the last step, over the whole validation split, averaged over
the experiment's seeds and sizes; a run that diverged counts as zero; of equal rates the smaller. The runs that are
then judged use other seeds, and no test image is looked at.
"""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from gapbench.analysis.stats import mean_interval
from gapbench.experiment import Experiment


class Rules(NamedTuple):
    """What an experiment tuned on these records declares before its own runs."""

    rates: dict[str, float]  # the tuned regime's peak_lr by head
    target: float  # validation accuracy: the median best one of the weakest tuned cell, rounded down to a percent
    train_loss: float  # that every run at a tuned or the shared rate fell below, rounded up to a tenth


def tuning_frame(measures: pd.DataFrame, experiment: Experiment) -> pd.DataFrame:
    """One row a head and rate: the mean score with its interval over n seeds, and whether it is `chosen`.

    `at_edge`: the chosen rate is the grid's first or last, so that a better one may lie outside.
    """
    runs = measures[(measures["regime"] == "shared") & measures["arm"].isin(experiment.pair)]
    scored = runs.assign(score=runs["val_accuracy_final"].fillna(0.0))
    by_seed = scored.groupby(["arm", "peak_lr", "seed"], sort=True)["score"].mean()  # over sizes
    rows = []
    for (arm, rate), scores in by_seed.groupby(["arm", "peak_lr"]):
        interval = mean_interval(scores.to_numpy(dtype=float))
        rows.append({"arm": arm, "peak_lr": rate, **interval._asdict()})
    frame = pd.DataFrame(rows)
    best = frame.groupby("arm")["estimate"].transform("max")
    frame["chosen"] = (frame["estimate"] == best) & ~(frame["estimate"] == best).groupby(frame["arm"]).cumsum().gt(1)
    ends = frame.groupby("arm")["peak_lr"].agg(["min", "max"])
    at_end = [rate in tuple(ends.loc[arm]) for arm, rate in zip(frame["arm"], frame["peak_lr"], strict=True)]
    frame["at_edge"] = frame["chosen"] & np.array(at_end)
    return frame


def derive_rules(measures: pd.DataFrame, experiment: Experiment, shared_rate: float) -> Rules:
    """The tuned rates, and a target and a train loss that runs at those and at the shared rate can reach."""
    frame = tuning_frame(measures, experiment)
    chosen = frame[frame["chosen"]]
    rates = dict(zip(chosen["arm"], chosen["peak_lr"].tolist(), strict=True))
    own = measures["peak_lr"] == measures["arm"].map(rates)
    tuned, used = measures[own], measures[own | (measures["peak_lr"] == shared_rate)]
    weakest = tuned.groupby(["px", "arm"])["best_val_accuracy"].median().min()
    return Rules(rates, math.floor(100 * weakest) / 100, math.ceil(10 * used["train_loss_final"].max()) / 10)
