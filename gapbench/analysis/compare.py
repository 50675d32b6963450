"""Reproduced against published: are the records the same bits, each mean inside its interval, each claim the same?"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from gapbench.analysis.audits import KEPT
from gapbench.analysis.claims import Card
from gapbench.analysis.evidence import Evidence, derive, load_evidence
from gapbench.analysis.pairs import CELL, cell_rows, cells, compare_pairs
from gapbench.analysis.stats import mean_interval
from gapbench.experiment import Cell
from gapbench.records import Record
from gapbench.spec import UserError

SAME_NUMBERS = ("packages", "platform", "device", "precision", "xla_flags")  # provenance that decides the bits


@dataclass(frozen=True)
class Comparison:
    """What a reproduction agrees and disagrees in; empty lists of disagreement mean that it holds."""

    shared: int  # runs with a record in both folders
    missing: tuple[str, ...]  # published runs that the reproduction lacks
    comparable: int  # shared runs made with the same versions on the same kind of processor
    identical: int  # of those, bit for bit
    different: tuple[str, ...]  # of those, not
    cells: int  # measure × size cells compared
    outside: tuple[str, ...]  # cells whose reproduced estimate lies outside the published interval
    claims: int
    changed: tuple[str, ...]  # claims with another outcome

    @property
    def holds(self) -> bool:
        """Every promise kept: same bits where they must be, inside the interval where not, the same claims."""
        return not (self.missing or self.different or self.outside or self.changed)


def comparable(a: Record, b: Record) -> bool:
    """Whether the same bits are promised: equal versions of the numerical packages, processor, flags and driver.

    A fleet of another width or on other devices sums in another order, as does one run alone.
    """
    programs = [record.fleet and (record.fleet.width, record.fleet.devices) for record in (a, b)]
    return programs[0] == programs[1] and all(a.provenance.get(name) == b.provenance.get(name) for name in SAME_NUMBERS)


def compare_folders(published: Path, reproduced: Path) -> Comparison:
    """Compare two folders of one experiment, over the runs that both have.

    Raises:
      UserError: a folder holds no experiment or a broken record, or they share no run.
    """
    theirs, ours = load_evidence(published), load_evidence(reproduced)
    by_id = {record.run_id: record for record in ours.records}
    both = [(record, by_id[record.run_id]) for record in theirs.records if record.run_id in by_id]
    if not both:
        raise UserError(f"{reproduced} and {published} share no run: was another version of the experiment run?")
    same = [(a, b) for a, b in both if comparable(a, b)]
    different = tuple(a.run_id for a, b in same if a.result != b.result)
    here = derive(replace(ours, experiment=theirs.experiment, records=[b for _, b in both]))
    cells, outside = compare_cells(theirs, here)
    claims, changed = compare_claims(theirs.cards, here.cards)
    return Comparison(
        shared=len(both),
        missing=tuple(record.run_id for record in theirs.records if record.run_id not in by_id),
        comparable=len(same),
        identical=len(same) - len(different),
        different=different,
        cells=cells,
        outside=tuple(outside),
        claims=claims,
        changed=tuple(changed),
    )


def compare_cells(published: Evidence, reproduced: Evidence) -> tuple[int, list[str]]:
    """How many paired estimates were compared, and a line for each that left the published interval."""
    experiment = published.experiment
    measures = [f"overfit_at_{level:g}" for level in experiment.train_losses]
    measures += ["test_error", "overfit_final", "overfit_best_val", "overfit_area"]
    names = [name for name in map(str, published.measures) if name in reproduced.measures]
    names = [name for name in names if not name.endswith("_val")]
    measures += [name for name in names if name.startswith(("evidence_", "both_", "consistency_"))]
    ratios = [f"steps_to_{target:g}" for target in experiment.targets]
    kept = [name for name in names if name.startswith(f"{KEPT}_")]
    compared, outside = 0, []
    for measure in measures + ratios + kept:

        def estimates(evidence: Evidence, measure: str = measure) -> pd.DataFrame:
            if measure in kept:
                return arm_means(evidence, measure)
            pairs = compare_pairs(evidence.measures, experiment, measure, ratio=measure in ratios)
            return pairs.assign(arm="")

        joined = estimates(published).merge(estimates(reproduced), on=[*CELL, "arm"], suffixes=("", "_reproduced"))
        for row in joined[joined["n"] > 1].to_dict("records"):
            compared += 1
            slack = 1e-9 * (1 + abs(row["estimate"]))  # an interval may have no width
            if not row["low"] - slack <= row["estimate_reproduced"] <= row["high"] + slack:
                place = ", ".join(filter(None, [Cell(*(row[c] for c in CELL)).label, row["regime"], row["arm"]]))
                ends = f"[{row['low']:.4g}, {row['high']:.4g}]"
                outside.append(f"{measure} at {place}: {row['estimate_reproduced']:.4g} is outside {ends}")
    return compared, outside


def arm_means(evidence: Evidence, measure: str) -> pd.DataFrame:
    """A row a cell and arm of the pair: the mean over seeds. What a way of one head alone keeps has no difference."""
    rows = []
    for cell, arm in itertools.product(cells(evidence.measures, evidence.experiment), evidence.experiment.pair):
        values = cell_rows(evidence.measures, cell, arm)[measure].dropna().to_numpy(dtype=float)
        rows.append({**dict(zip(CELL, cell, strict=True)), "arm": arm, **mean_interval(values)._asdict()})
    return pd.DataFrame(rows)


def compare_claims(published: Sequence[Card], reproduced: Sequence[Card]) -> tuple[int, list[str]]:
    """How many verdicts stand in both, and a line for each that changed."""
    theirs, ours = (
        {(c.claim, c.dataset, c.regime, c.where): c.outcome for c in cards} for cards in (published, reproduced)
    )
    both = [key for key in theirs if key in ours and key[0] != "C6"]  # timings are a machine's own, and vary
    changed = [
        f"{key[0]} at {key[3]}, {key[2]} regime: published {theirs[key]}, here {ours[key]}"
        for key in both
        if theirs[key] != ours[key]
    ]
    return len(both), changed
