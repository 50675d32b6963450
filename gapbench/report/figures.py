"""Frames to figures: PNG for the README, SVG for the page; colour-blind safe, and told apart without colour too."""

import io
from collections.abc import Callable
from typing import Any

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from gapbench.analysis import stats
from gapbench.analysis.pairs import cells, paired_values
from gapbench.counts import count_backbone, count_spec_head
from gapbench.records import Record
from gapbench.spec import Experiment

COLOURS = ("#d55e00", "#0072b2")  # vermillion and blue of Okabe and Ito: reference head, head under test
MARKERS = ("o", "s")
DASHES = ("-", "--")
STYLE: dict[Any, Any] = {
    "font.size": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "svg.hashsalt": "gapbench",  # element ids that do not change from run to run
    "svg.fonttype": "none",
    "savefig.dpi": 130,
}
WIDTH = 8.0  # inches, at a font that is still readable at half of it


def render(draw: Callable[[], Figure]) -> dict[str, bytes]:
    """The figure as `png` and `svg` bytes, without dates or versions in them."""
    with plt.rc_context(STYLE):
        figure = draw()
        files = {}
        for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, metadata=metadata)
            files[kind] = buffer.getvalue()
        plt.close(figure)
    return files


def panels(n: int, height: float = 3.4, **options: Any) -> tuple[Figure, list[Axes]]:
    """One row of n panels."""
    figure, axes = plt.subplots(1, n, figsize=(WIDTH, height), squeeze=False, **options)
    return figure, list(axes[0])


def in_percent(axis: Any, decimals: int | None = 0) -> None:
    """Tick labels of fractions in percent."""
    axis.set_major_formatter(PercentFormatter(1.0, decimals=decimals))


def legend_above(figure: Figure, axes: Axes, columns: int) -> None:
    """One legend for all panels, above them."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=columns)


def draw_learning_curves(curves: pd.DataFrame, experiment: Experiment) -> Figure:
    """Train and test accuracy over steps, mean and 95 % band over seeds, one panel a size."""
    sizes = sorted(curves["px"].unique())
    figure, axes = panels(len(sizes), sharey=True)
    for ax, px in zip(axes, sizes, strict=True):
        for head, colour in zip(experiment.pair, COLOURS, strict=True):
            rows = curves[(curves["px"] == px) & (curves["head"] == head)]
            for split, dash in zip(("test", "train"), DASHES, strict=True):
                values = rows.pivot(index="seed", columns="step", values=f"{split}_accuracy").dropna()
                if values.empty:
                    continue
                steps, matrix = values.columns.to_numpy(), values.to_numpy(dtype=float)
                low, high = stats.mean_band(matrix)
                ax.plot(steps, matrix.mean(axis=0), dash, color=colour, label=f"{head}, {split}")
                ax.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
        ax.set(title=f"{px} px", xlabel="training step")
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    in_percent(axes[0].yaxis)
    axes[0].set_ylabel("accuracy")
    legend_above(figure, axes[0], 4)
    return figure


def draw_means(ax: Axes, measures: pd.DataFrame, experiment: Experiment, measure: str) -> None:
    """Mean of a measure with its interval by input size, both heads side by side."""
    sizes = [px for _, px in cells(measures)]
    for i, (head, colour, marker, dash) in enumerate(zip(experiment.pair, COLOURS, MARKERS, DASHES, strict=True)):
        found = []
        for px in sizes:
            values = measures.loc[(measures["px"] == px) & (measures["head"] == head), measure].dropna()
            if len(values) > 1:
                found.append((px, stats.mean_interval(values.to_numpy(dtype=float))))
        if not found:
            continue
        x = np.array([px for px, _ in found]) + (i - 0.5) * 0.5  # side by side
        mean = np.array([interval.estimate for _, interval in found])
        ends = np.array([[interval.low, interval.high] for _, interval in found]).T
        ax.errorbar(x, mean, yerr=np.abs(ends - mean), fmt=marker + dash, color=colour, capsize=4, label=head)
    ax.set_xticks(sizes)
    ax.set_xlabel("input size, px")
    in_percent(ax.yaxis, None)


def draw_overfit_by_size(measures: pd.DataFrame, experiment: Experiment) -> Figure:
    """Overfit at matched train loss, overfit at the last step, and test error against input size."""
    level = experiment.train_losses[0]
    titles = {
        f"overfit_at_{level:g}": f"overfit at\ntrain loss {level:g}",
        "overfit_final": "overfit at the\nlast step",
        "test_error": "test error at\nthe last step",
    }
    figure, axes = panels(3, height=3.8)
    for ax, (measure, title) in zip(axes, titles.items(), strict=True):
        draw_means(ax, measures, experiment, measure)
        ax.set_title(title)
        ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))
    legend_above(figure, axes[-1], 2)
    return figure


def draw_time_to_target(measures: pd.DataFrame, experiment: Experiment) -> Figure:
    """Kaplan-Meier: the share of runs that has not reached the primary target yet."""
    target = f"{experiment.targets[0]:g}"
    sizes = [px for _, px in cells(measures)]
    figure, axes = panels(len(sizes), sharey=True)
    for ax, px in zip(axes, sizes, strict=True):
        for head, colour, dash, marker in zip(experiment.pair, COLOURS, DASHES, MARKERS, strict=True):
            rows = measures[(measures["px"] == px) & (measures["head"] == head)]
            if rows.empty:
                continue
            horizon = float(rows["steps"].max())
            reached = rows[f"reached_{target}"].to_numpy(dtype=bool)
            curve = stats.kaplan_meier(rows[f"steps_to_{target}"].to_numpy(dtype=float), reached)
            time, left = np.r_[curve.time, horizon], np.r_[curve.surviving, curve.surviving[-1]]
            ax.step(time, left, dash, where="post", color=colour, label=head, linewidth=2)
            if not reached.all():  # censored runs: still short of the target at the last step
                ax.plot(horizon, left[-1], marker, color=colour, markersize=8, clip_on=False)
        ax.set(title=f"{px} px", xlabel="training step", ylim=(0, 1.02))
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    in_percent(axes[0].yaxis)
    axes[0].set_ylabel(f"runs still below {experiment.targets[0]:.0%}")
    legend_above(figure, axes[0], 2)
    return figure


def draw_accuracy_by_parameters(measures: pd.DataFrame, experiment: Experiment, records: list[Record]) -> Figure:
    """Test accuracy against all parameters of the net, one point a head and size, labelled with the size."""
    figure, (ax,) = panels(1, height=4.2)
    nets = {(r.spec.task.px, r.spec.head): r for r in records if r.classes}
    for head, colour, marker, dash in zip(experiment.pair, COLOURS, MARKERS, DASHES, strict=True):
        points = []
        for (px, name), record in sorted(nets.items()):
            values = measures.loc[(measures["px"] == px) & (measures["head"] == head), "test_error"].dropna()
            if name == head and len(values) > 1:
                own = count_spec_head(record.spec, record.classes).parameters
                total = own + count_backbone(record.spec, record.image_channels).parameters
                points.append((px, total, stats.mean_interval(1 - values.to_numpy(dtype=float))))
        if not points:
            continue
        x = np.array([total for _, total, _ in points])
        mean = np.array([interval.estimate for *_, interval in points])
        ends = np.array([[interval.low, interval.high] for *_, interval in points]).T
        ax.errorbar(x, mean, yerr=np.abs(ends - mean), fmt=marker + dash, color=colour, capsize=4, label=head)
        for (px, *_), x_px, y_px in zip(points, x, mean, strict=True):
            ax.annotate(f"{px} px", (x_px, y_px), xytext=(9, -4), textcoords="offset points", color=colour)
    ax.set(xlabel="parameters of the whole net", ylabel="test accuracy", title="Accuracy against parameters")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.margins(x=0.12)
    in_percent(ax.yaxis, None)
    ax.legend(loc="lower right")
    return figure


def draw_paired_differences(measures: pd.DataFrame, experiment: Experiment) -> Figure:
    """gap - flatten, one dot a seed, with mean and interval: overfit at matched train loss, and test error."""
    level = experiment.train_losses[0]
    titles = {f"overfit_at_{level:g}": f"overfit at train loss {level:g}", "test_error": "test error"}
    found = cells(measures)
    figure, axes = panels(2, height=3.8)
    for ax, (measure, title) in zip(axes, titles.items(), strict=True):
        ax.axhline(0, color="#444444", linewidth=1)
        for i, cell in enumerate(found):
            _, reference, treatment = paired_values(measures, experiment, cell, measure)
            if not len(reference):
                continue
            interval = stats.difference_interval(reference, treatment)
            spread = np.linspace(-0.18, 0.18, len(reference))
            ax.plot(i + spread, treatment - reference, "o", color="#999999", markersize=5, alpha=0.8)
            error = [[interval.estimate - interval.low], [interval.high - interval.estimate]]
            ax.errorbar(
                i, interval.estimate, yerr=error, fmt="D", color=COLOURS[1], capsize=7, markersize=8, linewidth=2
            )
        ax.set_xticks(
            range(len(found)), [f"{px} px\nn={_pairs(measures, experiment, (d, px), measure)}" for d, px in found]
        )
        ax.set_title(f"{title}\n{experiment.pair[1]} - {experiment.pair[0]}")
        in_percent(ax.yaxis, None)
    axes[0].set_ylabel("paired difference, points")
    figure.supxlabel("grey: one seed; diamond: mean with 95 % interval; below zero: gap is lower", fontsize=10)
    return figure


def _pairs(measures: pd.DataFrame, experiment: Experiment, cell: tuple[str, int], measure: str) -> int:
    return len(paired_values(measures, experiment, cell, measure)[0])


def draw_throughput_ratio(throughput: pd.DataFrame, experiment: Experiment) -> Figure:
    """Images per second, gap / flatten, against input size and against batch, training and inference."""
    figure, axes = panels(2, height=3.8, sharey=True)
    timed = throughput[throughput["status"] == "ok"] if len(throughput) else throughput
    for ax, (along, label, other) in zip(
        axes, (("px", "input size, px", "batch"), ("batch", "batch", "px")), strict=True
    ):
        ax.axhline(1, color="#444444", linewidth=1)
        for phase, marker, dash, colour in zip(
            ("train", "infer"), MARKERS, DASHES, ("#009e73", "#cc79a7"), strict=True
        ):
            rows = timed[timed["phase"] == phase] if len(timed) else timed
            if rows.empty:
                continue
            kept = _most_common(rows, other)
            rows = rows[(rows[other] == kept) & (rows["device"] == rows["device"].iloc[0])].sort_values(along)
            mean, ends = rows["estimate"].to_numpy(), rows[["low", "high"]].to_numpy().T
            ax.errorbar(
                rows[along].astype(float),
                mean,
                yerr=np.abs(ends - mean),
                fmt=marker + dash,
                color=colour,
                capsize=4,
                label={"train": "training step", "infer": "inference"}[phase],
            )
            ax.set_title(f"at {'batch ' if other == 'batch' else ''}{kept}{' px' if other == 'px' else ''}")
            ax.set_xticks(sorted(rows[along].unique()))
        ax.set_xlabel(label)
    axes[0].set_ylabel(f"images per second,\n{experiment.pair[1]} / {experiment.pair[0]}")
    if timed.empty:
        axes[0].text(0.5, 0.5, "no timings yet", ha="center", transform=axes[0].transAxes)
    else:
        legend_above(figure, axes[0], 2)
        device = throughput.iloc[0]
        figure.supxlabel(f"{device['platform'].upper()}: {device['device']}, jax {device['jax']}", fontsize=9)
    return figure


def _most_common(rows: pd.DataFrame, column: str) -> int:
    """The value held fixed while the other one varies: the one with most rows."""
    return int(rows[column].mode().iloc[-1])


def draw_all(
    experiment: Experiment,
    records: list[Record],
    curves: pd.DataFrame,
    measures: pd.DataFrame,
    throughput: pd.DataFrame,
) -> dict[str, dict[str, bytes]]:
    """Every figure by name, as png and svg."""
    draws: dict[str, Callable[[], Figure]] = {
        "learning_curves": lambda: draw_learning_curves(curves, experiment),
        "overfit_by_size": lambda: draw_overfit_by_size(measures, experiment),
        "time_to_target": lambda: draw_time_to_target(measures, experiment),
        "accuracy_by_parameters": lambda: draw_accuracy_by_parameters(measures, experiment, records),
        "paired_differences": lambda: draw_paired_differences(measures, experiment),
        "throughput_ratio": lambda: draw_throughput_ratio(throughput, experiment),
    }
    return {name: render(draw) for name, draw in draws.items()}
