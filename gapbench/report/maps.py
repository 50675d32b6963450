"""Where the evidence lies, by both heads' exact maps: how well it finds the object, and eight images to look at."""

import base64
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter

from gapbench.analysis import stats
from gapbench.analysis.audits import BASELINES, audit_frame, erasing_curves
from gapbench.analysis.evidence import Evidence
from gapbench.analysis.pairs import CELL, cell_rows, cells_by_regime, compare_pairs
from gapbench.experiment import Cell
from gapbench.records import Record
from gapbench.report.drawing import COLOURS, DASHES, MARKERS, draw_points, in_percent, legend_above, panel_grid
from gapbench.report.setting import WHERE, by_cell, setting
from gapbench.report.table import Columns, Row, Table, between, number, p_value, percent, signed_points

METRICS = {
    "pointing": "pointing game",
    "pointing_15": "pointing game, within 15/224",
    "box_largest_50": "MaxBoxAcc V1",
    "box": "MaxBoxAcc V2",
    "pixels": "PxAP",
}
MEASURES = {
    **{f"evidence_{metric}": f"evidence: {title}" for metric, title in METRICS.items()},
    **{f"both_{m}": f"evidence where both are right: {title}" for m, title in METRICS.items() if m != "pixels"},
    "both_precision": "evidence where both are right: average precision of an image's pixels",
    "contrast_pointing": "class minus the mean class: pointing game",
    "contrast_box": "class minus the mean class: MaxBoxAcc V2",
    "gradcam_pointing": "Grad-CAM: pointing game",
    "gradcam_box": "Grad-CAM: MaxBoxAcc V2",
    "deletion_evidence": "deletion by evidence",
    "deletion_initial": "deletion by the initial weights' map",
    "insertion_evidence": "insertion by evidence",
    "insertion_initial": "insertion by the initial weights' map",
}
NAMES = {"centre": "centre box", "initial": "initial weights", "intensity": "brightness"}


def has_maps(evidence: Evidence) -> bool:
    """Whether some net was asked where its evidence lies."""
    return "evidence_pointing" in evidence.measures


def maps_table(evidence: Evidence) -> Table:
    """Every score of both heads' maps, compared over pairs, the baselines beside it."""
    experiment, measures = evidence.experiment, evidence.measures
    flatten, gap = experiment.pair
    known = [measure for measure in MEASURES if measure in measures]  # without a whole pair none where both are right
    raw = pd.concat([compare_pairs(measures, experiment, measure) for measure in known], ignore_index=True)
    shown = baselines_of(experiment.pair)
    for title, (name, arm) in shown.items():
        raw[title] = [baseline(measures, row, name, arm) for row in raw.to_dict("records")]

    def baselines(row: Row) -> str:
        return ", ".join(f"{title} {percent(row[title])}" for title in shown if pd.notna(row[title])) or "–"

    columns: Columns = {
        **WHERE,
        "score": lambda r: MEASURES[r["measure"]],
        flatten: lambda r: percent(r[f"{flatten}_mean"]),
        gap: lambda r: percent(r[f"{gap}_mean"]),
        f"{gap} - {flatten}": lambda r: signed_points(r["estimate"]),
        "95 % interval": lambda r: between(r["low"], r["high"], signed_points),
        "n": lambda r: number(int(r["n"])),
        "p (sign flip)": lambda r: p_value(r["sign_flip_p"]),
        "baselines": baselines,
    }
    both = ", ".join(
        f"{cell.label} {cell.regime} {cell_rows(measures, cell, gap)['both_share'].mean():.0%}"
        for cell in experiment.cells
        if "both_share" in measures and not cell_rows(measures, cell, gap).empty
    )
    caption = (
        "Where the evidence for an image's own class lies (GT-known), against the object's box and pixels: share of 400"
        " test images; differences in points. Evidence is gradient times input on the last maps, which of a head of one"
        " layer sums with the bias to the logit exactly. A threshold of boxes is the best of 19 on 200 validation"
        " images, for each IoU. V1: the largest component, IoU 0.5; V2: any component, mean over IoU 0.3, 0.5 and 0.7."
        " Deletion (lower is better) and insertion (higher is better): mean probability of the class, from that of the"
        " blank image, 0 %, to that of the whole one, 100 %, while pixels are erased, or shown, those of most evidence"
        " first. Both heads right:"
        f" {both or 'no whole pair yet'} of the images. {setting(evidence)}"
    )
    return Table("maps", caption, by_cell(raw, experiment), columns)


def baselines_of(pair: tuple[str, str]) -> dict[str, tuple[str, str]]:
    """By title, a baseline and the arm whose runs hold it: those of the data alone are one for both."""
    shown = {NAMES[name]: (name, pair[1]) for name in BASELINES if name != "initial"}
    return shown | {f"{arm}'s {NAMES['initial']}": ("initial", arm) for arm in pair}


def baseline(measures: pd.DataFrame, row: Row, name: str, arm: str) -> float:
    """A baseline's mean in the row's cell and metric, over the runs of an arm; nan where it has none."""
    kind, _, metric = str(row["measure"]).partition("_")
    if kind not in ("evidence", "contrast", "gradcam"):
        return float("nan")
    return float(cell_rows(measures, Cell(*(row[part] for part in CELL)), arm)[f"{name}_{metric}"].mean())


def draw_maps(evidence: Evidence) -> Figure:
    """Three scores against the size of the canvas: both heads' evidence, and the baselines in grey."""
    experiment, measures = evidence.experiment, evidence.measures
    shown = ("pointing", "box", "pixels")
    rows = cells_by_regime(measures, experiment)
    figure, axes = panel_grid(len(rows), len(shown), sharey=True)
    for line, (regime, found) in zip(axes, rows.items(), strict=True):
        sizes = [cell.px for cell in found]
        for ax, metric in zip(line, shown, strict=True):
            for i, (arm, colour) in enumerate(zip(experiment.pair, COLOURS, strict=True)):
                values = [cell_rows(measures, cell, arm)[f"evidence_{metric}"].dropna() for cell in found]
                intervals = [stats.mean_interval(own.to_numpy(dtype=float)) for own in values]
                draw_points(ax, sizes, intervals, fmt=MARKERS[i] + DASHES[i], color=colour, label=f"{arm}, evidence")
            looks = ((":", "#777777"), ("x-", "#777777"), *(("-.", colour) for colour in COLOURS))
            for (title, (name, arm)), (dash, colour) in zip(baselines_of(experiment.pair).items(), looks, strict=True):
                means = [cell_rows(measures, cell, arm)[f"{name}_{metric}"].mean() for cell in found]
                ax.plot(sizes, means, dash, color=colour, linewidth=1, label=title)
            ax.set_xticks(sizes)
            ax.set_ylim(0, 1)
            in_percent(ax.yaxis)
            if line is axes[0]:
                ax.set_title(METRICS[metric], fontsize=11)
        line[0].set_ylabel(f"score, {regime} regime" if len(rows) > 1 else "score")
    for ax in axes[-1]:
        ax.set_xlabel("canvas, px")
    legend_above(figure, axes[0][0], 3)
    return figure


def draw_erasing(evidence: Evidence) -> Figure:
    """The class's probability while pixels are erased or shown, most evidence first, between blank and whole image."""
    experiment = evidence.experiment
    rows = cells_by_regime(evidence.measures, experiment)
    found = rows.get("tuned") or next(iter(rows.values()))
    figure, axes = panel_grid(2, len(found), sharey=True, sharex=True)
    by_id = {record.run_id: record for record in evidence.records}
    for column, cell in enumerate(found):
        for i, (arm, colour) in enumerate(zip(experiment.pair, COLOURS, strict=True)):
            runs = [by_id[run_id] for run_id in cell_rows(evidence.measures, cell, arm)["run_id"]]
            runs = [run for run in runs if "erasing" in run.audits]
            if not runs:
                continue
            curves = pd.concat([erasing_curves(run).assign(run=run.run_id) for run in runs])
            for way, ax in zip(("deletion", "insertion"), (axes[0][column], axes[1][column]), strict=True):
                for order, width in (("evidence", 2.0), ("initial", 0.8)):
                    own = curves[(curves["way"] == way) & (curves["order"] == order)]
                    values = own.pivot(index="run", columns="share", values="probability").dropna()
                    if values.empty:
                        continue
                    low, high = stats.mean_band(values.to_numpy(dtype=float))
                    label = f"{arm}, {'by evidence' if order == 'evidence' else 'initial weights'}"
                    ax.plot(values.columns, values.mean(), DASHES[i], color=colour, linewidth=width, label=label)
                    ax.fill_between(values.columns, low, high, color=colour, alpha=0.15, linewidth=0)
        axes[0][column].set_title(f"{cell.regime}, {cell.label}", fontsize=10)
        axes[1][column].set_xlabel("% of the pixels")
        axes[1][column].xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}"))
    for way, line in zip(("erased", "shown"), axes, strict=True):
        line[0].set_ylabel(f"class's probability,\npixels {way}")
        for ax in line:
            ax.set_ylim(-0.1, 1.1)
            in_percent(ax.yaxis)
    legend_above(figure, axes[0][0], 4)
    return figure


def gallery_pair(evidence: Evidence) -> list[Record]:
    """The first seed's two runs at the largest size, of the tuned regime where there is one; fewer where none is."""
    experiment = evidence.experiment
    rows = cells_by_regime(evidence.measures, experiment)
    cell = max(rows.get("tuned") or next(iter(rows.values())), key=lambda cell: cell.px)
    kept = [record for record in evidence.records if "gallery" in record.audits]
    ids = [set(cell_rows(evidence.measures, cell, arm)["run_id"]) for arm in experiment.pair]
    return [record for own in ids for record in kept if record.run_id in own][:2]


def has_gallery(evidence: Evidence) -> bool:
    """Whether both halves of a pair kept their maps."""
    return has_maps(evidence) and len(gallery_pair(evidence)) == 2


def decode(text: str, kind: str, *shape: int) -> np.ndarray:
    """The array that `audits.encode` wrote."""
    return np.frombuffer(base64.b64decode(text), kind).reshape(shape)


def draw_gallery(evidence: Evidence) -> Figure:
    """The first test image of each of eight classes: with its object's box, and both heads' evidence for its class."""
    records = gallery_pair(evidence)
    spec = records[0].spec
    px, side = spec.task.px, spec.backbone.feature_px(spec.task.px)
    shown = audit_frame(records[0], "gallery")
    figure, axes = panel_grid(3, len(shown), height=1.1)
    for column, row in enumerate(shown.to_dict("records")):
        image = decode(row["image"], "u1", px, px, -1)
        for line, ax in enumerate(panels[column] for panels in axes):
            ax.imshow(image if image.shape[2] == 3 else image[..., 0], cmap="gray", vmin=0, vmax=255)
            frame_object(ax, row)
            ax.set(xticks=[], yticks=[])
            ax.grid(visible=False)
            if line == 0:
                ax.set_title(f"class {row['label']}", fontsize=10)
                continue
            own = audit_frame(records[line - 1], "gallery").iloc[column]
            heat = decode(own["evidence"], "<f4", side, side)
            first, last = spec.backbone.start - 0.5, spec.backbone.start + side * spec.backbone.stride - 0.5
            ax.imshow(heat, cmap="inferno", alpha=0.7, extent=(first, last, last, first), interpolation="bilinear")
            ax.set(xlim=(-0.5, px - 0.5), ylim=(px - 0.5, -0.5))
            right = own["predicted"] == own["label"]
            ax.set_xlabel(f"{'✓' if right else '✗'} {own['predicted']}", fontsize=10)
    for panels, name in zip(axes, ("image", *evidence.experiment.pair), strict=True):
        panels[0].set_ylabel(name)
    return figure


def frame_object(ax: Axes, row: Any) -> None:
    """The box around the object."""
    corner, size = (
        (row["left"] - 0.5, row["top"] - 0.5),
        (row["right"] - row["left"] + 1, row["bottom"] - row["top"] + 1),
    )
    ax.add_patch(Rectangle(corner, *size, fill=False, edgecolor="#56b4e9", linewidth=1.5))
