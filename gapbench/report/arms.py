"""Every arm of an experiment against the one under test: what remains when something is taken away."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from gapbench.analysis import stats
from gapbench.analysis.evidence import Evidence
from gapbench.analysis.pairs import CELL, cell_rows, cells, compare_pairs
from gapbench.counts import MATCHED, match_error
from gapbench.experiment import Cell
from gapbench.records import Record
from gapbench.report.drawing import (
    COLOURS,
    DASHES,
    MARKERS,
    draw_points,
    in_percent,
    label_size,
    legend_above,
    panel_grid,
)
from gapbench.report.setting import WHERE, setting
from gapbench.report.table import Columns, Row, Table, between, number, p_value, percent, signed_points

LINES = (*COLOURS, "#009e73", "#cc79a7")  # a cell each


class Measure(NamedTuple):
    """What arms are compared in."""

    name: str
    title: str
    ratio: bool = False


def measured(evidence: Evidence) -> tuple[Measure, ...]:
    """The three of the claims: overfit at matched train loss, test error, and steps to the target."""
    experiment = evidence.experiment
    level, target = experiment.train_losses[0], experiment.targets[0]
    return (
        Measure(f"overfit_at_{level:g}", f"overfit at train loss {level:g}"),
        Measure("test_error", "test error"),
        Measure(f"steps_to_{target:g}", f"steps to {target:.0%}", ratio=True),
    )


def has_more_arms(evidence: Evidence) -> bool:
    """Whether there are arms beside the pair."""
    return len(evidence.experiment.arms) > 2


def has_ladder(evidence: Evidence) -> bool:
    """Whether a grid between gap and flatten was trained."""
    return any(arm.startswith("ladder:") for arm in evidence.experiment.arms)


def arms_frame(evidence: Evidence) -> pd.DataFrame:
    """One row a measure, arm and cell: the arm against the one under test (`compare_pairs`), and its parameters."""
    experiment, base = evidence.experiment, evidence.experiment.pair[1]
    built = {(r.spec.task.px, r.spec.arm): r for r in evidence.records if r.parameters}
    rows = []
    for measure in measured(evidence):
        for arm in experiment.arms:
            if arm == base:
                continue
            found = compare_pairs(evidence.measures, experiment, measure.name, measure.ratio, (base, arm))
            found = found.rename(columns={f"{base}_mean": "base_mean", f"{arm}_mean": "arm_mean"})
            nets = [built.get((px, arm)) for px in found["px"]]
            found["head_parameters"] = [net.parameters["head"] if net else np.nan for net in nets]
            found["match_error"] = [of_match(net) if net else np.nan for net in nets]
            rows.append(found.assign(arm=arm, ratio=measure.ratio, title=measure.title))
    return pd.concat(rows, ignore_index=True)


def of_match(net: Record) -> float:
    """How far a matched head misses the parameters of its model; nan for the others."""
    spec = net.spec
    if spec.head not in MATCHED:
        return np.nan
    return match_error(spec.head, spec.backbone.channels, spec.backbone.feature_px(spec.task.px), net.classes)


def arms_table(evidence: Evidence) -> Table:
    """Every arm against the one under test, measure by measure."""
    base, raw = evidence.experiment.pair[1], arms_frame(evidence)

    def value(row: Row, key: str) -> str:
        return number(row[key]) if row["ratio"] else percent(row[key])

    def change(row: Row, key: str) -> str:
        return number(row[key]) if row["ratio"] else signed_points(row[key])

    columns: Columns = {
        **WHERE,
        "measure": lambda r: r["title"],
        "arm": lambda r: r["arm"],
        "head parameters": lambda r: number(r["head_parameters"]),
        "matched to within": lambda r: "–" if pd.isna(r["match_error"]) else f"{100 * r['match_error']:+.1f} %",
        base: lambda r: value(r, "base_mean"),
        "this arm": lambda r: value(r, "arm_mean"),
        f"arm - {base}, points (steps: arm / {base})": lambda r: change(r, "estimate"),
        "95 % interval": lambda r: between(r["low"], r["high"], lambda v: change({**r, "end": v}, "end")),
        "n": lambda r: str(r["n"]),
        "p (sign flip)": lambda r: p_value(r["sign_flip_p"]),
        "correlation": lambda r: "–" if pd.isna(r["correlation"]) else f"{r['correlation']:.2f}",
    }
    caption = (
        f"Every arm against {base}, paired by seed: what remains of the difference to flatten when one thing is taken"
        " away. Matched to within: parameters of a head whose size was fitted to another's, relative to that one."
        " `again`: the same run trained twice, which shows what the hardware itself adds. p values are not adjusted."
        f" {setting(evidence)}"
    )
    return Table("arms", caption, raw, columns)


def draw_lying(ax: Axes, y: np.ndarray, intervals: pd.DataFrame, **look: Any) -> None:
    """Estimates with their intervals, a row each; `intervals` has the columns estimate, low, high in this order."""
    centre, low, high = intervals.to_numpy(dtype=float).T
    ax.errorbar(centre, y, xerr=np.abs(np.stack([centre - low, high - centre])), **look)


def frame_differences(ax: Axes, measure: Measure, one: str, other: str) -> None:
    """What a panel of differences, or of ratios, between two arms has around it."""
    ax.axvline(1 if measure.ratio else 0, color="#444444", linewidth=1)
    ax.set_title(measure.title, fontsize=11)
    label = points = f"{one} - {other}, points"
    if measure.ratio:
        label = f"{one} / {other}"
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        if np.abs(ax.dataLim.intervalx).max() > 0.15:  # one arm that failed must not hide the signs of the others
            label += "\n(logarithmic beyond 2)"
            ax.set_xscale("symlog", linthresh=0.02)
            ax.set_xticks([sign * tick for sign in (-1, 1) for tick in (0.05, 0.5)] + [0])
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:+g}" if value else "0"))
    ax.set_xlabel(label, fontsize=label_size(points))  # one size for all panels


def draw_forest(evidence: Evidence) -> Figure:
    """A forest plot: paired differences against the arm under test, a row an arm, a panel a measure."""
    frame, experiment = arms_frame(evidence), evidence.experiment
    arms = [arm for arm in experiment.arms if arm != experiment.pair[1]]
    found = cells(evidence.measures, experiment)
    figure, (axes,) = panel_grid(1, 3, height=0.4 * len(arms) + 1.2, sharey=True)
    for ax, measure in zip(axes, measured(evidence), strict=True):
        for i, cell in enumerate(found):
            rows = frame[(frame["measure"] == measure.name) & (frame[CELL] == list(cell)).all(axis=1)].set_index("arm")
            offset = (i - (len(found) - 1) / 2) * 0.25
            look = {"fmt": MARKERS[i % 2], "color": LINES[i], "label": place(cell), "markersize": 5, "capsize": 3}
            draw_lying(ax, np.arange(len(arms)) + offset, rows.loc[arms, ["estimate", "low", "high"]], **look)
        frame_differences(ax, measure, "arm", experiment.pair[1])
        ax.set_yticks(range(len(arms)), arms)
    axes[0].invert_yaxis()
    legend_above(figure, axes[0], len(found))
    return figure


def place(cell: Cell) -> str:
    """A cell in a legend."""
    return cell.factors or f"{cell.regime}, {cell.px} px"


def rungs(arms: tuple[str, ...], kind: str, side: int) -> dict[int, str]:
    """The arms of one ladder by the side of its grid, from gap's 1 to flatten's H'."""
    tiled = "_tiled" if kind == "ladder_tiled" else ""
    ends = {1: "gap", side: f"flatten{tiled}"}
    between_ends = {int(arm.partition(":")[2]): arm for arm in arms if arm.startswith(f"{kind}:")}
    return {g: arm for g, arm in sorted((ends | between_ends).items()) if arm in arms}


def draw_ladder(evidence: Evidence) -> Figure:
    """Dose and response: overfit, test error and steps against the side of the averaged grid, a row a cell."""
    experiment, found = evidence.experiment, cells(evidence.measures, evidence.experiment)
    figure, axes = panel_grid(len(found), 3, sharex=True, sharey="col")
    kinds = {"ladder": "default initialisation", "ladder_tiled": "starts as gap's function"}
    for line, cell in zip(axes, found, strict=True):
        side = experiment.runs[0].backbone.feature_px(cell.px)
        for ax, measure in zip(line, measured(evidence), strict=True):
            for i, (kind, label) in enumerate(kinds.items()):
                means = {
                    g: interval_of(evidence, cell, arm, measure)
                    for g, arm in rungs(experiment.arms, kind, side).items()
                }
                kept = {g: mean for g, mean in means.items() if mean is not None}
                beside = [g + (i - 0.5) * 0.1 for g in kept]
                draw_points(ax, beside, list(kept.values()), fmt=MARKERS[i] + DASHES[i], color=COLOURS[i], label=label)
            ax.set_xticks(range(1, side + 1))
            if not measure.ratio:
                in_percent(ax.yaxis, None)
            if line is axes[0]:
                ax.set_title(measure.title, fontsize=11)
        line[0].set_ylabel(place(cell))
    for ax in axes[-1]:
        ax.set_xlabel("g (1: gap, last: flatten)", fontsize=10)
    legend_above(figure, axes[0][0], 2)
    return figure


def interval_of(evidence: Evidence, cell: Cell, arm: str, measure: Measure) -> stats.Interval | None:
    """Mean over seeds; None where fewer than two runs have a value."""
    values = cell_rows(evidence.measures, cell, arm)[measure.name].dropna().to_numpy(dtype=float)
    return stats.mean_interval(values) if len(values) > 1 else None
