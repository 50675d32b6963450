"""What the pairs of an experiment can find, and how many it would take."""

import numpy as np
import pandas as pd

from gapbench.analysis import power, stats
from gapbench.analysis.claims import CLAIMS, ERROR_MARGIN
from gapbench.analysis.evidence import Evidence
from gapbench.analysis.pairs import cells, paired_values
from gapbench.report.setting import WHERE, setting
from gapbench.report.table import Columns, Table, between, number, p_value, signed_points


def power_frame(evidence: Evidence, margin: float | None = None) -> pd.DataFrame:
    """One row a cell and measure: the spread of the paired differences, what pairing gains, and pairs for a margin.

    Margins are fractions: those of claim C2, or `margin` for both of its measures.
    """
    experiment = evidence.experiment
    primary = f"overfit_at_{experiment.train_losses[0]:g}"
    wanted = {primary: abs(CLAIMS["C2"].margin), "test_error": ERROR_MARGIN}
    rows = []
    for cell in cells(evidence.measures, experiment):
        for measure, own in wanted.items():
            size = margin or own
            _, reference, treatment = paired_values(evidence.measures, cell, experiment.pair, measure)
            differences = treatment - reference
            equal = stats.equivalence(differences, size)
            gain = power.pairing_gain(reference, treatment)
            rows.append(
                {
                    **cell._asdict(),
                    "measure": measure,
                    "margin": size,
                    "n": len(differences),
                    "estimate": float(np.mean(differences)) if len(differences) else np.nan,
                    "spread": float(np.std(differences, ddof=1)) if len(differences) > 1 else np.nan,
                    "correlation": stats.correlation(reference, treatment),
                    "gain": gain.estimate,
                    "gain_low": gain.low,
                    "gain_high": gain.high,
                    "pairs_needed": power.pairs_needed(differences, size),
                    "pairs_for_equivalence": power.pairs_for_equivalence(differences, size),
                    "equivalence_p": equal.p,
                    "equivalent": equal.equivalent,
                }
            )
    return pd.DataFrame(rows)


def power_table(evidence: Evidence, margin: float | None = None) -> Table:
    """How many pairs a margin would need, and whether the heads are equivalent within it."""
    raw = power_frame(evidence, margin)
    columns: Columns = {
        **WHERE,
        "measure": lambda r: r["measure"].replace("_at_", " at train loss ").replace("_", " "),
        "margin, points": lambda r: f"{100 * r['margin']:g}",
        "n": lambda r: str(r["n"]),
        "difference, points": lambda r: signed_points(r["estimate"]),
        "spread, points": lambda r: number(100 * r["spread"]),
        "correlation": lambda r: "–" if pd.isna(r["correlation"]) else f"{r['correlation']:.2f}",
        "pairing saves, times": lambda r: f"{number(r['gain'])} {between(r['gain_low'], r['gain_high'], number)}",
        "pairs to find the margin": lambda r: number(r["pairs_needed"]),
        "pairs to show equivalence": lambda r: number(r["pairs_for_equivalence"]),
        "equivalence p": lambda r: p_value(r["equivalence_p"]),
        "equivalent": lambda r: "yes" if r["equivalent"] else "no",
    }
    caption = (
        "What these pairs can find. Pairs with which a two-sided paired t test finds a true difference of the margin,"
        " and two one-sided tests show equivalence where there is none, with probability 0.8 at 5 %, from the measured"
        " spread (itself known to 0.69 to 1.83 times from 10 pairs). Pairing saves: (var a + var b) / var(a - b), the"
        f" unpaired runs that a paired one stands for. {setting(evidence, 'Pitman-Morgan intervals of the gain')}"
    )
    return Table("power", caption, raw, columns)
