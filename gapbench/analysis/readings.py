"""Seven ways of saying that a net overfits, side by side, and in words which of them holds."""

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int

from gapbench.analysis.pairs import CELL, compare_pairs
from gapbench.analysis.power import fewest_pairs
from gapbench.experiment import Experiment

Signs = Int[np.ndarray, "N"]  # by cell: -1, 0 or 1


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

    sign: -1 or 1 where the 95 % interval of enough pairs lies below or above zero, else 0. A cell disagrees where one
    of its readings is decided below zero and another above.
    """
    tables = [compare_pairs(measures, experiment, name) for name in label_readings(experiment)]
    frame = pd.concat(tables, ignore_index=True)
    frame["sign"] = np.where(frame["high"] < 0, -1, np.where(frame["low"] > 0, 1, 0)) * (frame["n"] >= fewest_pairs())
    signs = frame.groupby(CELL, sort=False)["sign"]
    frame["disagree"] = (signs.transform("min") < 0) & (signs.transform("max") > 0)
    return frame


def describe_readings(frame: pd.DataFrame, losses: pd.DataFrame, experiment: Experiment) -> str:
    """A paragraph: in how many cells each reading says that the arm under test overfits less, and which reading holds.

    `losses` is `compare_pairs` on the train loss at the last step: where it differs, overfit there is no reading of
    equals.
    """
    gap = experiment.pair[1]
    sentences = []
    for regime, rows in frame.groupby("regime", sort=False):
        signs = {measure: own["sign"].to_numpy() for measure, own in rows.groupby("measure", sort=False)}
        counts = [
            f"{label}: lower in {(signs[measure] < 0).sum()}, higher in {(signs[measure] > 0).sum()}"
            for measure, label in label_readings(experiment).items()
        ]
        cells = len(rows[CELL].drop_duplicates())
        sentences.append(f"In the {regime} regime, of {cells} cells, with {gap} it is, for {'; '.join(counts)}.")
        worse_fit = (losses.loc[losses["regime"] == regime, "low"] > 0).to_numpy()
        matched = signs[f"overfit_at_{experiment.train_losses[0]:g}"]
        sentences.append(conclude(matched, signs["overfit_final"], signs["test_error"], worse_fit, gap))
    return " ".join(sentences)


def conclude(matched: Signs, final: Signs, error: Signs, worse_fit: Bool[np.ndarray, "N"], gap: str) -> str:
    """Which reading holds, from each cell's signs at matched train loss, at the last step and of test error."""
    said, less, cells = [], final < 0, f"of {len(matched)} cells"
    unfit = less & worse_fit & (matched >= 0)
    if unfit.any():
        said.append(
            f"In {unfit.sum()} of the {less.sum()} cells with less overfit at the last step {gap} fits less, with a"
            " higher train loss, and has no less overfit where the train losses match."
        )
    regularises, bought = ((matched < 0) & side for side in (error < 0, error > 0))
    if regularises.any():
        said.append(
            f"In {regularises.sum()} {cells} it overfits less at matched train loss and errs less: it regularises."
        )
    if bought.any():
        said.append(f"In {bought.sum()} {cells} less overfit at matched train loss comes with a higher test error.")
    if not (matched < 0).any():
        said.append(f"The reading of equals, at matched train loss, finds less overfit with {gap} in no cell.")
    return " ".join(said)
