"""Gradient norms of backbone and head, beside the usual account of why GAP is slow."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gapbench.analysis.evidence import Evidence
from gapbench.analysis.pairs import cell_rows, cells_by_regime, compare_pairs
from gapbench.report.drawing import COLOURS, DASHES, legend_above, panel_grid, wrapped
from gapbench.report.setting import WHERE, by_cell, setting
from gapbench.report.table import Columns, Table, between, number


def gradients_table(evidence: Evidence) -> Table:
    """Gradient norms of both heads and their ratio, beside the usual prediction."""
    experiment = evidence.experiment
    flatten, gap = experiment.pair
    labels = {
        f"{part}_gradient_{when}": f"{part}, {text}"
        for part in ("backbone", "head")
        for when, text in (("first", "at the initial weights"), ("mean", "along training (geometric mean)"))
    }
    tables = [compare_pairs(evidence.measures, experiment, name, ratio=True) for name in labels]
    raw = by_cell(pd.concat(tables, ignore_index=True), experiment)
    backbone = experiment.runs[0].backbone
    raw["predicted"] = [
        1 / backbone.feature_px(row["px"]) ** 2 if row["measure"] == "backbone_gradient_first" else np.nan
        for row in raw.to_dict("records")
    ]
    columns: Columns = {
        **WHERE,
        "gradient of": lambda r: labels[r["measure"]],
        flatten: lambda r: number(r[f"{flatten}_mean"]),
        gap: lambda r: number(r[f"{gap}_mean"]),
        f"{gap} / {flatten}": lambda r: number(r["estimate"]),
        "95 % interval": lambda r: between(r["low"], r["high"], number),
        "1 / H'W'": lambda r: number(r["predicted"]),
        "n": lambda r: str(r["n"]),
    }
    caption = (
        "L2 norm of a batch's gradient, in the step that begins at each evaluation. The usual account of GAP's"
        " slowness is that averaging divides the gradient by H'W': then the ratio of the backbone's norms would be"
        " 1 / H'W'. Along training the norms also fall as the loss does, so a head that learns faster ends with less."
        f" {setting(evidence)}"
    )
    return Table("gradients", caption, raw, columns)


def draw_gradients(evidence: Evidence) -> Figure:
    """Gradient norms over steps, geometric mean over seeds: solid the backbone's, dashed the head's; a row a regime."""
    norms = {record.run_id: record.gradients for record in evidence.records}
    rows = cells_by_regime(evidence.measures, evidence.experiment)
    figure, axes = panel_grid(len(rows), max(map(len, rows.values())), sharey=True, sharex=True)
    for line, (regime, own_cells) in zip(axes, rows.items(), strict=True):
        for ax, cell in zip(line, own_cells, strict=False):
            for arm, colour in zip(evidence.experiment.pair, COLOURS, strict=True):
                own = [norms[run] for run in cell_rows(evidence.measures, cell, arm)["run_id"]]
                own = [g for g in own if own and len(g.step) == max(len(o.step) for o in own)]
                for part, dash in zip(("backbone", "head"), DASHES, strict=True):
                    values = np.array([getattr(g, part) for g in own])
                    if values.size:
                        with np.errstate(divide="ignore"):  # a net of dead units has a gradient of zero
                            means = np.exp(np.log(values).mean(axis=0))
                        ax.plot(own[0].step, means, dash, color=colour, label=f"{arm}, {part}")
            ax.set_yscale("log")
            ax.set_title(wrapped(f"{regime}, {cell.label}", len(line)), fontsize=10)
            ax.xaxis.set_major_locator(MaxNLocator(3, integer=True))
        line[0].set_ylabel("gradient norm")
    for ax in axes[-1]:
        ax.set_xlabel("training step")
    legend_above(figure, axes[0][0], 4)
    return figure


def has_gradients(evidence: Evidence) -> bool:
    """Whether records have them."""
    return bool(evidence.measures["backbone_gradient_first"].notna().any())
