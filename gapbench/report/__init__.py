"""Evidence to tables, figures and one page. Every byte is a function of the records; never imports JAX."""

import json
import math
from dataclasses import asdict
from pathlib import Path

from gapbench.analysis.claims import Card, make_cards
from gapbench.analysis.frames import curves_frame, throughput_frame, timing_frame
from gapbench.analysis.metrics import measures_frame
from gapbench.records import load_folder, write_bytes
from gapbench.report import tables
from gapbench.report.figures import draw_all
from gapbench.report.page import render_page
from gapbench.spec import UserError
from gapbench.timings import load_throughput


def build_report(folder: Path) -> dict[str, bytes]:
    """Everything derived from a folder's records, by path inside it; trains nothing, writes nothing.

    Raises:
      UserError: no experiment there, no trained run, a broken record, or two halves of a pair that do not match.
    """
    experiment, records = load_folder(folder)
    if not any(record.status in ("ok", "diverged") for record in records):
        raise UserError(f"{folder}: no run has been trained yet: gapbench run {folder.name}")
    curves, timing = curves_frame(records), timing_frame(folder, records)
    measures = measures_frame(records, curves, experiment)
    throughput = throughput_frame(load_throughput(folder))
    cards = make_cards(experiment, records, measures, throughput)
    made = [
        tables.claims_table(experiment, records, cards),
        tables.parameters_table(experiment, records),
        tables.overfitting_table(experiment, records, measures),
        tables.convergence_table(experiment, records, measures, timing),
        tables.throughput_table(experiment, throughput),
    ]
    figures = draw_all(experiment, records, curves, measures, throughput)
    note = tables.completeness(experiment, records)
    files = {
        "claims.json": claims_json(cards),
        "index.html": render_page(folder.name, experiment, cards, made, figures, note),
    }
    for table in made:
        for kind, text in (("csv", table.csv), ("md", table.markdown), ("tex", table.latex)):
            files[f"tables/{table.name}.{kind}"] = text
    return {name: text.encode() for name, text in files.items()} | {
        f"figures/{name}.{kind}": content for name, kinds in figures.items() for kind, content in kinds.items()
    }


def claims_json(cards: list[Card]) -> str:
    """The cards, numbers to six digits, null where there is none."""

    def rounded(value: object) -> object:
        if isinstance(value, float):
            return float(f"{value:.6g}") if math.isfinite(value) else None
        return value

    rows = [{name: rounded(value) for name, value in asdict(card).items()} for card in cards]
    return json.dumps(rows, indent=1, ensure_ascii=False) + "\n"


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    """Write each file whole, and leave those alone that are equal already."""
    for name, content in files.items():
        path = folder / name
        if not path.is_file() or path.read_bytes() != content:
            write_bytes(path, content)


def differing(folder: Path, files: dict[str, bytes]) -> list[str]:
    """Names of files that differ from those on disk, are missing there, or stand there although nothing makes them."""
    derived = {
        f"{path.parent.name}/{path.name}" for kind in ("tables", "figures") for path in (folder / kind).glob("*")
    }
    unequal = {n for n, content in files.items() if not (folder / n).is_file() or (folder / n).read_bytes() != content}
    return sorted(unequal | (derived - set(files)))
