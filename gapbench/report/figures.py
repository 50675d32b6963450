"""Frames to figures, by name: what was learnt here, how fast it runs in `speed_figures`."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from gapbench.analysis import stats
from gapbench.analysis.evidence import Evidence
from gapbench.analysis.pairs import cells, paired_values
from gapbench.report.drawing import COLOURS, DASHES, MARKERS, draw_points, in_percent, legend_above, panels, render
from gapbench.report.speed_figures import draw_roofline, draw_throughput_ratio


def draw_learning_curves(evidence: Evidence) -> Figure:
    """Train and test accuracy over steps, mean and 95 % band over seeds, one panel a size."""
    curves = evidence.curves
    sizes = sorted(curves["px"].unique())
    figure, axes = panels(len(sizes), sharey=True)
    for ax, px in zip(axes, sizes, strict=True):
        for head, colour in zip(evidence.experiment.pair, COLOURS, strict=True):
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


def means_by_size(evidence: Evidence, head: str, measure: str) -> dict[int, stats.Interval]:
    """Mean of a measure over seeds by input size, where there are at least two runs."""
    measures = evidence.measures
    found = {}
    for _, px in cells(measures):
        values = measures.loc[(measures["px"] == px) & (measures["head"] == head), measure].dropna()
        if len(values) > 1:
            found[px] = stats.mean_interval(values.to_numpy(dtype=float))
    return found


def draw_overfit_by_size(evidence: Evidence) -> Figure:
    """Overfit at matched train loss, overfit at the last step, and test error against input size."""
    level = evidence.experiment.train_losses[0]
    titles = {
        f"overfit_at_{level:g}": f"overfit at\ntrain loss {level:g}",
        "overfit_final": "overfit at the\nlast step",
        "test_error": "test error at\nthe last step",
    }
    figure, axes = panels(3, height=3.8)
    for ax, (measure, title) in zip(axes, titles.items(), strict=True):
        for i, (head, colour) in enumerate(zip(evidence.experiment.pair, COLOURS, strict=True)):
            means = means_by_size(evidence, head, measure)
            if means:
                beside = [px + (i - 0.5) * 0.5 for px in means]  # so that the bars do not cover each other
                draw_points(ax, beside, list(means.values()), fmt=MARKERS[i] + DASHES[i], color=colour, label=head)
        ax.axhline(0, color="#444444", linewidth=1)
        ax.set(title=title, xlabel="input size, px", xticks=[px for _, px in cells(evidence.measures)])
        in_percent(ax.yaxis, None)
    legend_above(figure, axes[-1], 2)
    return figure


def draw_time_to_target(evidence: Evidence) -> Figure:
    """Kaplan-Meier: the share of runs that has not reached the primary target yet."""
    experiment, measures = evidence.experiment, evidence.measures
    target = f"{experiment.targets[0]:g}"
    sizes = [px for _, px in cells(measures)]
    figure, axes = panels(len(sizes), sharey=True)
    for ax, px in zip(axes, sizes, strict=True):
        for i, (head, colour) in enumerate(zip(experiment.pair, COLOURS, strict=True)):
            rows = measures[(measures["px"] == px) & (measures["head"] == head)]
            if rows.empty:
                continue
            horizon = float(rows["steps"].max())
            reached = rows[f"reached_{target}"].to_numpy(dtype=bool)
            curve = stats.kaplan_meier(rows[f"steps_to_{target}"].to_numpy(dtype=float), reached)
            time, left = np.r_[curve.time, horizon], np.r_[curve.surviving, curve.surviving[-1]]
            ax.step(time, left, DASHES[i], where="post", color=colour, label=head, linewidth=2)
            if not reached.all():  # censored runs: still short of the target at the last step
                ax.plot(horizon, left[-1], MARKERS[i], color=colour, markersize=8, clip_on=False)
        ax.set(title=f"{px} px", xlabel="training step", ylim=(0, 1.02))
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    in_percent(axes[0].yaxis)
    axes[0].set_ylabel(f"runs still below {experiment.targets[0]:.0%}")
    legend_above(figure, axes[0], 2)
    return figure


def draw_accuracy_by_parameters(evidence: Evidence) -> Figure:
    """Test accuracy against all parameters of the net, one point a head and size, labelled with the size."""
    figure, (ax,) = panels(1, height=4.2)
    nets = {(r.spec.task.px, r.spec.head): sum(r.parameters.values()) for r in evidence.records if r.parameters}
    for i, (head, colour) in enumerate(zip(evidence.experiment.pair, COLOURS, strict=True)):
        errors = means_by_size(evidence, head, "test_error")
        if not errors:
            continue
        flipped = {px: stats.Interval(1 - e.estimate, 1 - e.high, 1 - e.low, e.n, e.method) for px, e in errors.items()}
        totals = [nets[px, head] for px in flipped]
        draw_points(ax, totals, list(flipped.values()), fmt=MARKERS[i] + DASHES[i], color=colour, label=head)
        for px, total in zip(flipped, totals, strict=True):
            place = (total, flipped[px].estimate)
            ax.annotate(f"{px} px", place, xytext=(7, 7), textcoords="offset points", color=colour)
    ax.set(xlabel="parameters of the whole net", ylabel="test accuracy")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.margins(x=0.12)
    in_percent(ax.yaxis, None)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="lower right")
    return figure


def draw_paired_differences(evidence: Evidence) -> Figure:
    """gap - flatten, one dot a seed, with mean and interval: overfit at matched train loss, and test error."""
    experiment = evidence.experiment
    level = experiment.train_losses[0]
    titles = {f"overfit_at_{level:g}": f"overfit at train loss {level:g}", "test_error": "test error"}
    figure, axes = panels(2, height=3.8)
    for ax, (measure, title) in zip(axes, titles.items(), strict=True):
        labels = []
        for i, cell in enumerate(cells(evidence.measures)):
            _, reference, treatment = paired_values(evidence.measures, experiment, cell, measure)
            labels.append(f"{cell[1]} px\nn={len(reference)}")
            if not len(reference):
                continue
            spread = np.linspace(-0.18, 0.18, len(reference))
            ax.plot(i + spread, treatment - reference, "o", color="#999999", markersize=5, alpha=0.8)
            interval = stats.difference_interval(reference, treatment)
            draw_points(ax, [i], [interval], fmt="D", color=COLOURS[1], markersize=8, linewidth=2)
        ax.axhline(0, color="#444444", linewidth=1)
        ax.set_xticks(range(len(labels)), labels)
        ax.set_title(f"{title},\n{experiment.pair[1]} - {experiment.pair[0]}")
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:+g}"))
    axes[0].set_ylabel("difference, points")
    note = f"grey: one seed; diamond: mean, 95 % interval; below zero: {experiment.pair[1]} is lower"
    figure.supxlabel(note, fontsize=10)
    return figure


DRAW: dict[str, Callable[[Evidence], Figure]] = {
    "learning_curves": draw_learning_curves,
    "overfit_by_size": draw_overfit_by_size,
    "paired_differences": draw_paired_differences,
    "time_to_target": draw_time_to_target,
    "accuracy_by_parameters": draw_accuracy_by_parameters,
    "throughput_ratio": draw_throughput_ratio,
    "roofline": draw_roofline,
}


@dataclass(frozen=True)
class Picture:
    """A PNG that a notebook shows by itself, whatever its matplotlib backend."""

    png: bytes

    def _repr_png_(self) -> bytes:
        return self.png


def show(name: str, evidence: Evidence) -> Picture:
    """One figure by name, for a notebook."""
    return Picture(render(DRAW[name], evidence)["png"])


def make_figures(evidence: Evidence) -> dict[str, dict[str, bytes]]:
    """Every figure by name, as png and svg."""
    return {name: render(draw, evidence) for name, draw in DRAW.items()}
