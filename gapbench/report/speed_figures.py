"""Throughput frame to figures: the pair's ratio, and how near the device's own roofs both heads come."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator

from gapbench.analysis import stats
from gapbench.analysis.evidence import Evidence
from gapbench.report.drawing import COLOURS, DASHES, MARKERS, draw_points, legend_above, panels

PHASES = (("train", "training step", "#009e73"), ("infer", "inference", "#cc79a7"))
PRECISIONS: dict[str, dict[str, Any]] = {  # of its points and of its roof
    "float32": {"fillstyle": "full", "linestyle": "-"},
    "bfloat16": {"fillstyle": "none", "linestyle": "--"},
}
AXES = {"px": "input size, px", "batch": "batch", "fleet": "replicas in one program"}


def one_device(evidence: Evidence) -> pd.DataFrame:
    """The timed cells of an accelerator, or of the CPU where none was timed."""
    throughput = evidence.throughput
    timed = throughput[throughput["status"] == "ok"]
    first = timed.sort_values("platform", key=lambda platform: platform == "cpu", kind="stable").head(1)
    return timed[timed["device"].isin(first["device"]) & timed["jax"].isin(first["jax"])]


def say_device(figure: Figure, timed: pd.DataFrame, note: str = "") -> None:
    """What was measured, below."""
    device = timed.iloc[0]
    text = f"{device['platform'].upper()}: {device['device']}, jax {device['jax']}"
    missing = "; no accelerator was measured" if device["platform"] == "cpu" else ""
    figure.supxlabel(f"{note}{text}{missing}", fontsize=9)


def draw_throughput_ratio(evidence: Evidence) -> Figure:
    """Images per second, gap / flatten, against input size, batch and fleet, training and inference."""
    timed, recipe = one_device(evidence), evidence.experiment.runs[0].recipe
    if recipe.precision in set(timed["precision"]):
        timed = timed[timed["precision"] == recipe.precision]
    shown = [along for along in AXES if along != "fleet" or timed["fleet"].nunique() > 1]
    figure, axes = panels(len(shown), height=3.8, sharey=True)
    kept = {"px": timed["px"].max(), "batch": recipe.batch, "fleet": timed["fleet"].min()}  # of the others
    if recipe.batch not in set(timed["batch"]):
        kept["batch"] = timed["batch"].max()
    for ax, along in zip(axes, shown, strict=True):
        fixed = {name: value for name, value in kept.items() if name != along}
        here = timed.loc[(timed[list(fixed)] == pd.Series(fixed)).all(axis=1)].sort_values(along)
        for i, (phase, label, colour) in enumerate(PHASES):
            rows = here[here["phase"] == phase]
            intervals = [stats.Interval(*row) for row in rows[list(stats.Interval._fields)].itertuples(index=False)]
            if intervals:
                draw_points(ax, rows[along].tolist(), intervals, fmt=MARKERS[i] + DASHES[i], color=colour, label=label)
        if along != "px":
            ax.set_xscale("log", base=2)
            ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            ax.minorticks_off()
        ax.axhline(1, color="#444444", linewidth=1)
        ax.set(xlabel=AXES[along], xticks=sorted(timed[along].unique()))
        at = {"px": f"{fixed.get('px')} px", "batch": f"batch {fixed.get('batch')}"}
        ax.set_title("at " + ", ".join(text for name, text in at.items() if name in fixed))
    axes[0].set_ylabel(f"images per second,\n{evidence.experiment.pair[1]} / {evidence.experiment.pair[0]}")
    legend_above(figure, axes[0], 2)
    say_device(figure, timed)
    return figure


def draw_roofline(evidence: Evidence) -> Figure:
    """FLOP/s over FLOP per byte of both heads in every timed cell, under the measured roofs of each precision."""
    timed, pair = one_device(evidence), evidence.experiment.pair
    figure, axes = panels(len(PHASES), height=4.2, sharex=True, sharey=True)
    timed = timed.dropna(subset=[f"{head}_flops_per_byte" for head in pair])
    for ax, (phase, label, _) in zip(axes, PHASES, strict=True):
        draw_roofs(ax, timed, [f"{head}_flops_per_byte" for head in pair])
        for row in timed[timed["phase"] == phase].to_dict("records"):
            for i, head in enumerate(pair):
                look = PRECISIONS[row["precision"]] | {
                    "color": COLOURS[i],
                    "marker": MARKERS[i],
                    "markersize": 8 - 2 * i,
                }
                ax.plot(row[f"{head}_flops_per_byte"], row[f"{head}_flops_per_s"], zorder=3 + i, **look)
        ax.set(title=label, xlabel="FLOP per byte moved", xscale="log", yscale="log")
        ax.set_ylim(bottom=timed["matmul_flops_per_s"].min() / 30)  # a decade and a half below the lowest roof
        for axis, base, unit in ((ax.xaxis, 2, 1.0), (ax.yaxis, 10, 1e9)):
            axis.set_major_locator(LogLocator(base, subs=(1.0,) if base == 2 else (1.0, 2.0, 5.0)))
            axis.set_major_formatter(FuncFormatter(lambda value, _, unit=unit: f"{value / unit:,g}"))
        ax.minorticks_off()
    axes[0].set_ylabel("GFLOP per second")
    heads = zip(COLOURS, MARKERS, pair, strict=True)
    handles = [Line2D([], [], color=colour, marker=marker, linestyle="", label=head) for colour, marker, head in heads]
    for precision in dict.fromkeys(timed["precision"]):
        look = PRECISIONS[precision]
        handles.append(Line2D([], [], color="#444444", marker="o", label=precision, **look))
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    say_device(figure, timed, "lines: measured copy (slope) and matmul (flat)\n")
    return figure


def draw_roofs(ax: Axes, timed: pd.DataFrame, columns: list[str]) -> None:
    """min(matmul peak, copy bandwidth · FLOP per byte) of each precision, from the measured peaks."""
    for precision, rows in timed.groupby("precision", sort=False):
        peak, copy = rows["matmul_flops_per_s"].median(), rows["copy_bytes_per_s"].median()
        ridge = peak / copy
        x = np.geomspace(min(timed[columns].min().min(), ridge) / 3, max(timed[columns].max().max(), ridge) * 3, 200)
        line = PRECISIONS[str(precision)]["linestyle"]
        ax.plot(x, np.minimum(peak, copy * x), line, color="#444444", linewidth=1.5)
