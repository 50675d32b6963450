"""Join the two heads of each seed, and compare a measure over the pairs of each cell."""

from typing import Any

import numpy as np
import pandas as pd

from gapbench.analysis import stats
from gapbench.spec import Experiment

CELL = ["dataset", "px"]  # what a table's row is; a pair shares these and every other field of the spec but the head

NUMBERS = ("estimate", "low", "high", "sign_flip_p", "wilcoxon_p", "correlation", "probability_gap_lower")


def cells(measures: pd.DataFrame) -> list[tuple[str, int]]:
    """The (dataset, px) of each row of a table, in the order of the input size."""
    found = measures[CELL].drop_duplicates().sort_values(CELL)
    return [(str(dataset), int(px)) for dataset, px in found.itertuples(index=False)]


def paired_values(
    measures: pd.DataFrame, experiment: Experiment, cell: tuple[str, int], measure: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(seeds, reference, treatment) of one cell, in the order of the seeds; pairs with a missing half are left out."""
    rows = measures[(measures["dataset"] == cell[0]) & (measures["px"] == cell[1])]
    wide = rows.pivot(index="seed", columns="head", values=measure).reindex(columns=list(experiment.pair)).dropna()
    reference, treatment = (wide[head].to_numpy(dtype=float) for head in experiment.pair)
    return wide.index.to_numpy(), reference, treatment


def compare_pairs(measures: pd.DataFrame, experiment: Experiment, measure: str, ratio: bool = False) -> pd.DataFrame:
    """One row a cell: both means, the paired difference (or ratio) with its interval, tests, n, and what was left out.

    The p values are those of the paired differences in either case.
    """
    declared = pd.DataFrame([spec.row for spec in experiment.runs if spec.head == experiment.pair[1]])
    rows: list[dict[str, Any]] = []
    for cell in cells(measures):
        _, reference, treatment = paired_values(measures, experiment, cell, measure)
        expected = int(((declared["dataset"] == cell[0]) & (declared["px"] == cell[1])).sum())
        row: dict[str, Any] = dict(zip(CELL, cell, strict=True))
        row |= {"measure": measure, "pairs_left_out": expected - len(reference)}
        if not len(reference):
            means = [f"{head}_mean" for head in experiment.pair]
            rows.append(row | dict.fromkeys([*means, *NUMBERS], float("nan")) | {"n": 0, "method": "none"})
            continue
        interval = (stats.ratio_interval if ratio else stats.difference_interval)(reference, treatment)
        differences = treatment - reference
        row |= {
            f"{experiment.pair[0]}_mean": float(np.mean(reference)),
            f"{experiment.pair[1]}_mean": float(np.mean(treatment)),
            **interval._asdict(),
            "sign_flip_p": stats.sign_flip_p(differences),
            "wilcoxon_p": stats.wilcoxon_p(differences),
            "correlation": stats.correlation(reference, treatment),
            "probability_gap_lower": stats.probability_lower(reference, treatment),
        }
        rows.append(row)
    return pd.DataFrame(rows)
