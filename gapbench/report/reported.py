"""Beside our own test errors, those that the source of a claim printed for the same arms."""

from typing import Any

import pandas as pd

from gapbench.analysis.evidence import Evidence
from gapbench.analysis.pairs import cells, compare_pairs
from gapbench.analysis.stats import Interval
from gapbench.experiment import Reported
from gapbench.report.arms import Measure, interval_of
from gapbench.report.setting import WHERE, setting
from gapbench.report.table import Columns, Row, Table, percent, signed_points, with_interval

ERROR = Measure("test_error", "test error")


def has_reported(evidence: Evidence) -> bool:
    """Whether the experiment repeats one that somebody printed."""
    return evidence.experiment.reported is not None


def reported_frame(evidence: Evidence, reported: Reported) -> pd.DataFrame:
    """One row a cell and arm: mean test error and its difference from the arm under test, ours and the source's."""
    experiment, rows, nan = evidence.experiment, list[dict[str, Any]](), float("nan")
    base = experiment.pair[1]
    for arm, error in reported.test_error.items():
        compared = pd.DataFrame()
        if arm != base:
            compared = compare_pairs(evidence.measures, experiment, ERROR.name, pair=(base, arm))
        for i, cell in enumerate(cells(evidence.measures, experiment)):
            mean = interval_of(evidence, cell, arm, ERROR) or Interval(nan, nan, nan, 0, "none")
            row = cell._asdict() | {"arm": arm, "mean": mean.estimate, "mean_low": mean.low, "mean_high": mean.high}
            row |= {name: nan if compared.empty else compared[name][i] for name in ("estimate", "low", "high")}
            row |= {"n": mean.n, "reported": error, "reported_difference": error - reported.test_error[base]}
            rows.append(row)
    return pd.DataFrame(rows)


def reported_table(evidence: Evidence) -> Table:
    """Our test errors beside the source's, and what differs."""
    experiment, reported = evidence.experiment, evidence.experiment.reported
    assert reported is not None  # `has_reported`
    base = experiment.pair[1]

    def change(row: Row) -> str:
        if row["arm"] == base:
            return "–"
        return with_interval(row["estimate"], row["low"], row["high"], signed_points)

    columns: Columns = {
        **WHERE,
        "arm": lambda r: r["arm"],
        "test error here": lambda r: with_interval(r["mean"], r["mean_low"], r["mean_high"], percent),
        f"arm - {base} here, points": change,
        "n": lambda r: str(r["n"]),
        f"test error, {reported.source}": lambda r: percent(r["reported"]),
        f"arm - {base} there": lambda r: "–" if r["arm"] == base else signed_points(r["reported_difference"]),
    }
    caption = (
        f"Our test errors beside those of {reported.source}, which gives neither seeds nor intervals. What differs"
        f" here: {reported.differs} {setting(evidence)}"
    )
    return Table("reported", caption, reported_frame(evidence, reported), columns)
