"""Join the two arms of each seed, and compare a measure over the pairs of each cell."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from gapbench.analysis import stats
from gapbench.experiment import Cell, Experiment
from gapbench.spec import RunSpec

CELL = list(Cell._fields)  # what a table's row is
PROBABILITY = ("probability_gap_lower", "probability_low", "probability_high")
NUMBERS = ("estimate", "low", "high", "sign_flip_p", "wilcoxon_p", "correlation", *PROBABILITY)


def cell_rows(measures: pd.DataFrame, cell: Cell, arm: str | None = None) -> pd.DataFrame:
    """The rows of one cell, or of one arm in it."""
    inside = (measures[CELL] == list(cell)).all(axis=1)
    return measures[inside if arm is None else inside & (measures["arm"] == arm)]


def trained_cells(measures: pd.DataFrame, experiment: Experiment) -> dict[Cell, tuple[RunSpec, ...]]:
    """The declared runs of each cell of which one is trained, in the order of the declaration."""
    found = set(measures[CELL].itertuples(index=False, name=None))
    return {cell: specs for cell, specs in experiment.cells.items() if tuple(cell) in found}


def cells(measures: pd.DataFrame, experiment: Experiment) -> list[Cell]:
    """The declared cells of which there is a trained run, in the order of the declaration."""
    return list(trained_cells(measures, experiment))


def cells_by_regime(measures: pd.DataFrame, experiment: Experiment) -> dict[str, list[Cell]]:
    """The trained cells of each regime."""
    found: dict[str, list[Cell]] = {}
    for cell in cells(measures, experiment):
        found.setdefault(cell.regime, []).append(cell)
    return found


def paired_values(
    measures: pd.DataFrame, cell: Cell, pair: tuple[str, str], measure: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(seeds, reference, treatment) of one cell, in the order of the seeds; pairs with a missing half are left out."""
    wide = cell_rows(measures, cell).pivot(index="seed", columns="arm", values=measure).reindex(columns=list(pair))
    wide = wide.dropna()
    reference, treatment = (wide[arm].to_numpy(dtype=float) for arm in pair)
    return wide.index.to_numpy(), reference, treatment


def paired_group(
    measures: pd.DataFrame, found: Sequence[Cell], pair: tuple[str, str], measure: str
) -> tuple[np.ndarray, np.ndarray]:
    """(reference, treatment) of several cells of one experiment, [cells, seeds]; nan where a half is missing."""
    halves = [
        pd.DataFrame(dict(zip(pair, values, strict=True)), index=seeds)
        for seeds, *values in (paired_values(measures, cell, pair, measure) for cell in found)
    ]
    wide = pd.concat(halves, axis=1, keys=range(len(halves)))
    reference, treatment = (wide.xs(arm, axis=1, level=1).to_numpy(dtype=float).T for arm in pair)
    return reference, treatment


def compare_pairs(
    measures: pd.DataFrame,
    experiment: Experiment,
    measure: str,
    ratio: bool = False,
    pair: tuple[str, str] | None = None,
) -> pd.DataFrame:
    """One row a cell: both means, the paired difference (or ratio) with its interval, tests, n, and what was left out.

    `pair` is the reference arm and the one under test, by default those of the experiment. The p values are those of
    the paired differences in either case.
    """
    reference_arm, treatment_arm = pair or experiment.pair
    rows: list[dict[str, Any]] = []
    for cell, specs in trained_cells(measures, experiment).items():
        _, reference, treatment = paired_values(measures, cell, (reference_arm, treatment_arm), measure)
        expected = sum(spec.arm == treatment_arm for spec in specs)
        row: dict[str, Any] = cell._asdict()
        row |= {"measure": measure, "pairs_left_out": expected - len(reference)}
        means = [f"{arm}_mean" for arm in (reference_arm, treatment_arm)]
        if not len(reference):
            rows.append(row | dict.fromkeys([*means, *NUMBERS], float("nan")) | {"n": 0, "method": "none"})
            continue
        interval = (stats.ratio_interval if ratio else stats.difference_interval)(reference, treatment)
        differences = treatment - reference
        row |= dict(zip(means, (float(np.mean(reference)), float(np.mean(treatment))), strict=True))
        row |= {
            **interval._asdict(),
            "sign_flip_p": stats.sign_flip_p(differences),
            "wilcoxon_p": stats.wilcoxon_p(differences),
            "correlation": stats.correlation(reference, treatment),
            **dict(zip(PROBABILITY, stats.probability_interval(reference, treatment)[:3], strict=True)),
        }
        rows.append(row)
    return pd.DataFrame(rows)
