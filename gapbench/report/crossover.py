"""Where one arm overtakes the other along an experiment's axis, as a table."""

import numpy as np
import pandas as pd

from gapbench.analysis.crossover import Crossover, crossover
from gapbench.analysis.evidence import Evidence
from gapbench.report.setting import setting
from gapbench.report.table import Columns, Table, number


def has_crossover(evidence: Evidence) -> bool:
    """Whether one arm may overtake the other along the axis."""
    experiment = evidence.experiment
    return (
        experiment.axis in ("train_images", "steps") and len({s.cell_row[experiment.axis] for s in experiment.runs}) > 2
    )


def crossover_rows(evidence: Evidence) -> list[tuple[str, str, Crossover]]:
    """(regime, measure, crossover) along the axis."""
    experiment, measures = evidence.experiment, evidence.measures
    found = []
    for regime, own in measures.groupby("regime", sort=False):
        for measure in ("test_error", "overfit_final"):
            wide = own.pivot(index=experiment.axis, columns=["arm", "seed"], values=measure)
            reference, treatment = (wide[arm].to_numpy(dtype=float) for arm in experiment.pair)
            found.append((str(regime), measure, crossover(wide.index.to_numpy(dtype=float), reference, treatment)))
    return found


def name_lower(pair: tuple[str, str], sign: int) -> str:
    """The arm that a crossover's sign says is lower."""
    return {-1: pair[1], 1: pair[0], 0: "neither"}[sign]


def bound(value: float) -> str:
    """An end of an interval that may lie outside the range."""
    return number(value) if np.isfinite(value) else "beyond the range" if value > 0 else "below the range"


def crossover_table(evidence: Evidence) -> Table:
    """Where the sign of gap - flatten changes along the axis, or that it does not."""
    experiment = evidence.experiment
    raw = pd.DataFrame(
        [
            {"regime": regime, "measure": measure, **found._asdict()}
            for regime, measure, found in crossover_rows(evidence)
        ]
    )
    columns: Columns = {
        "regime": lambda r: r["regime"],
        "measure": lambda r: r["measure"].replace("_", " "),
        "lower at the end of the range": lambda r: name_lower(experiment.pair, r["sign"]),
        f"from {experiment.axis.replace('_', ' ')}": lambda r: (
            number(r["estimate"]) if np.isfinite(r["estimate"]) else "throughout"
        ),
        "95 % interval": lambda r: f"[{bound(r['low'])}, {bound(r['high'])}]",
        "resamples that cross": lambda r: f"{100 * r['share']:.0f} %",
        "n": lambda r: str(r["n"]),
    }
    caption = (
        f"From where on, along {experiment.axis.replace('_', ' ')}, one arm stays lower: linear in the logarithm"
        " between the sizes trained, bootstrap over pairs, drawn jointly over all sizes. Throughout: no change of sign."
        f" {setting(evidence, 'percentile bootstrap over pairs')}"
    )
    return Table("crossover", caption, raw, columns)
