"""The tables of the claims, and which tables an experiment has: each a function of the evidence, its caption whole."""

from collections.abc import Callable, Sequence
from dataclasses import asdict

import pandas as pd

from gapbench.analysis.claims import CLAIMS, IN_POINTS, TESTED
from gapbench.analysis.evidence import Evidence
from gapbench.analysis.pairs import CELL, PROBABILITY, cell_rows, compare_pairs
from gapbench.analysis.readings import describe_readings, label_readings, readings_frame
from gapbench.analysis.stats import kaplan_meier, restricted_mean
from gapbench.counts import count_head, count_net, optimizer_bytes
from gapbench.experiment import Cell
from gapbench.report.arms import arms_table, has_more_arms
from gapbench.report.crossover import crossover_table, has_crossover
from gapbench.report.gradients import gradients_table, has_gradients
from gapbench.report.maps import has_maps, maps_table
from gapbench.report.position import has_shifts, position_table
from gapbench.report.power import power_table
from gapbench.report.reported import has_reported, reported_table
from gapbench.report.setting import WHERE, by_cell, setting
from gapbench.report.signs import factors_table, has_factors, signs_table
from gapbench.report.sizes import costs_table, has_sizes, sizes_table
from gapbench.report.speed_tables import efficiency_table, throughput_table
from gapbench.report.table import Columns, Row, Table, between, number, p_value, percent, signed_points, with_interval
from gapbench.report.tuning import chooses_rates, tuning_table


def parameters_table(evidence: Evidence) -> Table:
    """Parameters, optimiser state, arithmetic and activations by input size and head, the article's example first."""
    reference = evidence.experiment.pair[0]
    rows: list[dict[str, str | float]] = [
        {"case": "article, 2 classes", "feature_map": "10×10×32", "head": head}
        | {"head_parameters": count_head(head, 32, 10, 2).parameters}
        for head in ("flatten", "gap")
    ]
    nets = {(r.spec.task.px, r.spec.head): r for r in evidence.records if r.parameters}
    for (px, head), record in sorted(nets.items(), key=lambda net: (net[0][0], net[0][1] != reference)):
        spec, total = record.spec, sum(record.parameters.values())
        side = spec.backbone.feature_px(px)
        counts = count_net(spec, record.image_channels, record.classes)
        rows.append(
            {
                "case": f"{px} px, {record.classes} classes",
                "feature_map": f"{side}×{side}×{spec.backbone.channels}",
                "head": head,
                "head_parameters": record.parameters["head"],
                "total_parameters": total,
                "optimizer_bytes": optimizer_bytes(spec.recipe, total),
                "flops": counts.flops if counts else float("nan"),
                "activation_bytes": counts.activation_bytes if counts else float("nan"),
            }
        )
    raw = pd.DataFrame(rows)
    first = raw[raw["head"] == reference].set_index("case")
    for part in ("head", "total"):
        raw[f"{part}_ratio"] = first[f"{part}_parameters"].reindex(raw["case"]).to_numpy() / raw[f"{part}_parameters"]
    columns: Columns = {
        "input": lambda r: r["case"],
        "feature map": lambda r: r["feature_map"],
        "head": lambda r: r["head"],
        "head parameters": lambda r: number(r["head_parameters"]),
        "all parameters": lambda r: number(r["total_parameters"]),
        f"times fewer than {reference} (head)": lambda r: number(r["head_ratio"]),
        f"times fewer than {reference} (all)": lambda r: number(r["total_ratio"]),
        "optimiser bytes": lambda r: number(r["optimizer_bytes"]),
        "MFLOP an image": lambda r: number(r["flops"] / 1e6),
        "activation bytes an image": lambda r: number(r["activation_bytes"]),
    }
    caption = (
        "Parameters, arithmetic and memory (exact, nothing varied): the article's example of 32 maps of 10×10 and 2"
        " classes (3200·2 against 32·2 weights, plus 2 biases), then the nets of this experiment. FLOPs are of a"
        " forward pass; activations are the layer outputs kept for the backward pass."
    )
    return Table("parameters", caption, raw, columns)


def overfitting_table(evidence: Evidence) -> Table:
    """Every way to measure overfit, and test error, compared over pairs."""
    experiment, measures = evidence.experiment, evidence.measures
    flatten, gap = experiment.pair
    labels = label_readings(experiment) | {"train_loss_final": "train loss at the last step"}
    readings = readings_frame(measures, experiment)
    losses = compare_pairs(measures, experiment, "train_loss_final")
    raw = pd.concat([readings, losses], ignore_index=True)

    def value(row: Row, key: str) -> str:
        return number(row.get(key)) if row["measure"] == "train_loss_final" else percent(row.get(key))

    def change(row: Row, key: str) -> str:
        return f"{row[key]:+.3f}" if row["measure"] == "train_loss_final" else signed_points(row[key])

    columns: Columns = {
        **WHERE,
        "measure": lambda r: labels[r["measure"]] + (" (!)" if r["disagree"] is True and r["sign"] else ""),
        flatten: lambda r: value(r, f"{flatten}_mean"),
        gap: lambda r: value(r, f"{gap}_mean"),
        f"{gap} - {flatten}": lambda r: change(r, "estimate") if r["n"] else "–",
        "95 % interval": lambda r: f"[{change(r, 'low')}, {change(r, 'high')}]" if r["n"] > 1 else "–",
        "n": lambda r: str(r["n"]),
        "p (sign flip)": lambda r: p_value(r.get("sign_flip_p")),
        "p (Wilcoxon)": lambda r: p_value(r.get("wilcoxon_p")),
        "correlation": lambda r: f"{r['correlation']:.2f}" if pd.notna(r.get("correlation")) else "–",
        f"P({gap} lower)": show_probability,
    }
    raw = by_cell(raw, experiment)
    caption = (
        "Overfit (train - test accuracy, both in eval mode) by input size; differences in percentage points. Overfit at"
        " matched train loss and test error are primary: overfit at the last step confounds speed with regularisation."
        " (!) marks the decided readings of a cell where one is below zero and another above."
        f" {describe_readings(readings, losses, experiment)} Between evaluations it is linear, from step 0 where"
        " the first one is below that train loss; along training each split is seen through at most"
        f" {experiment.runs[0].task.curve_images} images drawn by seed, at the last step whole. n below"
        f" {len({s.seed for s in experiment.runs})}: a run never reached that train loss. {setting(evidence)}"
    )
    return Table("overfitting", caption, raw, columns)


def show_probability(row: Row) -> str:
    """`0.9 [0.6, 0.98]`; a dash where there is no pair."""
    estimate, low, high = (row.get(name) for name in PROBABILITY)
    return with_interval(estimate, low, high, lambda value: number(value, 2))


def convergence_table(evidence: Evidence) -> Table:
    """Steps, images and training seconds to each target, never-reached runs censored at the last step."""
    experiment = evidence.experiment
    flatten, gap = experiment.pair
    raw = by_cell(pd.concat([convergence_rows(evidence, target) for target in experiment.targets]), experiment)
    columns: Columns = {
        **WHERE,
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
        "Restricted mean steps to a validation accuracy fixed in advance (reached: two consecutive evaluations,"
        " interpolated to the first; never reached: censored at the last step), and gap / flatten. Medians are"
        " Kaplan-Meier's; a dash: not reached by half the runs. Seconds are of training alone, at each head's median"
        f" time a step, and vary with the machine's load. {setting(evidence)}"
    )
    return Table("convergence", caption, raw, columns)


def convergence_rows(evidence: Evidence, target: float) -> pd.DataFrame:
    """`compare_pairs` on one target's steps, with how many runs reached it, medians, images and seconds by head."""
    experiment, measures = evidence.experiment, evidence.measures
    rows = compare_pairs(measures, experiment, f"steps_to_{target:g}", ratio=True)
    timed = measures.merge(evidence.timing, on="run_id", how="left")
    timed["step_s"] = timed["train_s"] / timed["steps"]
    for head in experiment.pair:
        for i, row in rows.iterrows():
            cell = cell_rows(timed, Cell(*row[CELL]), head)
            curve = kaplan_meier(
                cell[f"steps_to_{target:g}"].to_numpy(), cell[f"reached_{target:g}"].to_numpy(dtype=bool)
            )
            mean = restricted_mean(curve, float(cell["steps"].max()))
            half = curve.time[curve.surviving <= 0.5]
            rows.loc[i, f"{head}_reached"] = f"{int(cell[f'reached_{target:g}'].sum())}/{len(cell)}"
            rows.loc[i, f"{head}_median"] = half[0] if len(half) else float("nan")
            rows.loc[i, f"{head}_images"] = mean * cell["batch"].mean()
            rows.loc[i, f"{head}_train_s"] = mean * cell["step_s"].median()
            rows.loc[i, f"{head}_val_area"] = cell["val_area"].mean()
    return rows.assign(target=target)


def claims_table(evidence: Evidence) -> Table:
    """Every card, the claim over all cells after its cells."""
    order = list(CLAIMS)
    cards = sorted(evidence.cards, key=lambda card: (order.index(card.claim), card.px is None))
    raw = pd.DataFrame([{**asdict(card), "answers": ", ".join(card.answers), "card": card} for card in cards])
    raw["px"] = raw["px"].astype("Int64")
    columns: Columns = {
        "claim": lambda r: f"{r['claim']} {r['title']}",
        "data": lambda r: r["dataset"],
        "regime": lambda r: r["regime"],
        "cell": lambda r: r["card"].where,
        "outcome": lambda r: r["outcome"],
        "estimate": lambda r: r["card"].show(r["estimate"]),
        "95 % interval": lambda r: r["card"].interval,
        "margin": lambda r: r["card"].show(r["margin"]),
        "n": lambda r: r["card"].pairs,
        "p (Holm)": lambda r: p_value(r["p_adjusted"]),
        "note": lambda r: r["note"],
    }
    tested = ", ".join(claim for claim in evidence.experiment.family if claim in TESTED)
    family = f" over the family of {tested} in every cell" if tested else ""
    caption = (
        "Verdicts computed from the records: supported where the 95 % interval lies wholly beyond the margin, and"
        f" {name_claims(TESTED)} have a Holm-adjusted exact p below 0.05{family}; refuted where it lies wholly short of"
        f" the margin; else undecided. {name_claims(IN_POINTS)} in percentage points, the others as ratios; the"
        f" intervals of C6 are of processes and blocks. {setting(evidence)}"
    )
    return Table("claims", caption, raw, columns)


def name_claims(claims: Sequence[str]) -> str:
    """`C2, C3 and C5`."""
    return f"{', '.join(claims[:-1])} and {claims[-1]}"


def always(evidence: Evidence) -> bool:
    """Of every experiment."""
    return True


def has_timings(evidence: Evidence) -> bool:
    """Whether a timing was tried; a row may say why there is none."""
    return not evidence.throughput.empty


TABLES: tuple[tuple[Callable[[Evidence], Table], Callable[[Evidence], bool]], ...] = (  # and whether it says something
    (claims_table, always),
    (maps_table, has_maps),
    (sizes_table, has_sizes),
    (costs_table, has_sizes),
    (position_table, has_shifts),
    (parameters_table, always),
    (tuning_table, chooses_rates),
    (arms_table, has_more_arms),
    (factors_table, has_factors),
    (signs_table, has_factors),
    (reported_table, has_reported),
    (crossover_table, has_crossover),
    (overfitting_table, always),
    (convergence_table, always),
    (gradients_table, has_gradients),
    (power_table, always),
    (throughput_table, has_timings),
    (efficiency_table, has_timings),
)


def make_tables(evidence: Evidence) -> list[Table]:
    """Those that say something about the experiment, the verdicts first."""
    return [make(evidence) for make, applies in TABLES if applies(evidence)]
