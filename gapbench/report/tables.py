"""Frames to tables: CSV with raw values, Markdown and LaTeX with rounded ones, each under a caption of its own."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd
from tabulate import tabulate

from gapbench.analysis.claims import CLAIMS, Card
from gapbench.analysis.pairs import compare_pairs
from gapbench.analysis.stats import kaplan_meier, restricted_mean
from gapbench.counts import Counts, count_backbone, count_head, count_spec_head, optimizer_bytes
from gapbench.records import Record
from gapbench.spec import Experiment

Row = Mapping[Any, Any]  # of the raw frame, by column
Columns = dict[str, Callable[[Row], str]]  # heading -> text of a raw row


@dataclass(frozen=True)
class Table:
    """A table as it is kept (`raw`) and, by `columns`, as it is read."""

    name: str
    caption: str
    raw: pd.DataFrame
    columns: Columns

    @property
    def shown(self) -> list[list[str]]:
        """Text of every cell, row by row."""
        return [[text(row) for text in self.columns.values()] for row in self.raw.to_dict("records")]

    @property
    def csv(self) -> str:
        """Raw values to six digits, on which every version of the numerical libraries agrees."""
        return str(self.raw.to_csv(index=False, float_format="%.6g", lineterminator="\n"))

    @property
    def markdown(self) -> str:
        """GitHub's table, the caption under it."""
        body = tabulate(self.shown, list(self.columns), "github", disable_numparse=True)
        return f"{body}\n\n*{self.caption}*\n"

    @property
    def latex(self) -> str:
        """booktabs, ready for \\input."""
        style = pd.DataFrame(self.shown, columns=list(self.columns)).style.hide(axis="index")
        style = style.format(escape="latex").format_index(escape="latex", axis="columns")
        caption = "".join("\\" + c if c in "%_&#$" else c for c in self.caption)
        return str(style.to_latex(hrules=True, caption=caption, label=f"tab:{self.name}", position_float="centering"))


def number(value: Any, digits: int = 3) -> str:
    """Significant digits without an exponent; a dash where there is no value."""
    if value is None or pd.isna(value):
        return "–"
    if isinstance(value, int) or abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{float(f'{value:.{digits}g}'):.{max(0, digits - 1 - math.floor(math.log10(abs(value) or 1)))}f}"


def percent(value: Any) -> str:
    """A fraction in percent."""
    return "–" if pd.isna(value) else f"{100 * value:.2f} %"


def signed_points(value: Any) -> str:
    """A difference of fractions in percentage points."""
    return "–" if pd.isna(value) else f"{100 * value:+.2f}"


def p_value(value: Any) -> str:
    """Three decimals, or what it is below."""
    return "–" if pd.isna(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def between(low: Any, high: Any, text: Callable[[Any], str]) -> str:
    """`[low, high]`."""
    return "–" if pd.isna(low) else f"[{text(low)}, {text(high)}]"


def setting(experiment: Experiment, records: list[Record]) -> str:
    """What every caption ends with: regime, n, what varied and what did not, device, and what is missing."""
    seeds = sorted({spec.seed for spec in experiment.runs})
    devices = sorted({f"{r.provenance['device']}, jax {r.provenance['packages']['jax']}" for r in records})
    recipes = {spec.recipe for spec in experiment.runs}
    recipe = next(iter(recipes))
    train_images = ", ".join(str(n) for n in sorted({spec.task.train_images for spec in experiment.runs}))
    parts = [
        f"{experiment.regime.capitalize()} regime: one recipe ({recipe.optimizer}, peak {recipe.peak_lr:g},"
        f" {recipe.steps} steps of {recipe.batch}, {train_images} training images) for both heads.",
        f"{len(seeds)} seeds; a seed varies initialisation, batch order, training and validation images;"
        " the test images stay the same. Intervals: 95 % BCa bootstrap over pairs of seeds.",
        f"Trained on: {'; '.join(devices) or 'nothing yet'}.",
    ]
    return " ".join([*parts, completeness(experiment, records)]).strip()


def completeness(experiment: Experiment, records: list[Record]) -> str:
    """Empty when every declared run has a record and every record is ok; otherwise what is not."""
    missing = len(experiment.runs) - len(records)
    ended = [f"{sum(r.status == s for r in records)} {s}" for s in ("diverged", "out_of_memory", "failed")]
    ended = [text for text in ended if not text.startswith("0 ")]
    incomplete = f"INCOMPLETE: {missing} of {len(experiment.runs)} runs have no record." if missing else ""
    return " ".join(filter(None, (incomplete, f"Not ok: {', '.join(ended)}." if ended else "")))


def parameters_table(experiment: Experiment, records: list[Record]) -> Table:
    """Closed-form counts by input size and head, the article's example first."""
    rows: list[Row] = []

    def add(case: str, feature: str, head: str, own: Counts, total: Counts | None, state_bytes: int | None) -> None:
        whole = {} if total is None else {f"total_{name}": value for name, value in total._asdict().items()}
        rows.append(
            {"case": case, "feature_map": feature, "head": head, "head_parameters": own.parameters}
            | {"total_parameters": None, "total_flops": None, "total_activation_bytes": None}
            | whole
            | {"optimizer_bytes": state_bytes}
        )

    for head in ("flatten", "gap"):
        add("article, 2 classes", "10×10×32", head, count_head(head, 32, 10, 2), None, None)
    nets = {(r.spec.task.px, experiment.pair.index(r.spec.head)): r for r in records if r.classes}
    for (px, _), record in sorted(nets.items(), key=lambda item: item[0]):
        spec, side = record.spec, record.spec.backbone.feature_px(px)
        own = count_spec_head(spec, record.classes)
        total = own + count_backbone(spec, record.image_channels)
        state = optimizer_bytes(spec.recipe, total.parameters)
        add(
            f"{px} px, {record.classes} classes",
            f"{side}×{side}×{spec.backbone.channels}",
            spec.head,
            own,
            total,
            state,
        )
    raw = pd.DataFrame(rows)
    first = raw[raw["head"] == experiment.pair[0]].set_index("case")
    for part in ("head", "total"):
        raw[f"{part}_ratio"] = first[f"{part}_parameters"].reindex(raw["case"]).to_numpy() / raw[f"{part}_parameters"]
    columns: Columns = {
        "input": lambda r: r["case"],
        "feature map": lambda r: r["feature_map"],
        "head": lambda r: r["head"],
        "head parameters": lambda r: number(r["head_parameters"]),
        "all parameters": lambda r: number(r["total_parameters"]),
        f"times fewer than {experiment.pair[0]} (head)": lambda r: number(r["head_ratio"]),
        f"times fewer than {experiment.pair[0]} (all)": lambda r: number(r["total_ratio"]),
        "optimiser bytes": lambda r: number(r["optimizer_bytes"]),
        "MFLOP an image": lambda r: number(r["total_flops"] / 1e6 if pd.notna(r["total_flops"]) else None),
        "activation bytes an image": lambda r: number(r["total_activation_bytes"]),
    }
    caption = (
        "Parameters, arithmetic and memory in closed form (exact, nothing varied): the article's example of 32 maps"
        " of 10×10 and 2 classes (3200·2 against 32·2 weights, plus 2 biases), then the nets of this experiment."
        " FLOPs are of a forward pass; activations are the layer outputs kept for the backward pass."
    )
    return Table("parameters", caption, raw, columns)


def overfitting_table(experiment: Experiment, records: list[Record], measures: pd.DataFrame) -> Table:
    """Every way to measure overfit, and test error, compared over pairs."""
    flatten, gap = experiment.pair
    labels = {f"overfit_at_{level:g}": f"overfit at train loss {level:g}" for level in experiment.train_losses}
    labels |= {
        "test_error": "test error",
        "overfit_final": "overfit at the last step",
        "overfit_best_val": "overfit at best validation",
        "overfit_area": "overfit, mean over training",
        "train_loss_final": "train loss at the last step",
    }
    raw = pd.concat([compare_pairs(measures, experiment, name) for name in labels], ignore_index=True)
    signs = raw.pivot(index=["dataset", "px"], columns="measure", values="estimate")
    disagree = signs[f"overfit_at_{experiment.train_losses[0]:g}"] * signs["overfit_final"] < 0
    raw["signs_disagree"] = [bool(disagree.loc[(r["dataset"], r["px"])]) for r in raw.to_dict("records")]

    def value(row: Row, key: str) -> str:
        return number(row.get(key)) if row["measure"] == "train_loss_final" else percent(row.get(key))

    def change(row: Row, key: str) -> str:
        return f"{row[key]:+.3f}" if row["measure"] == "train_loss_final" else signed_points(row[key])

    columns: Columns = {
        "px": lambda r: str(r["px"]),
        "measure": lambda r: (
            labels[r["measure"]] + (" (!)" if r["signs_disagree"] and "overfit_" in r["measure"] else "")
        ),
        flatten: lambda r: value(r, f"{flatten}_mean"),
        gap: lambda r: value(r, f"{gap}_mean"),
        f"{gap} - {flatten}": lambda r: change(r, "estimate") if r["n"] else "–",
        "95 % interval": lambda r: f"[{change(r, 'low')}, {change(r, 'high')}]" if r["n"] else "–",
        "n": lambda r: str(r["n"]),
        "p (sign flip)": lambda r: p_value(r.get("sign_flip_p")),
        "p (Wilcoxon)": lambda r: p_value(r.get("wilcoxon_p")),
        "correlation": lambda r: f"{r['correlation']:.2f}" if pd.notna(r.get("correlation")) else "–",
        "P(gap lower)": lambda r: number(r.get("probability_gap_lower"), 2),
    }
    raw = raw.sort_values(["dataset", "px"], kind="stable", ignore_index=True)
    caption = (
        "Overfit (train - test accuracy, both in eval mode) by input size; differences in percentage points. Overfit at"
        " matched train loss and test error are primary: overfit at the last step confounds speed with regularisation,"
        f" and (!) marks a size where the two have opposite signs. n below {len({s.seed for s in experiment.runs})}:"
        f" a run never reached that train loss. {setting(experiment, records)}"
    )
    return Table("overfitting", caption, raw, columns)


def convergence_table(
    experiment: Experiment, records: list[Record], measures: pd.DataFrame, timing: pd.DataFrame
) -> Table:
    """Steps, images and training seconds to each target, never-reached runs censored at the last step."""
    flatten, gap = experiment.pair
    raw = pd.concat(
        [convergence_rows(measures, timing, experiment, target) for target in experiment.targets], ignore_index=True
    ).sort_values(["dataset", "px"], kind="stable", ignore_index=True)
    columns: Columns = {
        "px": lambda r: str(r["px"]),
        "target": lambda r: percent(r["target"]),
        f"{flatten} steps": lambda r: number(r.get(f"{flatten}_mean")),
        f"{gap} steps": lambda r: number(r.get(f"{gap}_mean")),
        "ratio": lambda r: number(r.get("estimate")),
        "95 % interval": lambda r: between(r.get("low"), r.get("high"), number),
        "n": lambda r: str(r["n"]),
        f"reached ({flatten}, {gap})": lambda r: f"{r[f'{flatten}_reached']}, {r[f'{gap}_reached']}",
        f"median steps ({flatten}, {gap})": lambda r: ", ".join(number(r[f"{h}_median"]) for h in (flatten, gap)),
        f"images ({flatten}, {gap})": lambda r: ", ".join(number(r[f"{h}_images"]) for h in (flatten, gap)),
        f"seconds ({flatten}, {gap})": lambda r: ", ".join(number(r[f"{h}_train_s"], 2) for h in (flatten, gap)),
        "p (sign flip)": lambda r: p_value(r.get("sign_flip_p")),
        f"validation accuracy, mean over training ({flatten}, {gap})": lambda r: ", ".join(
            percent(r[f"{h}_val_area"]) for h in (flatten, gap)
        ),
    }
    caption = (
        "Restricted mean steps to a validation accuracy fixed in advance (reached: two consecutive evaluations; never"
        " reached: censored at the last step), and gap / flatten. Medians are Kaplan-Meier's; a dash: not reached by"
        " half the runs. Seconds are of training alone, at each head's median time a step, and vary with the"
        f" machine's load. {setting(experiment, records)}"
    )
    return Table("convergence", caption, raw, columns)


def convergence_rows(
    measures: pd.DataFrame, timing: pd.DataFrame, experiment: Experiment, target: float
) -> pd.DataFrame:
    """`compare_pairs` on one target's steps, with how many runs reached it, medians, images and seconds by head."""
    rows = compare_pairs(measures, experiment, f"steps_to_{target:g}", ratio=True)
    timed = measures.merge(timing, on="run_id", how="left")
    timed["step_s"] = timed["train_s"] / timed["steps"]
    for head in experiment.pair:
        for i, row in rows.iterrows():
            cell = timed[(timed["dataset"] == row["dataset"]) & (timed["px"] == row["px"]) & (timed["head"] == head)]
            curve = kaplan_meier(
                cell[f"steps_to_{target:g}"].to_numpy(), cell[f"reached_{target:g}"].to_numpy(dtype=bool)
            )
            mean = restricted_mean(curve, float(cell["steps"].max()))
            half = curve.time[curve.surviving <= 0.5]
            rows.loc[i, f"{head}_reached"] = f"{int(cell[f'reached_{target:g}'].sum())}/{len(cell)}"
            rows.loc[i, f"{head}_median"] = half[0] if len(half) else float("nan")
            rows.loc[i, f"{head}_images"] = mean * cell["batch"].iloc[0]
            rows.loc[i, f"{head}_train_s"] = mean * cell["step_s"].median()
            rows.loc[i, f"{head}_val_area"] = cell["val_area"].mean()
    return rows.assign(target=target)


def throughput_table(experiment: Experiment, throughput: pd.DataFrame) -> Table:
    """Images per second of both heads, and their paired ratio, by device, size, batch and phase."""
    flatten, gap = experiment.pair

    def speed(row: Row, head: str) -> str:
        ends = between(row.get(f"{head}_images_per_s_q25"), row.get(f"{head}_images_per_s_q75"), number)
        return f"{number(row.get(f'{head}_images_per_s_median'))} {ends}"

    columns: Columns = {
        "device": lambda r: f"{r['platform'].upper()}: {r['device']}, jax {r['jax']}",
        "phase": lambda r: r["phase"],
        "px": lambda r: str(r["px"]),
        "batch": lambda r: str(r["batch"]),
        f"{flatten} images/s (IQR)": lambda r: speed(r, flatten),
        f"{gap} images/s (IQR)": lambda r: speed(r, gap),
        f"{gap} / {flatten}": lambda r: number(r.get("estimate")),
        "95 % interval": lambda r: between(r.get("low"), r.get("high"), number),
        "n": lambda r: number(int(r["n"])) if pd.notna(r.get("n")) else "–",
        f"p95 s a call ({flatten}, {gap})": lambda r: ", ".join(
            number(r.get(f"{h}_step_s_p95")) for h in (flatten, gap)
        ),
        "of matmul peak": lambda r: ", ".join(percent(r.get(f"{h}_of_matmul_peak")) for h in (flatten, gap)),
        "compile s": lambda r: ", ".join(number(r.get(f"{h}_compile_s"), 2) for h in (flatten, gap)),
        "status": lambda r: r["status"],
    }
    on_cpu = throughput.empty or set(throughput["platform"]) == {"cpu"}
    caption = (
        "Throughput of the pair, interleaved A B B A in one process on random images; the ratio is the median over"
        " blocks (n), its interval a percentile bootstrap over blocks. What varied: the moment of the call; the device"
        f" and the program did not. {'CPU rows only: no accelerator was at hand. ' if on_cpu else ''}"
        f"{'NO TIMINGS YET: gapbench time makes them.' if throughput.empty else ''}"
    ).strip()
    return Table("throughput", caption, throughput, columns)


def claims_table(experiment: Experiment, records: list[Record], cards: list[Card]) -> Table:
    """Every card, the claim over all cells after its cells."""
    order = {claim: i for i, claim in enumerate(CLAIMS)}
    ordered = sorted(cards, key=lambda card: (order[card.claim], card.px is None))
    columns: Columns = {
        "claim": lambda r: f"{r['claim']} {r['title']}",
        "data": lambda r: r["dataset"],
        "px": lambda r: "all" if pd.isna(r["px"]) else str(int(r["px"])),
        "outcome": lambda r: r["outcome"],
        "estimate": lambda r: card_number(r["claim"], r["estimate"]),
        "95 % interval": card_interval,
        "margin": lambda r: card_number(r["claim"], r["margin"]),
        "n": lambda r: str(r["n"]) if r["n"] == r["n_declared"] else f"{r['n']} of {r['n_declared']}",
        "p (Holm)": lambda r: p_value(r["p_adjusted"]),
        "note": lambda r: r["note"],
    }
    raw = pd.DataFrame([asdict(card) for card in ordered])
    raw["answers"] = raw["answers"].map(", ".join)
    raw["px"] = raw["px"].astype("Int64")
    caption = (
        "Verdicts computed from the records: supported or refuted when the 95 % interval lies wholly beyond or short of"
        " the margin, else undecided; C2 and C5 also need a Holm-adjusted exact p below 0.05 over the family"
        f" {', '.join(experiment.family)} at all sizes. C2 in percentage points, the others as ratios."
        f" {setting(experiment, records)}"
    )
    return Table("claims", caption, raw, columns)


def card_number(claim: str, value: float) -> str:
    """A claim's estimate, end or margin in its own unit: points for C2, a ratio for the others."""
    return signed_points(value) if claim == "C2" else number(value)


def card_interval(row: Row) -> str:
    """A card's interval, or that it is exact."""
    if row["claim"] == "C1" and pd.notna(row["low"]):
        return "exact"
    return between(row["low"], row["high"], lambda value: card_number(row["claim"], value))
