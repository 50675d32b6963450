"""Frames to figures, by name: what was learnt here, how fast it runs in `speed_figures`.

A figure that says nothing about an experiment is not drawn: `DRAW` has the condition beside the function.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from gapbench.analysis import stats
from gapbench.analysis.evidence import Evidence
from gapbench.analysis.pairs import cell_rows, cells_by_regime, paired_values
from gapbench.experiment import Cell
from gapbench.report.arms import draw_forest, draw_ladder, has_ladder, has_more_arms
from gapbench.report.drawing import (
    COLOURS,
    DASHES,
    MARKERS,
    draw_points,
    in_percent,
    label_size,
    legend_above,
    panel_grid,
    panels,
    render,
    wrapped,
)
from gapbench.report.gradients import draw_gradients, has_gradients
from gapbench.report.maps import draw_erasing, draw_gallery, draw_maps, has_gallery, has_maps
from gapbench.report.position import draw_position, has_paddings
from gapbench.report.signs import draw_signs, has_factors
from gapbench.report.sizes import draw_losses, draw_sizes, has_sizes
from gapbench.report.speed_figures import draw_roofline, draw_throughput_ratio

WIDEST = 5  # cells of a regime side by side


def by_regime(evidence: Evidence) -> dict[str, list[Cell]]:
    """The trained cells of each regime."""
    return cells_by_regime(evidence.measures, evidence.experiment)


def cell_panels(evidence: Evidence, ylabel: str) -> tuple[Figure, list[tuple[Axes, Cell]]]:
    """A row a regime, a panel a cell, over training steps, up in percent; the regime is said where there are two."""
    rows = by_regime(evidence)
    figure, axes = panel_grid(len(rows), max(map(len, rows.values())), sharey=True)
    for line in axes:
        in_percent(line[0].yaxis)
        line[0].set_ylabel(ylabel)
    for ax in axes[-1]:
        ax.set_xlabel("training step")
    lines = zip(axes, rows.values(), strict=True)
    members = [(ax, cell) for line, found in lines for ax, cell in zip(line, found, strict=False)]
    for ax, cell in members:
        title = f"{cell.regime}, {cell.label}" if len(rows) > 1 else cell.label
        ax.set_title(wrapped(title, max(map(len, rows.values()))), fontsize=10)
        ax.xaxis.set_major_locator(MaxNLocator(3, integer=True))
    return figure, members


def draw_learning_curves(evidence: Evidence) -> Figure:
    """Train and test accuracy over steps, mean and 95 % band over seeds: a row a regime, a panel a cell."""
    figure, members = cell_panels(evidence, "accuracy")
    for ax, cell in members:
        for arm, colour in zip(evidence.experiment.pair, COLOURS, strict=True):
            runs = cell_rows(evidence.measures, cell, arm)["run_id"]
            curves = evidence.curves[evidence.curves["run_id"].isin(runs)]
            for split, dash in zip(("test", "train"), DASHES, strict=True):
                values = curves.pivot(index="seed", columns="step", values=f"{split}_accuracy").dropna()
                if values.empty:
                    continue
                steps, matrix = values.columns.to_numpy(), values.to_numpy(dtype=float)
                low, high = stats.mean_band(matrix)
                ax.plot(steps, matrix.mean(axis=0), dash, color=colour, label=f"{arm}, {split}")
                ax.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
    legend_above(figure, members[0][0], 4)
    return figure


class Axis(NamedTuple):
    """What a figure runs over."""

    label: str
    logarithmic: bool


AXES = {
    "px": Axis("input size, px", False),
    "train_images": Axis("training images", True),
    "peak_lr": Axis("peak learning rate", True),
    "steps": Axis("training steps", True),
}


def means_along(evidence: Evidence, line: pd.DataFrame, arm: str, measure: str) -> dict[float, stats.Interval]:
    """Mean of a measure over seeds at each value of the axis, where there are at least two runs."""
    rows = line[line["arm"] == arm].dropna(subset=[measure])
    values = {x: own[measure].to_numpy(dtype=float) for x, own in rows.groupby(evidence.experiment.axis)}
    return {float(x): stats.mean_interval(own) for x, own in values.items() if len(own) > 1}  # type: ignore[arg-type]


def draw_along_axis(evidence: Evidence) -> Figure:
    """Three measures of both arms against the experiment's axis: a row for each regime and whatever else varies."""
    experiment, measures = evidence.experiment, evidence.measures
    target, level = experiment.targets[0], experiment.train_losses[0]
    titles = {
        f"overfit_at_{level:g}": f"overfit at train loss {level:g}",
        "overfit_final": "overfit at the last step",
        "test_error": "test error",
    }
    if experiment.axis == "peak_lr":
        titles = {
            "train_loss_final": "train loss",
            "val_accuracy_final": "validation accuracy",
            f"steps_to_{target:g}": f"steps to {target:.0%}",
        }
    axis, regimes = AXES[experiment.axis], measures["regime"].nunique()
    others = [name for name in ("regime", "px") if name != experiment.axis]
    lines = list(measures.groupby([*others, *(f for f in experiment.factors if f != experiment.axis)], sort=False))
    figure, axes = panel_grid(len(lines), len(titles), sharex=True)
    for line, (key, rows) in zip(axes, lines, strict=True):
        for ax, (measure, title) in zip(line, titles.items(), strict=True):
            for i, (arm, colour) in enumerate(zip(experiment.pair, COLOURS, strict=True)):
                means = means_along(evidence, rows, arm, measure)
                if not means:
                    continue
                aside = (lambda x: x * 1.04 ** (i - 0.5)) if axis.logarithmic else (lambda x: x + (i - 0.5) * 0.5)  # noqa: B023
                look = {"fmt": MARKERS[i] + DASHES[i], "color": colour, "label": arm, "markersize": 5}
                draw_points(ax, list(map(aside, means)), list(means.values()), **look)
            if axis.logarithmic:
                ax.set_xscale("log")
                ax.xaxis.set_minor_formatter(NullFormatter())
            ax.set_xticks(sorted(measures[experiment.axis].unique()))
            ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            ax.tick_params(axis="x", rotation=45 if axis.logarithmic else 0, labelsize=9)
            if measure.startswith(("overfit", "test_error", "val_accuracy")):
                in_percent(ax.yaxis, None)
            if line is axes[0]:
                ax.set_title(title, fontsize=11)
        named = {name: value for name, value in zip(others, key, strict=False) if name != "regime" or regimes > 1}
        line[0].set_ylabel(", ".join(f"{value} px" if name == "px" else str(value) for name, value in named.items()))
    for ax in axes[-1]:
        ax.set_xlabel(axis.label)
    legend_above(figure, axes[0][-1], 2)
    return figure


def draw_time_to_target(evidence: Evidence) -> Figure:
    """Kaplan-Meier: the share of runs that has not reached the primary target yet."""
    experiment = evidence.experiment
    target = f"{experiment.targets[0]:g}"
    figure, members = cell_panels(evidence, f"runs still below {experiment.targets[0]:.0%}")
    for ax, cell in members:
        for i, (arm, colour) in enumerate(zip(experiment.pair, COLOURS, strict=True)):
            runs = cell_rows(evidence.measures, cell, arm)
            if runs.empty:
                continue
            horizon = float(runs["steps"].max())
            reached = runs[f"reached_{target}"].to_numpy(dtype=bool)
            curve = stats.kaplan_meier(runs[f"steps_to_{target}"].to_numpy(dtype=float), reached)
            time, left = np.r_[curve.time, horizon], np.r_[curve.surviving, curve.surviving[-1]]
            ax.step(time, left, DASHES[i], where="post", color=colour, label=arm, linewidth=2)
            if not reached.all():  # censored runs: still short of the target at the last step
                ax.plot(horizon, left[-1], MARKERS[i], color=colour, markersize=8, clip_on=False)
        ax.set(ylim=(0, 1.02))
    legend_above(figure, members[0][0], 2)
    return figure


def draw_accuracy_by_parameters(evidence: Evidence) -> Figure:
    """Test accuracy against all parameters of the net, one point a head and size, labelled with the size."""
    rows = by_regime(evidence)
    figure, axes = panels(len(rows), height=4.2, sharey=True)
    nets = {(r.spec.task.px, r.spec.arm): sum(r.parameters.values()) for r in evidence.records if r.parameters}
    for ax, (regime, found) in zip(axes, rows.items(), strict=True):
        for i, (arm, colour) in enumerate(zip(evidence.experiment.pair, COLOURS, strict=True)):
            accuracy = {}
            for cell in found:
                errors = cell_rows(evidence.measures, cell, arm)["test_error"].dropna().to_numpy(dtype=float)
                if len(errors) > 1:
                    accuracy[cell.px] = stats.mean_interval(1 - errors)
            if not accuracy:
                continue
            totals = [nets[px, arm] for px in accuracy]
            draw_points(ax, totals, list(accuracy.values()), fmt=MARKERS[i] + DASHES[i], color=colour, label=arm)
            for (px, mean), total in zip(accuracy.items(), totals, strict=True):
                place = (total, mean.estimate)
                ax.annotate(f"{px} px", place, xytext=(7, 7), textcoords="offset points", color=colour)
        ax.set(xlabel="parameters of the whole net", title=f"{regime} regime")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.margins(x=0.15)
        in_percent(ax.yaxis, None)
    axes[0].set_ylabel("test accuracy")
    legend_above(figure, axes[0], 2)
    return figure


def draw_paired_differences(evidence: Evidence) -> Figure:
    """gap - flatten, one dot a seed, with mean and interval: overfit at matched train loss, and test error."""
    experiment = evidence.experiment
    level = experiment.train_losses[0]
    titles = {f"overfit_at_{level:g}": f"overfit at train loss {level:g}", "test_error": "test error"}
    rows = by_regime(evidence)
    figure, axes = panel_grid(len(rows), len(titles), height=3.2, sharey="col")
    for line, (regime, found) in zip(axes, rows.items(), strict=True):
        for ax, (measure, title) in zip(line, titles.items(), strict=True):
            labels = []
            for i, cell in enumerate(found):
                _, reference, treatment = paired_values(evidence.measures, cell, experiment.pair, measure)
                labels.append(f"{cell.label}, n={len(reference)}".replace(", ", "\n"))
                if not len(reference):
                    continue
                spread = np.linspace(-0.18, 0.18, len(reference))
                ax.plot(i + spread, treatment - reference, "o", color="#999999", markersize=5, alpha=0.8)
                interval = stats.difference_interval(reference, treatment)
                draw_points(ax, [i], [interval], fmt="D", color=COLOURS[1], markersize=8, linewidth=2)
            ax.axhline(0, color="#444444", linewidth=1)
            widest = max((line for label in labels for line in label.splitlines()), key=len)
            ax.set_xticks(range(len(labels)), labels, fontsize=label_size(widest, 44 // len(labels)))
            ax.set_title(f"{regime}: {title}", fontsize=11)
            ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:+g}"))
        label = f"{experiment.pair[1]} - {experiment.pair[0]}, points"
        line[0].set_ylabel(label, fontsize=label_size(label))
    note = f"grey: one seed; diamond: mean, 95 % interval; below zero: {experiment.pair[1]} is lower"
    figure.supxlabel(note, fontsize=10)
    return figure


def is_narrow(evidence: Evidence) -> bool:
    """Few enough cells to stand side by side."""
    return max(map(len, by_regime(evidence).values())) <= WIDEST


def has_axis(evidence: Evidence) -> bool:
    """Whether the axis has more than one value."""
    return bool(evidence.measures[evidence.experiment.axis].nunique() > 1)


def is_timed(evidence: Evidence) -> bool:
    """Whether any cell was timed."""
    return not evidence.throughput.empty and bool((evidence.throughput["status"] == "ok").any())


DRAW: dict[str, tuple[Callable[[Evidence], Figure], Callable[[Evidence], bool]]] = {  # and whether it says something
    "maps": (draw_maps, has_maps),
    "gallery": (draw_gallery, has_gallery),
    "sizes": (draw_sizes, has_sizes),
    "size_losses": (draw_losses, has_sizes),
    "position": (draw_position, has_paddings),
    "along_axis": (draw_along_axis, has_axis),
    "erasing": (draw_erasing, has_maps),
    "forest": (draw_forest, lambda e: has_more_arms(e) and not has_ladder(e)),
    "ladder": (draw_ladder, has_ladder),
    "signs": (draw_signs, has_factors),
    "learning_curves": (draw_learning_curves, is_narrow),
    "paired_differences": (draw_paired_differences, is_narrow),
    "time_to_target": (draw_time_to_target, is_narrow),
    "accuracy_by_parameters": (draw_accuracy_by_parameters, lambda e: e.experiment.axis == "px" and has_axis(e)),
    "gradients": (draw_gradients, lambda e: is_narrow(e) and has_gradients(e)),
    "throughput_ratio": (draw_throughput_ratio, is_timed),
    "roofline": (draw_roofline, is_timed),
}


@dataclass(frozen=True)
class Picture:
    """A PNG that a notebook shows by itself, whatever its matplotlib backend."""

    png: bytes = field(repr=False)  # a notebook keeps the text, too

    def _repr_png_(self) -> bytes:
        return self.png


def show(name: str, evidence: Evidence) -> Picture:
    """One figure by name, for a notebook."""
    return Picture(render(DRAW[name][0], evidence)["png"])


def make_figures(evidence: Evidence) -> dict[str, dict[str, bytes]]:
    """Every figure that says something, by name, as png and svg."""
    return {name: render(draw, evidence) for name, (draw, applies) in DRAW.items() if applies(evidence)}
