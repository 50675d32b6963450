"""One experiment's folder as everything a table, figure, verdict or notebook draws on."""

from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from gapbench.analysis.cards import make_cards
from gapbench.analysis.claims import Card
from gapbench.analysis.frames import curves_frame, timing_frame
from gapbench.analysis.metrics import measures_frame
from gapbench.analysis.speed import throughput_frame
from gapbench.experiment import Experiment
from gapbench.records import Record, load_folder
from gapbench.spec import UserError
from gapbench.timings import load_throughput


@dataclass(frozen=True)
class Evidence:
    """Records and what follows from them."""

    name: str  # of the experiment
    experiment: Experiment
    records: list[Record]
    curves: pd.DataFrame  # a row a run and evaluated step
    measures: pd.DataFrame  # a row a trained run
    timing: pd.DataFrame  # a row a run, seconds
    throughput: pd.DataFrame  # a row an environment and timed cell
    cards: list[Card]


def load_evidence(folder: Path) -> Evidence:
    """Everything that follows from a folder's records; trains nothing.

    Raises:
      UserError: no experiment there, no trained run, a broken file, or two halves of a pair that do not match.
    """
    experiment, records = load_folder(folder)
    if not any(record.status in ("ok", "diverged") for record in records):
        raise UserError(f"{folder}: no run has been trained yet: gapbench run {folder.name}")
    empty = pd.DataFrame()
    times, throughput = timing_frame(folder, records), throughput_frame(load_throughput(folder))
    return derive(Evidence(folder.resolve().name, experiment, records, empty, empty, times, throughput, []))


def derive(evidence: Evidence) -> Evidence:
    """`evidence` with curves, measures and cards that follow from its experiment, records and throughput."""
    curves = curves_frame(evidence.records)
    measures = measures_frame(evidence.records, curves, evidence.experiment)
    cards = make_cards(evidence.experiment, evidence.records, measures, evidence.throughput)
    return replace(evidence, curves=curves, measures=measures, cards=cards)
