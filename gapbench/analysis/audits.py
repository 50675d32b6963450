"""What the audits of a record say, as measures: one number a run, by name; nan where it is undefined."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from gapbench.records import Record

BASELINES = ("centre", "initial", "intensity")
KEPT = "kept"  # measures of `kept_measures`: accuracy over other sizes minus that at the trained one


def audit_frame(record: Record, name: str) -> pd.DataFrame:
    """One table of a record's audits; empty where there is none."""
    return pd.DataFrame({column: list(values) for column, values in record.audits.get(name, {}).items()})


def audit_measures(record: Record) -> dict[str, float]:
    """Every measure of a record's audits.

    {map}_{metric} (the mean over images), baseline_pointing (of the best baseline), pointing_over_baseline,
    {deletion,insertion}_{order} (`erasing_curves`, the mean over the share), consistency_{shift},
    {accuracy,loss}_{fit}_{px}_{adapter}_{statistics}, and kept_* (`kept_measures`).
    """
    found: dict[str, float] = {}
    for row in audit_frame(record, "maps").to_dict("records"):
        found[f"{row['map']}_{row['metric']}"] = float(row["value"])
    if found:
        found["baseline_pointing"] = max(found[f"{name}_pointing"] for name in BASELINES)
        found["pointing_over_baseline"] = found["evidence_pointing"] - found["baseline_pointing"]
    for (way, order), rows in erasing_curves(record).groupby(["way", "order"]) if found else ():
        found[f"{way}_{order}"] = float(np.trapezoid(rows["probability"], rows["share"]))
    for row in audit_frame(record, "shifts").to_dict("records"):
        found[f"consistency_{row['shift']}"] = float(row["consistency"])
    sizes = audit_frame(record, "sizes")
    if not sizes.empty:
        for row in sizes[sizes["split"] == "test"].to_dict("records"):
            name = "_".join(str(row[part]) for part in ("fit", "px", "adapter", "statistics"))
            found[f"accuracy_{name}"], found[f"loss_{name}"] = float(row["accuracy"]), float(row["loss"])
        found |= kept_measures(sizes, record.spec.task.px)
    return found


def erasing_curves(record: Record) -> pd.DataFrame:
    """Deletion and insertion, the blank image's probability as 0 and the whole one's as 1: nets differ in both.

    Divided by the whole alone, a net that guesses the class of a blank image would seem to hold on to it. nan where the
    whole image is no likelier than the blank one.
    """
    curves = audit_frame(record, "erasing")
    if curves.empty:
        return curves
    deletion = curves[curves["way"] == "deletion"]
    whole, blank = (deletion[deletion["share"] == end].set_index("order")["probability"] for end in (0, 1))
    span = (whole - blank).where(whole > blank)
    relative = (curves["probability"] - curves["order"].map(blank)) / curves["order"].map(span)
    return curves.assign(probability=relative)


class Way(NamedTuple):
    """How a net meets images of another size."""

    fit: str  # resized: the image was; padded: what is around it
    adapter: str
    statistics: str  # of batch norm: own, or new

    @property
    def label(self) -> str:
        """`pool, new statistics`."""
        adapter = "as it is" if self.adapter == "none" else self.adapter
        return adapter + (", new statistics" if self.statistics == "new" else "")

    @property
    def measure(self) -> str:
        """The name of what is kept this way."""
        return "_".join((KEPT, *self))


def kept_measures(sizes: pd.DataFrame, own_px: int) -> dict[str, float]:
    """kept_{fit}_{adapter}_{statistics}: test accuracy, mean over the other sizes, minus that at the trained size.

    And kept_..._val, the same of validation images, by which an adapter is chosen. Only ways that take every size.
    """
    found = {}
    for split, suffix in (("test", ""), ("val", "_val")):
        rows = sizes[sizes["split"] == split]
        own = rows[(rows["px"] == own_px) & (rows["adapter"] == "none")]["accuracy"].iloc[0]
        others = rows[rows["px"] != own_px]
        for fit, of_fit in others.groupby("fit"):
            for (adapter, statistics), way in of_fit.groupby(["adapter", "statistics"]):
                if len(way) == of_fit["px"].nunique():
                    name = Way(str(fit), str(adapter), str(statistics)).measure + suffix
                    found[name] = float(way["accuracy"].mean() - own)
    return found


def ways(measures: pd.DataFrame) -> list[Way]:
    """The ways of which some run has a value."""
    names = [name for name in map(str, measures) if name.startswith(f"{KEPT}_") and not name.endswith("_val")]
    found = [Way(*name.split("_")[1:]) for name in names if measures[name].notna().any()]
    return sorted(found, key=lambda w: (w.fit != "resized", w.statistics != "own", w.adapter != "none", w.adapter))


def best_way(runs: pd.DataFrame, fit: str) -> Way | None:
    """Of the ways that change an arm's nets or images, the one that keeps most of the validation accuracy."""
    changed = [way for way in ways(runs) if way.fit == fit and way != Way(fit, "none", "own")]
    scores = {way: float(runs[f"{way.measure}_val"].mean()) for way in changed}
    return max(scores, key=lambda way: scores[way]) if scores else None


def both_right(pair: Sequence[Record]) -> Mapping[str, Sequence[float]]:
    """both_{metric} of each of two runs over the images that both classify correctly, and both_share of those."""
    tables = [audit_frame(record, "images") for record in pair]
    if any(table.empty for table in tables):
        return {}
    right = (tables[0]["correct"] * tables[1]["correct"]).to_numpy(dtype=bool)
    found: dict[str, Any] = {"both_share": [float(right.mean())] * 2}
    for metric in tables[0].columns[2:]:
        found[f"both_{metric}"] = [float(table[metric][right].mean()) if right.any() else np.nan for table in tables]
    return found
