"""The tuned rates as a table."""

from gapbench.analysis.evidence import Evidence
from gapbench.analysis.tuning import tuning_frame
from gapbench.report.setting import setting
from gapbench.report.table import Columns, Table, between, percent


def chooses_rates(evidence: Evidence) -> bool:
    """Whether rates are chosen from it."""
    return evidence.experiment.axis == "peak_lr"


def tuning_table(evidence: Evidence) -> Table:
    """Validation accuracy by head and peak rate, and the rate that the rule chooses."""
    raw = tuning_frame(evidence.measures, evidence.experiment)
    columns: Columns = {
        "head": lambda r: r["arm"],
        "peak learning rate": lambda r: f"{r['peak_lr']:g}",
        "validation accuracy": lambda r: percent(r["estimate"]),
        "95 % interval": lambda r: between(r["low"], r["high"], percent),
        "n": lambda r: str(r["n"]),
        "": lambda r: "chosen (at the edge of the grid)" if r["at_edge"] else "chosen" if r["chosen"] else "",
    }
    caption = (
        "The rate of the tuned regime: the highest validation accuracy at the last step, over whole validation splits,"
        " averaged over seeds and sizes (a diverged run counts as zero; of equal rates the smaller). The runs that are"
        f" judged use other seeds, and no test image decides anything here. {setting(evidence)}"
    )
    return Table("tuning", caption, raw, columns)
