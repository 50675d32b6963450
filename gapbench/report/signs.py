"""An experiment of many cells at a glance: in each, the sign of gap - flatten and its interval, and what survives."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from gapbench.analysis.claims import TESTED
from gapbench.analysis.evidence import Evidence
from gapbench.analysis.pairs import CELL, compare_pairs
from gapbench.experiment import Cell
from gapbench.report.arms import draw_lying, frame_differences, measured
from gapbench.report.drawing import COLOURS, MARKERS, panel_grid
from gapbench.report.setting import WHERE, setting
from gapbench.report.table import Columns, Row, Table, number, signed_points


def has_factors(evidence: Evidence) -> bool:
    """Whether several things vary at once, so that no single axis holds the cells."""
    return len(evidence.experiment.factors) > 1


def signs_frame(evidence: Evidence) -> pd.DataFrame:
    """One row a cell: gap against flatten in the measures of the claims, and the outcome of each judged claim."""
    experiment = evidence.experiment
    rows: dict[Cell, dict[str, Any]] = {}
    for measure in measured(evidence):
        for row in compare_pairs(evidence.measures, experiment, measure.name, measure.ratio).to_dict("records"):
            cell = Cell(*(row[name] for name in CELL))
            kept = {f"{measure.name}_{name}": row[name] for name in ("estimate", "low", "high", "n")}
            rows.setdefault(cell, {}).update(kept)
    outcomes = {(c.claim, c.regime, c.dataset, c.px, c.factors): c.outcome for c in evidence.cards}
    return pd.DataFrame(
        [
            cell._asdict() | row | {claim: outcomes.get((claim, *cell), "") for claim in TESTED}
            for cell, row in rows.items()
        ]
    )


def signs_table(evidence: Evidence) -> Table:
    """The signs, with intervals, and the verdicts cell by cell."""
    columns: Columns = dict(WHERE)
    for measure in measured(evidence):

        def text(row: Row, name: str = measure.name, ratio: bool = measure.ratio) -> str:
            low, estimate, high = (row[f"{name}_{end}"] for end in ("low", "estimate", "high"))
            if pd.isna(estimate):
                return "–"
            show, none = (number, 1.0) if ratio else (signed_points, 0.0)
            sign = "−" if high < none else "+" if low > none else "0"
            return f"{sign}  {show(estimate)} [{show(low)}, {show(high)}]"

        columns[measure.title] = text
    columns |= {claim: (lambda row, claim=claim: row[claim]) for claim in TESTED}  # type: ignore[misc]
    caption = (
        "Does each verdict survive the recipe? gap - flatten in points (steps: gap / flatten), paired by seed: − and +"
        " where the 95 % interval lies below or above no difference, 0 where it holds it; a dash: no pair of runs got"
        f" there. {setting(evidence)}"
    )
    return Table("signs", caption, signs_frame(evidence), columns)


def draw_signs(evidence: Evidence) -> Figure:
    """gap against flatten, a row a cell, a panel a measure."""
    frame, (flatten, gap) = signs_frame(evidence), evidence.experiment.pair
    labels = [Cell(*(row[name] for name in CELL)).factors for row in frame.to_dict("records")]
    figure, (axes,) = panel_grid(1, 3, height=0.28 * len(labels) + 1.0, sharey=True)
    look: dict[str, Any] = {"fmt": MARKERS[1], "color": COLOURS[1], "markersize": 5, "capsize": 3}
    for ax, measure in zip(axes, measured(evidence), strict=True):
        names = [f"{measure.name}_{end}" for end in ("estimate", "low", "high")]
        draw_lying(ax, np.arange(len(labels)), frame[names], **look)
        frame_differences(ax, measure, gap, flatten)
    axes[0].set_yticks(range(len(labels)), labels, fontsize=8)
    axes[0].invert_yaxis()
    return figure
