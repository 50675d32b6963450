"""Reproduced against published: are the records the same bits, each mean inside its interval, each claim the same?"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gapbench.analysis.claims import Card, make_cards
from gapbench.analysis.frames import curves_frame, throughput_frame
from gapbench.analysis.metrics import measures_frame
from gapbench.analysis.pairs import compare_pairs
from gapbench.records import Record, load_folder
from gapbench.spec import Experiment, UserError
from gapbench.timings import load_throughput

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
    """Whether the same bits are promised: equal versions of the numerical packages, processor and flags."""
    return all(a.provenance.get(name) == b.provenance.get(name) for name in SAME_NUMBERS)


def compare_folders(published: Path, reproduced: Path) -> Comparison:
    """Compare two folders of one experiment.

    Raises:
      UserError: a folder holds no experiment or a broken record, or they share no run.
    """
    experiment, theirs = load_folder(published)
    _, ours = load_folder(reproduced)
    by_id = {record.run_id: record for record in ours}
    both = [(record, by_id[record.run_id]) for record in theirs if record.run_id in by_id]
    if not both:
        raise UserError(f"{reproduced} and {published} share no run: was another version of the experiment run?")
    same = [(a, b) for a, b in both if comparable(a, b)]
    different = tuple(a.run_id for a, b in same if a.result != b.result)
    cells, outside = compare_cells(experiment, theirs, [b for _, b in both])
    claims, changed = compare_claims(
        cards_of(experiment, theirs, published), cards_of(experiment, [b for _, b in both], reproduced)
    )
    missing = tuple(record.run_id for record in theirs if record.run_id not in by_id)
    return Comparison(
        len(both),
        missing,
        len(same),
        len(same) - len(different),
        different,
        cells,
        tuple(outside),
        claims,
        tuple(changed),
    )


def cards_of(experiment: Experiment, records: list[Record], folder: Path) -> list[Card]:
    """The verdicts on these records and the folder's timings."""
    measures = measures_frame(records, curves_frame(records), experiment)
    return make_cards(experiment, records, measures, throughput_frame(load_throughput(folder)))


def compare_cells(experiment: Experiment, published: list[Record], reproduced: list[Record]) -> tuple[int, list[str]]:
    """How many paired estimates were compared, and a line for each that left the published interval."""
    frames = [measures_frame(records, curves_frame(records), experiment) for records in (published, reproduced)]
    measures = [f"overfit_at_{level:g}" for level in experiment.train_losses]
    measures += ["test_error", "overfit_final", "overfit_best_val", "overfit_area"]
    ratios = [f"steps_to_{target:g}" for target in experiment.targets]
    compared, outside = 0, []
    for measure in measures + ratios:
        theirs, ours = (compare_pairs(frame, experiment, measure, ratio=measure in ratios) for frame in frames)
        joined = theirs.merge(ours, on=["dataset", "px"], suffixes=("", "_reproduced"))
        for row in joined.to_dict("records"):
            if row["n"] < 2 or not row["n_reproduced"]:
                continue
            compared += 1
            slack = 1e-9 * (1 + abs(row["estimate"]))
            if not row["low"] - slack <= row["estimate_reproduced"] <= row["high"] + slack:
                outside.append(
                    f"{measure} at {row['px']} px: {row['estimate_reproduced']:.4g}"
                    f" is outside [{row['low']:.4g}, {row['high']:.4g}]"
                )
    return compared, outside


def compare_claims(published: Sequence[Card], reproduced: Sequence[Card]) -> tuple[int, list[str]]:
    """How many verdicts stand in both, and a line for each that changed."""
    theirs = {(card.claim, card.px): card.outcome for card in published}
    ours = {(card.claim, card.px): card.outcome for card in reproduced}
    both = [key for key in theirs if key in ours]
    changed = [
        f"{claim} at {f'{px} px' if px else 'all sizes'}: published {theirs[claim, px]}, here {ours[claim, px]}"
        for claim, px in both
        if theirs[claim, px] != ours[claim, px]
    ]
    return len(both), changed
