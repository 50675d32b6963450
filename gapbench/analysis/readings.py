"""Seven ways of saying that a net overfits, side by side, and in words which of them holds."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from gapbench.analysis.pairs import CELL, compare_pairs
from gapbench.experiment import Experiment


def label_readings(experiment: Experiment) -> dict[str, str]:
    """Measure to words: overfit at each matched train loss (the first is primary), then the others, then test error."""
    return {
        **{f"overfit_at_{level:g}": f"overfit at train loss {level:g}" for level in experiment.train_losses},
        "overfit_final": "overfit at the last step",
        "overfit_best_val": "overfit at best validation",
        "overfit_area": "overfit, mean over training",
        "test_error": "test error",
    }


def readings_frame(measures: pd.DataFrame, experiment: Experiment) -> pd.DataFrame:
    """One row a cell and reading (`compare_pairs`), with its `sign` and whether the cell's readings `disagree`.

    sign: -1 or 1 where the 95 % interval lies below or above zero, else 0. A cell disagrees where one of its readings
    is decided below zero and another above.
    """
    tables = [compare_pairs(measures, experiment, name) for name in label_readings(experiment)]
    frame = pd.concat(tables, ignore_index=True)
    frame["sign"] = np.where(frame["high"] < 0, -1, np.where(frame["low"] > 0, 1, 0))
    signs = frame.groupby(CELL, sort=False)["sign"]
    frame["disagree"] = (signs.transform("min") < 0) & (signs.transform("max") > 0)
    return frame


def describe_readings(frame: pd.DataFrame, experiment: Experiment) -> str:
    """A paragraph: in how many cells each reading says that the arm under test overfits less, and what follows."""
    gap = experiment.pair[1]
    sentences = []
    for regime, rows in frame.groupby("regime", sort=False):
        cells = rows[CELL].drop_duplicates()
        counts = []
        for measure, label in label_readings(experiment).items():
            sign = rows.loc[rows["measure"] == measure, "sign"]
            counts.append(f"{label}: lower in {(sign < 0).sum()}, higher in {(sign > 0).sum()}")
        sentences.append(f"In the {regime} regime, of {len(cells)} cells, with {gap} it is, for {'; '.join(counts)}.")
        sentences.append(conclude([own for _, own in rows.groupby(CELL, sort=False)], gap))
    return " ".join(sentences)


def conclude(cells: Sequence[pd.DataFrame], gap: str) -> str:
    """Which reading holds, from the signs of each cell."""
    less = [cell for cell in cells if (cell.loc[cell["measure"] != "test_error", "sign"] < 0).any()]
    worse = [cell for cell in less if (cell.loc[cell["measure"] == "test_error", "sign"] > 0).any()]
    better = [cell for cell in less if (cell.loc[cell["measure"] == "test_error", "sign"] < 0).any()]
    of = f"{len(less)} of {len(cells)} cells"
    if not less:
        return f"No reading finds less overfit with {gap} in any cell."
    if len(worse) > len(less) / 2:
        return (
            f"Some reading finds less overfit with {gap} in {of}, and in {len(worse)} of those its test error is"
            " higher: the smaller difference is that of a net that fits less, not of one that generalises better."
        )
    if len(better) > len(less) / 2:
        return (
            f"Some reading finds less overfit with {gap} in {of}, and in {len(better)} of those its test error is lower"
            " too: there it regularises."
        )
    return f"Some reading finds less overfit with {gap} in {of}; mostly without a decided difference in test error."
