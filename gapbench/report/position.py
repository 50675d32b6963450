"""What a net knows of position, what it does with it, and whether it holds still when an image is moved."""

import pandas as pd
from matplotlib.figure import Figure

from gapbench.analysis import stats
from gapbench.analysis.evidence import Evidence
from gapbench.analysis.pairs import cell_rows, cells, compare_pairs
from gapbench.data.canvas import is_canvas, parse
from gapbench.report.drawing import COLOURS, DASHES, MARKERS, draw_points, in_percent, legend_above, panels
from gapbench.report.setting import WHERE, by_cell, setting
from gapbench.report.table import Columns, Table, between, number, p_value, percent, signed_points

CHANCE = 1 / 9  # of guessing the cell
PADDINGS = ("zero", "valid", "circular")


def task_of(dataset: str) -> str:
    """what, where or swapped."""
    return parse(dataset).label if is_canvas(dataset) else "what"


def shifts_of(evidence: Evidence) -> list[int]:
    """Every shift of which some run says something, in px."""
    asked = sorted({shift for spec in evidence.experiment.runs for shift in spec.audit.shifts})
    return [shift for shift in asked if f"consistency_{shift}" in evidence.measures]


def has_shifts(evidence: Evidence) -> bool:
    """Whether some net was asked about moved images."""
    return bool(shifts_of(evidence))


def has_paddings(evidence: Evidence) -> bool:
    """Whether nets with several paddings were."""
    return has_shifts(evidence) and "padding" in evidence.experiment.factors


def measures_of(evidence: Evidence) -> pd.DataFrame:
    """With what a net loses when sides are swapped: validation images are as in training."""
    measures = evidence.measures
    return measures.assign(
        test_accuracy=1 - measures["test_error"],
        val_minus_test=measures["val_accuracy_final"] - 1 + measures["test_error"],
    )


def speaks(measure: str, task: str) -> bool:
    """Whether a measure says something of a task: where an object is must change when it moves."""
    if measure.startswith("consistency"):
        return task != "where"
    return measure != "val_minus_test" or task == "swapped"


def position_table(evidence: Evidence) -> Table:
    """Accuracy, what is lost when sides are swapped, and consistency under shifts, compared over pairs."""
    experiment, measures = evidence.experiment, measures_of(evidence)
    flatten, gap = experiment.pair
    titles = {"test_accuracy": "test accuracy", "val_minus_test": "validation - test accuracy"}
    titles |= {f"consistency_{shift}": f"same class after {shift} px" for shift in shifts_of(evidence)}
    rows = [compare_pairs(measures, experiment, measure) for measure in titles]
    raw = by_cell(pd.concat(rows, ignore_index=True), experiment)
    raw = raw[[speaks(row["measure"], task_of(row["dataset"])) for row in raw.to_dict("records")]]
    columns: Columns = {
        "task": lambda r: task_of(r["dataset"]),
        **WHERE,
        "measure": lambda r: titles[r["measure"]],
        flatten: lambda r: percent(r[f"{flatten}_mean"]),
        gap: lambda r: percent(r[f"{gap}_mean"]),
        f"{gap} - {flatten}": lambda r: signed_points(r["estimate"]),
        "95 % interval": lambda r: between(r["low"], r["high"], signed_points),
        "n": lambda r: number(int(r["n"])),
        "p (sign flip)": lambda r: p_value(r["sign_flip_p"]),
    }
    tasks = (
        "What is where: the cell of a 3×3 grid that holds the digit (where), the digit (what), and the digit where in"
        " training even ones stand on the left and odd ones on the right, in test the reverse (swapped: validation"
        " images are as in training, so that their accuracy minus that of the test images is what the side was worth). "
    )
    valid = ""
    if any(spec.backbone.padding == "valid" for spec in experiment.runs):
        valid = " Valid padding also makes the last map smaller, and flatten's head with it."
    caption = (
        f"{tasks if any(task_of(cell.dataset) != 'what' for cell in experiment.cells) else ''}Same class: the share of"
        " 400 test images whose class stays when they are moved down and to the right, over the border; of canvases"
        f" those are left out whose object that would cut. It asks for the same answer, right or wrong.{valid}"
        f" {setting(evidence)}"
    )
    return Table("position", caption, raw, columns)


def draw_position(evidence: Evidence) -> Figure:
    """By padding: accuracy of where, what the side was worth, and consistency of what under shifts."""
    experiment, measures = evidence.experiment, measures_of(evidence)
    figure, axes = panels(3, height=3.8)
    found = {
        (task_of(cell.dataset), cell.factors.rpartition("padding ")[2]): cell for cell in cells(measures, experiment)
    }
    shown = (("where", "test_accuracy", "where is it?"), ("swapped", "val_minus_test", "lost when sides are swapped"))
    for ax, (task, measure, title) in zip(axes, shown, strict=False):
        for i, (arm, colour) in enumerate(zip(experiment.pair, COLOURS, strict=True)):
            for x, padding in enumerate(PADDINGS):
                if cell := found.get((task, padding)):
                    values = cell_rows(measures, cell, arm)[measure].dropna().to_numpy(dtype=float)
                    look = {"fmt": MARKERS[i], "color": colour, "label": None if x else arm}
                    draw_points(ax, [x + 0.2 * i - 0.1], [stats.mean_interval(values)], **look)
        ax.set_xticks(range(len(PADDINGS)), PADDINGS)
        ax.set_title(title, fontsize=11)
        ax.set_xlabel("padding")
        in_percent(ax.yaxis)
    axes[0].axhline(CHANCE, color="#777777", linestyle=":")
    axes[0].annotate("chance", (0.5, CHANCE), ha="center", va="bottom", fontsize=9, color="#777777")
    axes[0].set_ylim(0, 1)
    axes[1].axhline(0, color="#777777", linewidth=1)
    shifts, last = shifts_of(evidence), axes[2]
    for j, padding in enumerate(PADDINGS):
        for i, (arm, colour) in enumerate(zip(experiment.pair, COLOURS, strict=True)):
            if cell := found.get(("what", padding)):
                runs = cell_rows(measures, cell, arm)[[f"consistency_{shift}" for shift in shifts]].dropna()
                if runs.empty:
                    continue
                low, high = stats.mean_band(runs.to_numpy(dtype=float))
                last.plot(shifts, runs.mean(), DASHES[i] + "os^"[j], color=colour, markersize=5)
                last.fill_between(shifts, low, high, color=colour, alpha=0.12, linewidth=0)
        last.plot([], [], "os^"[j], color="#777777", label=padding)
    last.set_title("same class when moved", fontsize=11)
    last.set_xlabel("moved by, px")
    last.set_xticks(shifts)
    in_percent(last.yaxis)
    bottom, top = last.get_ylim()
    last.set_ylim(bottom - 0.4 * (top - bottom), top)  # room for the legend
    last.legend(fontsize=8, title="padding", title_fontsize=8, loc="lower right", handletextpad=0.2)
    legend_above(figure, axes[0], 2)
    return figure
