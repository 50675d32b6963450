"""A race against other ways to train the same nets, as a table, a figure and the README's block."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from gapbench.analysis.stats import median_interval
from gapbench.race import REFERENCE, Race
from gapbench.report.drawing import COLOURS, panels
from gapbench.report.profile import explain
from gapbench.report.table import Columns, Row, Table, between, number, percent, with_interval


def race_frame(race: Race) -> pd.DataFrame:
    """One row an entry, the fastest first and those that were not timed last.

    `estimate` is the median over rounds (n) of gapbench's images per second over the entry's, with its interval.
    """
    rows = []
    for entry in race.entries:
        row = entry.model_dump(exclude={"versions", "samples_s", "precision", "tolerance"})  # the name says which
        row |= {"versions": ", ".join(f"{name} {version}" for name, version in sorted(entry.versions.items()))}
        row |= dict.fromkeys(("images_per_s_median", "images_per_s_q25", "images_per_s_q75", "of_matmul_peak"), np.nan)
        row |= dict.fromkeys(("estimate", "low", "high", "n"), np.nan)
        if entry.status == "ok":
            low, median, high = np.quantile(race.images_per_s(entry), [0.25, 0.5, 0.75])
            row |= {"images_per_s_median": median, "images_per_s_q25": low, "images_per_s_q75": high}
            if entry.precision == "float32":  # as the peak is
                row |= {"of_matmul_peak": median / race.limit_images_per_s}
            if (ratios := race.ratios(entry)).size:
                row |= median_interval(ratios)._asdict()
        rows.append(row)
    return pd.DataFrame(rows).sort_values("images_per_s_median", ascending=False, kind="stable", ignore_index=True)


def setting(race: Race) -> str:
    """What was trained, on what."""
    sizes, heads = (" and ".join(map(str, values)) for values in (race.sizes_px, race.heads))
    source = race.provenance
    device = f"{len(race.peaks[0])} cores of {source['device']}" if on_cores(race) else f"one {source['device']}"
    return (
        f"{heads} at {sizes} px, {len(race.seeds)} seeds each, batches of {race.recipe.batch} from {race.dataset} in"
        f" memory; {device}, jax {source['packages']['jax']}"
    )


def on_cores(race: Race) -> bool:
    """Whether it ran on a CPU's cores, and not on one accelerator."""
    return bool(race.provenance["platform"] == "cpu")


def tolerances(race: Race) -> str:
    """`0.0001 relative`, and after it those of entries that have their own: ` (0.005 in bfloat16)`."""
    own = {entry.precision: entry.tolerance for entry in race.entries if entry.tolerance}
    return f"{race.tolerance:g} relative" + "".join(f" ({value:g} in {name})" for name, value in own.items())


def versus(row: Row) -> str:
    """`1.53 [1.49, 1.6]`; a dash for gapbench itself and for what was not timed."""
    if row["rival"] == REFERENCE or pd.isna(row["estimate"]):
        return "–"
    return with_interval(row["estimate"], row["low"], row["high"], number)


def placed(row: Row) -> str:
    """`2 × 1`: processes and threads of each."""
    return f"{row['processes']} × {row['threads']}"


def speed(row: Row) -> str:
    """`8,010 [7,900, 8,100]`; a dash for what was not timed."""
    if row["status"] != "ok":
        return "–"
    ends = between(row["images_per_s_q25"], row["images_per_s_q75"], number)
    return f"{number(row['images_per_s_median'])} {ends}"


def race_table(race: Race) -> Table:
    """Every entry, whether it was timed or not."""
    columns: Columns = {
        "trained by": lambda r: r["name"],
        "processes × threads": placed,
        "images/s (IQR)": speed,
        f"{REFERENCE} / this": versus,
        "n": lambda r: number(int(r["n"])) if pd.notna(r["n"]) else "–",
        "of matmul peak": lambda r: percent(r["of_matmul_peak"]),
        "largest loss difference": lambda r: "–" if pd.isna(r["loss_difference"]) else f"{r['loss_difference']:.0e}",
        "versions": lambda r: r["versions"] or "–",
        "status": lambda r: f"{r['status']}: {r['reason']}" if r["reason"] else r["status"],
    }
    caption = (
        f"Total training images per second of one sweep: {setting(race)}. All entries were warm at once and sampled in"
        " turn; the ratio is the median over rounds (n), its interval a percentile bootstrap over rounds. Before that,"
        f" {race.checked_steps} losses of every cell, from the same weights and batches, agreed to {tolerances(race)},"
        f" at a peak learning rate of {race.recipe.peak_lr:g}. The matmul peak is what the"
        f" {'cores reached together' if on_cores(race) else 'device reached'} in a float32 matmul, and would train"
        f" {number(race.limit_images_per_s)} images per second at {number(race.flops_per_image / 1e6)} MFLOP an image"
        " (closed form, three forward passes)."
    )
    return Table("rivals", caption, race_frame(race), columns)


def draw_race(race: Race) -> Figure:
    """Images per second: a dot a sample, a bar at the median, the limit as a line; the ratio in words."""
    rows = race_frame(race).to_dict("records")
    entries = {(entry.name, entry.processes): entry for entry in race.entries}
    figure, (ax,) = panels(1, height=0.9 + 0.55 * len(rows))
    limit = race.limit_images_per_s
    widest = max(limit, *(row["images_per_s_median"] for row in rows if row["status"] == "ok"))
    for place, row in enumerate(rows):
        entry = entries[row["name"], row["processes"]]
        if entry.status != "ok":
            ax.text(0, place, f" {entry.status.replace('_', ' ')}", va="center", color="#777777")
            continue
        ours = row["rival"] == REFERENCE
        colour, median = COLOURS[1] if ours else "#777777", row["images_per_s_median"]
        values = race.images_per_s(entry)
        ax.barh(place, median, height=0.6, color=colour, alpha=0.35, linewidth=0)
        ax.plot(values, place + np.linspace(-0.18, 0.18, len(values)), "o", color=colour, markersize=5)
        text = "" if ours else f" ({REFERENCE}: × {versus(row)})"
        end = max(float(values.max()), median)
        label = ax.text(end + 0.015 * widest, place, f"{number(median)}{text}", va="center", fontsize=10)
        label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1.0})  # it may cross the limit
    mark_limit(ax, limit)
    ax.set_yticks(range(len(rows)), [f"{row['name']}, {placed(row)}" for row in rows])
    ax.set(xlim=(0, 1.04 * widest), ylim=(len(rows) - 0.4, -0.6), xlabel="training images per second, whole sweep")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.grid(axis="y", visible=False)
    figure.supxlabel("name, processes × threads; dot: one round; bar: median", fontsize=9)
    return figure


def mark_limit(ax: Axes, limit: float) -> None:
    """What the matmul peak of the cores would allow."""
    ax.axvline(limit, color="#d55e00", linestyle="--", linewidth=1.5)
    ax.text(limit, 1.0, "limit: matmul peak ", transform=ax.get_xaxis_transform(), ha="right", va="bottom", fontsize=10)


def speed_lines(race: Race) -> list[str]:
    """One line an entry."""
    return [
        f"speed: {row['name']}, {placed(row)}: "
        + (f"{number(row['images_per_s_median'])} images/s, {REFERENCE} / this {versus(row)}")
        + (f" ({row['status']}: {row['reason']})" if row["reason"] else "")
        for row in race_frame(race).to_dict("records")
    ]


def speed_block(races: list[Race]) -> str:
    """One row a rival, at its best; where nothing was measured, how to."""
    if not races:
        return "Not measured yet: `make bench-rivals` does.\n"
    lines = []
    for race in races:
        lines += [f"| trained by | processes × threads | images/s | {REFERENCE} / this |", "|---|---|---|---|"]
        for _, ways in race_frame(race).groupby("rival", sort=False):
            row, others = ways.iloc[0].to_dict(), len(ways) - 1
            name = f"**{row['name']}**" if row["rival"] == REFERENCE else row["name"]
            name += f" (the best of {others + 1})" if others else ""
            median = number(row["images_per_s_median"]) if row["status"] == "ok" else row["status"].replace("_", " ")
            lines.append(f"| {name} | {placed(row)} | {median} | {versus(row)} |")
        rows = [row for row in race_frame(race).to_dict("records") if row["rival"] == REFERENCE]
        ours = max(rows, key=lambda row: pd.notna(row["of_matmul_peak"]))  # the fastest in float32, as the peak is
        whose, name = ("cores'", "speed") if on_cores(race) else ("device's", "speed_accelerator")
        folder = f"results/published/{name}"
        lines += [
            "",
            f"Medians of {len(race.peaks)} interleaved rounds, ratios with 95 % intervals over rounds: {setting(race)}."
            f" {REFERENCE} reaches {percent(ours['of_matmul_peak'])} of the {whose} matmul peak.",
            *([f"{explain(race)} [By operation]({folder}/tables/operations.md)."] if race.profiles else []),
            "",
            f"![Training images per second of every way to train the sweep]({folder}/figures/rivals.png)",
        ]
    return "\n".join(lines) + "\n"
