"""At sizes that a net was not trained at: what it still gets right, how it is adapted, and what that costs."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from gapbench.analysis import stats
from gapbench.analysis.audits import Way, ways
from gapbench.analysis.evidence import Evidence
from gapbench.analysis.pairs import CELL, cell_rows, cells, cells_by_regime
from gapbench.counts import count_net
from gapbench.records import Record
from gapbench.report.drawing import COLOURS, in_percent, panel_grid
from gapbench.report.setting import WHERE, setting
from gapbench.report.table import Columns, Row, Table, number, percent, signed_points, with_interval
from gapbench.spec import RunSpec, UserError

MARKED = {"none": ("-", "s"), "resize": ("--", "o"), "pool": (":", "^"), "interpolate": ("-.", "v")}  # by adapter


PARTS = ("estimate", "low", "high")


def has_sizes(evidence: Evidence) -> bool:
    """Whether some net was tested at other sizes."""
    return bool(ways(evidence.measures))


def sizes_of(evidence: Evidence) -> list[int]:
    """Every size that was tested."""
    return sorted({px for spec in evidence.experiment.runs for px in spec.audit.sizes})


def at_size(runs: pd.DataFrame, way: Way, px: int, own_px: int, quantity: str = "accuracy") -> np.ndarray:
    """Accuracies (or losses) of an arm's runs at a size; at their own every way is one."""
    here = Way("resized", "none", "own") if px == own_px else way
    column = f"{quantity}_{here.fit}_{px}_{here.adapter}_{here.statistics}"
    return runs[column].dropna().to_numpy(dtype=float) if column in runs else np.array([])


def sizes_table(evidence: Evidence) -> Table:
    """Accuracy by size, a row a cell, head and way to meet the sizes."""
    sizes, rows = sizes_of(evidence), list[dict[str, Any]]()
    for cell in cells(evidence.measures, evidence.experiment):
        for arm in evidence.experiment.pair:
            runs = cell_rows(evidence.measures, cell, arm)
            for way in ways(runs):
                kept = stats.mean_interval(runs[way.measure].dropna().to_numpy(dtype=float))
                row = {**dict(zip(CELL, cell, strict=True)), "arm": arm, **way._asdict(), **kept._asdict()}
                for px in sizes:
                    values = at_size(runs, way, px, cell.px)
                    interval = stats.mean_interval(values)._asdict() if len(values) else {}
                    row |= {f"{px}_{part}": interval.get(part, np.nan) for part in PARTS}
                rows.append(row)
    columns: Columns = {
        **WHERE,
        "head": lambda r: r["arm"],
        "image": lambda r: r["fit"],
        "adapter": lambda r: r["adapter"],
        "batch statistics": lambda r: r["statistics"],
        "other sizes - own, points": lambda r: with_interval(r["estimate"], r["low"], r["high"], signed_points),
        "n": lambda r: number(int(r["n"])),
    }
    for px in sizes:

        def text(row: Row, px: int = px) -> str:
            return show(row, f"{px}_", percent_of)

        columns[f"{px} px"] = text
    caption = (
        "Test accuracy (500 images) at sizes that the net was not trained at, in percent, and the mean over those minus"
        " the accuracy at its own. Resized: the image was made at that size; padded: it stands in the middle of a black"
        " canvas. Adapters: none; resize, the image resized to the trained size; pool, the map averaged over the grid"
        " that the dense layer knows; interpolate, the dense layer's weights resized. Where a size is no multiple of"
        " the net's stride, pooling drops the border, and a map that is pooled or resized lies a little off. A crop of"
        " the middle, which would undo the padding, is not asked. Statistics: own, or estimated"
        f" anew on 500 training images of that size. {setting(evidence)}"
    )
    return Table("sizes", caption, pd.DataFrame(rows), columns)


def show(row: Row, prefix: str, text: Callable[[Any], str]) -> str:
    """One of several estimates of a row, with its interval."""
    return with_interval(row[f"{prefix}estimate"], row[f"{prefix}low"], row[f"{prefix}high"], text)


def percent_of(value: Any) -> str:
    """A fraction in percent, without the sign."""
    return percent(value).removesuffix(" %")


def costs_table(evidence: Evidence) -> Table:
    """Parameters, accuracy, arithmetic and throughput by the size of resized test images, in the first tuned cell."""
    experiment = evidence.experiment
    rows = cells_by_regime(evidence.measures, experiment)
    cell = (rows.get("tuned") or next(iter(rows.values())))[0]
    spec, record = experiment.cells[cell][0], next(r for r in evidence.records if r.parameters)
    parameters = {r.spec.arm: r.parameters["head"] for r in evidence.records if r.parameters}
    found = list[dict[str, Any]]()
    for px, arm in itertools.product(sizes_of(evidence), experiment.pair):
        runs = cell_rows(evidence.measures, cell, arm).merge(evidence.timing, on="run_id", how="left")
        for adapter in MARKED:
            timed = runs.get(f"image_s_{px}_{adapter}", pd.Series(dtype=float)).dropna()
            accuracy = at_size(runs, Way("resized", adapter, "own"), px, cell.px)
            if not len(accuracy) or (px == cell.px and adapter != "none"):
                continue
            made = spec.task.px if adapter == "resize" else px  # what the backbone sees
            net = spec.model_copy(update={"task": spec.task.model_copy(update={"px": made}), "head": arm})
            if adapter == "pool" and arm == "flatten":  # which then is a rung of the ladder
                net = net.model_copy(update={"head": f"ladder:{spec.backbone.feature_px(cell.px)}"})
            row = {"px": px, "arm": arm, "adapter": adapter, "parameters": parameters[arm]}
            row["flops"] = flops_of(net, record)
            speeds = 1 / timed.to_numpy(dtype=float)  # none of nets that were trained as a fleet
            scored, speed = stats.mean_interval(accuracy), stats.median_interval(speeds)
            row |= {f"accuracy_{name}": value for name, value in scored._asdict().items()}
            found.append(row | {f"speed_{name}": value for name, value in speed._asdict().items()})
    columns: Columns = {
        "test image": lambda r: f"{r['px']} px",
        "head": lambda r: r["arm"],
        "adapter": lambda r: r["adapter"],
        "head parameters": lambda r: number(r["parameters"]),
        "MFLOP an image": lambda r: number(r["flops"] / 1e6),
        "accuracy, %": lambda r: show(r, "accuracy_", percent_of),
        "images/s": lambda r: show(r, "speed_", number),
        "n": lambda r: number(int(r["accuracy_n"])),
    }
    caption = (
        f"What an input size costs and loses, {cell.regime} regime, {cell.label}. Images per second are of evaluating"
        " 500 images on one core while another trained, resizing them included where an adapter does; medians over"
        f" runs, which vary with the machine's load. {setting(evidence)}"
    )
    return Table("size_costs", caption, pd.DataFrame(found), columns)


def flops_of(spec: RunSpec, record: Record) -> float:
    """Of one image; nan where no closed form is known, as of a grid finer than the map."""
    try:
        counts = count_net(spec, record.image_channels, record.classes)
    except UserError:
        return np.nan
    return float(counts.flops) if counts else np.nan


def draw_losses(evidence: Evidence) -> Figure:
    """As `draw_sizes`, the cross entropy."""
    return draw_sizes(evidence, "loss")


def draw_sizes(evidence: Evidence, quantity: str = "accuracy") -> Figure:
    """Accuracy against the size of the test image: a row what else varies, a column how the image meets the size."""
    experiment = evidence.experiment
    rows = cells_by_regime(evidence.measures, experiment)
    found = rows.get("tuned") or next(iter(rows.values()))
    fits = ("resized", "padded")
    figure, axes = panel_grid(len(found), 2, height=3.0, sharey=True, sharex=True)
    for line, cell in zip(axes, found, strict=True):
        for ax, fit in zip(line, fits, strict=True):
            for arm, colour in zip(experiment.pair, COLOURS, strict=True):
                runs = cell_rows(evidence.measures, cell, arm)
                for way in ways(runs):
                    if way.fit != fit or (way.statistics == "new" and way.adapter not in ("none", "pool")):
                        continue
                    values = {px: at_size(runs, way, px, cell.px, quantity) for px in sizes_of(evidence)}
                    means = {px: stats.mean_interval(one) for px, one in values.items() if len(one)}
                    dash, marker = MARKED[way.adapter]
                    label, face = f"{arm}, {way.label}", "white" if way.statistics == "new" else colour
                    px, mean = list(means), [interval.estimate for interval in means.values()]
                    ax.plot(px, mean, linestyle=dash, marker=marker, color=colour, markersize=5, label=label, mfc=face)
                    ends = ([i.low for i in means.values()], [i.high for i in means.values()])
                    ax.fill_between(px, *ends, color=colour, alpha=0.15, linewidth=0)
            ax.axvline(cell.px, color="#999999", linewidth=1)
            ax.set_title(f"{fit}, {cell.regime}{', ' if cell.factors else ''}{cell.factors}", fontsize=10)
            if quantity == "accuracy":
                in_percent(ax.yaxis)
            else:
                ax.set_yscale("log")
                ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
                ax.yaxis.set_minor_formatter(NullFormatter())
        line[0].set_ylabel("test accuracy" if quantity == "accuracy" else "test loss, nats")
    for ax in axes[-1]:
        ax.set_xlabel("test image, px (line: trained at)")
    handles = {label: handle for ax in axes[-1] for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(list(handles.values()), list(handles), loc="outside upper center", ncols=3, fontsize=9)
    return figure
