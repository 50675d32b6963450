"""What holds the training step back: its operations as a table, a figure and a sentence of the README."""

import pandas as pd
from matplotlib.figure import Figure

from gapbench.operations import FORWARD, INPUT, KERNEL
from gapbench.race import REFERENCE, Race
from gapbench.report.drawing import panels
from gapbench.report.table import Columns, Table, number, percent

CONVOLUTIONS = (FORWARD, INPUT, KERNEL)
BETWEEN = "between operations"
ELSE = "all else"
COLOURS = {FORWARD: "#0072b2", INPUT: "#56b4e9", KERNEL: "#009e73", ELSE: "#bbbbbb"}  # Okabe and Ito; grey could go


def operations_frame(race: Race) -> pd.DataFrame:
    """One row a size, kind and shape, the longest first: seconds and FLOPs of one step, means over the heads."""
    rows = []
    for profile in race.profiles:
        operations = [operation.model_dump() for operation in profile.operations]
        gap_s = max(profile.step_s - sum(operation["seconds"] for operation in operations), 0.0)
        operations.append({"kind": BETWEEN, "shape": "", "seconds": gap_s, "flops": 0.0})
        rows += [{"px": profile.px, **operation} for operation in operations]
    frame = pd.DataFrame(rows).groupby(["px", "kind", "shape"], as_index=False, sort=False).sum()
    heads = frame["px"].map(pd.Series([profile.px for profile in race.profiles]).value_counts())
    frame[["seconds", "flops"]] = frame[["seconds", "flops"]].div(heads, axis=0)
    frame["share"] = frame["seconds"] / frame.groupby("px")["seconds"].transform("sum")
    frame["flops_per_s"] = (frame["flops"] / frame["seconds"]).where(frame["flops"] > 0)
    frame["of_matmul_peak"] = frame["flops_per_s"] / race.core_peak
    return frame.sort_values(["px", "seconds"], ascending=[True, False], kind="stable", ignore_index=True)


def operations_table(race: Race) -> Table:
    """Every kind of operation at every size."""
    columns: Columns = {
        "px": lambda r: str(r["px"]),
        "operation": lambda r: r["kind"],
        "input px, channels": lambda r: r["shape"] or "–",
        "ms a step": lambda r: number(1e3 * r["seconds"]),
        "of the step": lambda r: percent(r["share"]),
        "GFLOP/s": lambda r: number(r["flops_per_s"] / 1e9),
        "of matmul peak": lambda r: percent(r["of_matmul_peak"]),
    }
    caption = (
        f"Where {REFERENCE}'s training step spends its time: a trace of one of {len(race.peaks[0])} workers while all"
        f" trained, means over {' and '.join(race.heads)}, batches of {race.recipe.batch}; a core's matmul peak is"
        f" {number(race.core_peak / 1e9)} GFLOP/s. The first layer's forward pass, a sum of scaled planes, is"
        f" counted as elementwise. All operations sum to {percent(traced_share(race))} of the step as timed without the"
        f" profiler. {explain(race)}"
    )
    return Table("operations", caption, operations_frame(race), columns)


def traced_share(race: Race) -> float:
    """Seconds of all traced operations over those of the steps without the profiler: near 1, or it distorts."""
    traced = sum(operation.seconds for profile in race.profiles for operation in profile.operations)
    return traced / sum(profile.step_s for profile in race.profiles)


def explain(race: Race) -> str:
    """What the convolutions take, and what would be gained if they, or all else, were as fast as can be."""
    frame = operations_frame(race)
    mine = frame[frame["kind"].isin(CONVOLUTIONS)]
    total_s, conv_s = frame["seconds"].sum(), mine["seconds"].sum()
    best_s = mine["flops"].sum() / race.core_peak
    return (
        f"The convolutions take {percent(conv_s / total_s)} of the time, at {percent(best_s / conv_s)} of the matmul"
        f" peak. Were all the rest free, training would be {number(total_s / conv_s)} times as fast; were the"
        f" convolutions at the peak, {number(total_s / (total_s - conv_s + best_s))} times."
    )


def draw_operations(race: Race) -> Figure:
    """A bar a size: milliseconds of a step by kind; a line where its convolutions would end at the matmul peak."""
    frame = operations_frame(race)
    sizes = sorted(frame["px"].unique())
    figure, (ax,) = panels(1, height=1.6 + 0.6 * len(sizes))
    frame["part"] = frame["kind"].where(frame["kind"].isin(CONVOLUTIONS), ELSE)
    for place, px in enumerate(sizes):
        own = frame[frame["px"] == px]
        parts, left = own.groupby("part")["seconds"].sum() * 1e3, 0.0
        for kind, colour in COLOURS.items():
            width = float(parts.get(kind, 0.0))
            ax.barh(place, width, 0.6, left, color=colour, edgecolor="white", label=None if place else kind)
            if width > 0.05 * parts.sum():
                ax.text(left + width / 2, place, f"{width / parts.sum():.0%}", ha="center", va="center", fontsize=10)
            left += width
        best = 1e3 * own["flops"].sum() / race.core_peak
        ax.plot([best, best], [place - 0.4, place + 0.4], color="#d55e00", linewidth=2.5)
        ax.text(best, place - 0.42, "convolutions at matmul peak", color="#d55e00", fontsize=9, ha="left")
    ax.set_yticks(range(len(sizes)), [f"{px} px" for px in sizes])
    ax.set(ylim=(len(sizes) - 0.5, -0.65), xlabel="milliseconds of one training step on one core")
    ax.grid(axis="y", visible=False)
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, fontsize=10)
    return figure
