"""An experiment of many cells at a glance: in each, the sign of gap - flatten and its interval, and what survives."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from gapbench.analysis.claims import overall
from gapbench.analysis.evidence import Evidence
from gapbench.analysis.pairs import CELL, compare_pairs, paired_group, trained_cells
from gapbench.analysis.strata import stratified_interval
from gapbench.experiment import Cell, show
from gapbench.report.arms import Measure, draw_lying, frame_differences, measured
from gapbench.report.drawing import COLOURS, MARKERS, panel_grid
from gapbench.report.setting import WHERE, setting
from gapbench.report.table import Columns, Row, Table, number, signed_points, with_interval


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
    outcomes: dict[tuple[Any, ...], list[str]] = {}  # a claim may have several parts in a cell
    for card in evidence.cards:
        outcomes.setdefault((card.claim, card.regime, card.dataset, card.px, card.factors), []).append(card.outcome)
    return pd.DataFrame(
        [
            cell._asdict() | row | {claim: say(outcomes.get((claim, *cell))) for claim in experiment.family}
            for cell, row in rows.items()
        ]
    )


def say(outcomes: list[str] | None) -> str:
    """One outcome over the parts of a claim; empty where it was not judged."""
    return overall(outcomes) if outcomes else ""


def signs_table(evidence: Evidence) -> Table:
    """The signs, with intervals, and the verdicts cell by cell."""
    columns: Columns = dict(WHERE)
    for measure in measured(evidence):

        def text(row: Row, measure: Measure = measure) -> str:
            none = 1.0 if measure.ratio else 0.0
            low, high = row[f"{measure.name}_low"], row[f"{measure.name}_high"]
            sign = "−" if high < none else "+" if low > none else "0"
            told = in_row(row, measure)
            return told if told == "–" else f"{sign}  {told}"

        columns[measure.title] = text
    columns |= {claim: (lambda row, claim=claim: row[claim]) for claim in evidence.experiment.family}  # type: ignore[misc]
    caption = (
        "Does each verdict survive the recipe? gap - flatten in points (steps: gap / flatten), paired by seed: − and +"
        " where the 95 % interval lies below or above no difference, 0 where it holds it; a dash: no pair of runs got"
        f" there. {setting(evidence)}"
    )
    return Table("signs", caption, signs_frame(evidence), columns)


def factors_frame(evidence: Evidence) -> pd.DataFrame:
    """One row a regime, factor and level: gap against flatten over all cells of that level, which count alike."""
    experiment, rows = evidence.experiment, list[dict[str, Any]]()
    trained = trained_cells(evidence.measures, experiment)
    for regime in dict.fromkeys(cell.regime for cell in trained):
        for factor in experiment.factors:
            levels: dict[str, list[Cell]] = {}
            for cell, specs in trained.items():
                if cell.regime == regime:
                    levels.setdefault(show(specs[0].cell_row[factor]), []).append(cell)
            for level, found in levels.items():
                row = {"regime": regime, "factor": factor, "level": level, "cells": len(found)}
                for measure in measured(evidence):
                    reference, treatment = paired_group(evidence.measures, found, experiment.pair, measure.name)
                    interval = stratified_interval([reference], [treatment], measure.ratio)
                    kept = ("estimate", "low", "high", "n")
                    row |= {f"{measure.name}_{name}": getattr(interval, name) for name in kept}
                rows.append(row)
    return pd.DataFrame(rows)


def factors_table(evidence: Evidence) -> Table:
    """What each level of each factor makes of the difference, over the levels of all the others."""
    names = ("regime", "factor", "level", "cells")
    columns: Columns = {name: (lambda row, name=name: str(row[name])) for name in names}  # type: ignore[misc]
    for measure in measured(evidence):
        columns[measure.title] = lambda row, measure=measure: in_row(row, measure)  # type: ignore[misc]
    caption = (
        "What each level makes of the difference, over all levels of the other factors: gap - flatten in points (steps:"
        " gap / flatten), a mean over the cells, which count alike."
        f" {setting(evidence, bootstrap='percentile bootstrap that draws a seed in all of these cells at once')}"
    )
    return Table("factors", caption, factors_frame(evidence), columns)


def in_row(row: Row, measure: Measure) -> str:
    """A measure's estimate and interval in a row of either frame; a dash where there is none."""
    low, estimate, high = (row[f"{measure.name}_{end}"] for end in ("low", "estimate", "high"))
    return with_interval(estimate, low, high, number if measure.ratio else signed_points)


def draw_signs(evidence: Evidence) -> Figure:
    """gap against flatten, a row a cell, a panel a measure."""
    frame, experiment = signs_frame(evidence), evidence.experiment
    flatten, gap = experiment.pair
    cells = experiment.cells  # derived anew at each call
    specs = [cells[Cell(*(row[name] for name in CELL))][0] for row in frame.to_dict("records")]
    levels = [[show(spec.cell_row[name]) for name in experiment.factors] for spec in specs]
    labels = aligned([experiment.factors, *levels])
    figure, (axes,) = panel_grid(1, 3, height=0.26 * len(labels) + 1.0, sharey=True)
    look: dict[str, Any] = {"fmt": MARKERS[1], "color": COLOURS[1], "markersize": 5, "capsize": 3}
    for ax, measure in zip(axes, measured(evidence), strict=True):
        names = [f"{measure.name}_{end}" for end in ("estimate", "low", "high")]
        draw_lying(ax, np.arange(1, len(labels)), frame[names], **look)
        frame_differences(ax, measure, gap, flatten)
    axes[0].set_yticks(range(len(labels)), labels, fontsize=8, family="monospace")
    axes[0].set_ylim(len(labels) - 0.5, -0.5)
    return figure


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Each row as one line of columns, for a font of equal widths."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)) for row in rows]
    return [line.replace(" ", "\N{NO-BREAK SPACE}") for line in lines]  # SVG folds plain ones
