"""What every table says of its experiment: in which cell a row is, and under what conditions it was made."""

import numpy as np
import pandas as pd

from gapbench.analysis.evidence import Evidence
from gapbench.analysis.pairs import CELL
from gapbench.experiment import Cell, Experiment, show
from gapbench.report.table import Columns


def setting(evidence: Evidence, bootstrap: str = "BCa bootstrap over pairs of seeds at the expanded level") -> str:
    """What every caption ends with: regime, n, what varied and what did not, device, and what is missing."""
    experiment, records = evidence.experiment, evidence.records
    seeds = sorted({spec.seed for spec in experiment.runs})
    tuned = ", ".join(f"{head} {rate:g}" for head, rate in experiment.tuned.items())
    devices = sorted({f"{r.provenance['device']}, jax {r.provenance['packages']['jax']}" for r in records})
    recipe = experiment.runs[0].recipe
    varied = {name: list(dict.fromkeys(spec.cell_row[name] for spec in experiment.runs)) for name in experiment.factors}
    train_images = ", ".join(str(n) for n in sorted({spec.task.train_images for spec in experiment.runs}))
    parts = [
        f"Shared regime: one recipe for both heads ({recipe.optimizer}, peak {recipe.peak_lr:g}, {recipe.steps} steps"
        f" of {recipe.batch}, {train_images} training images, unless the row says otherwise).",
        f"Tuned regime: each head at the peak rate that {experiment.tuned_on} chose for it, {tuned}." if tuned else "",
        f"Varied: {'; '.join(f'{k} ' + ', '.join(map(show, v)) for k, v in varied.items())}." if varied else "",
        f"{len(seeds)} seeds; a seed varies initialisation, batch order, training and validation images;"
        f" the test split stays the same, of which a curve sees a part drawn by seed. Intervals: 95 % {bootstrap}.",
        f"Trained on: {'; '.join(devices) or 'nothing yet'}.",
    ]
    return " ".join(filter(None, [*parts, completeness(evidence)]))


def completeness(evidence: Evidence) -> str:
    """Empty when every declared run has a record, and every record is ok and of a net that learnt; else what is not."""
    experiment, records = evidence.experiment, evidence.records
    missing = len(experiment.all_runs) - len(records)
    ended = [f"{sum(r.status == s for r in records)} {s}" for s in ("diverged", "out_of_memory", "failed")]
    ended = [text for text in ended if not text.startswith("0 ")]
    incomplete = f"INCOMPLETE: {missing} of {len(experiment.all_runs)} runs have no record." if missing else ""
    chance = sum(r.status == "ok" and r.final["train"].accuracy < 1.5 / r.classes for r in records)
    learnt = f"No better than chance at the end, and counted as they are: {chance} runs." if chance else ""
    return " ".join(filter(None, (incomplete, f"Not ok: {', '.join(ended)}." if ended else "", learnt)))


WHERE: Columns = {
    "regime": lambda r: r["regime"],
    "cell": lambda r: Cell(*(r[name] for name in CELL)).label,
}


def by_cell(rows: pd.DataFrame, experiment: Experiment) -> pd.DataFrame:
    """The rows in the order of the declared cells."""
    place = {cell: i for i, cell in enumerate(experiment.cells)}
    keys = [place[Cell(*row)] for row in rows[CELL].itertuples(index=False)]
    return rows.iloc[np.argsort(keys, kind="stable")].reset_index(drop=True)
