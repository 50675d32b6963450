"""How every figure looks: PNG for the README, SVG for the page; colour-blind safe, and told apart without colour."""

import io
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from gapbench.analysis import stats

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


def render(draw: Callable[[Any], Figure], evidence: Any) -> dict[str, bytes]:
    """The figure as `png` and `svg` bytes."""
    with plt.rc_context(STYLE):
        figure = draw(evidence)
        files = encode(figure)
        plt.close(figure)
    return files


def encode(figure: Figure) -> dict[str, bytes]:
    """Both formats, laid out alike, without dates or versions in them."""
    figure.draw_without_rendering()  # lays out once
    figure.set_layout_engine("none")
    files = {}
    for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, metadata=metadata)
        files[kind] = buffer.getvalue()
    return files


def panels(n: int, height: float = 3.4, **options: Any) -> tuple[Figure, list[Axes]]:
    """One row of n panels."""
    figure, axes = plt.subplots(1, n, figsize=(WIDTH, height), squeeze=False, **options)
    return figure, list(axes[0])


def panel_grid(rows: int, columns: int, height: float = 2.7, **options: Any) -> tuple[Figure, list[list[Axes]]]:
    """Rows of panels, each `height` inches high."""
    figure, axes = plt.subplots(rows, columns, figsize=(WIDTH, height * rows + 0.7), squeeze=False, **options)
    return figure, [list(line) for line in axes]


def in_percent(axis: Any, decimals: int | None = 0) -> None:
    """Tick labels of fractions in percent."""
    axis.set_major_formatter(PercentFormatter(1.0, decimals=decimals))


def wrapped(title: str, columns: int) -> str:
    """The title of one of so many panels side by side, in lines that do not reach into the next."""
    return textwrap.fill(title, 92 // columns)


def legend_above(figure: Figure, axes: Axes, columns: int) -> None:
    """One legend for all panels, above them."""
    handles, labels = axes.get_legend_handles_labels()
    lines = 2 if sum(map(len, labels)) > 60 else 1
    figure.legend(handles, labels, loc="outside upper center", ncols=-(-columns // lines))


def label_size(text: str, room: int = 25) -> float:
    """The font's size for an axis label: smaller where long names of arms would run into their neighbours."""
    return float(STYLE["font.size"]) if len(text) <= room else 8.0


def draw_points(ax: Axes, x: Sequence[float | int], intervals: Sequence[stats.Interval], **look: Any) -> None:
    """Estimates with their intervals as error bars."""
    mean = np.array([interval.estimate for interval in intervals])
    ends = np.array([[interval.low, interval.high] for interval in intervals]).T
    ax.errorbar(x, mean, yerr=np.abs(ends - mean), capsize=5, **look)
