"""Evidence to tables, figures and one page. Every byte is a function of the records; never imports JAX."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from gapbench.analysis.claims import Card
from gapbench.analysis.evidence import Evidence, load_evidence
from gapbench.race import FILE, Race, load_race
from gapbench.records import write_bytes
from gapbench.report.drawing import render
from gapbench.report.figures import make_figures
from gapbench.report.page import render_page
from gapbench.report.profile import draw_operations, operations_table
from gapbench.report.race import draw_race, race_table, speed_lines
from gapbench.report.table import Table
from gapbench.report.tables import make_tables


def make_report(folder: Path, plots: bool = False) -> tuple[Evidence | Race, dict[str, bytes]]:
    """A folder's evidence or race and, by path inside the folder, every file derived from it (or the figures alone).

    Raises:
      UserError: what `load_evidence` or `load_race` raises.
    """
    if (folder / FILE).is_file():
        race = load_race(folder)
        drawn, tables = {"rivals": render(draw_race, race)}, [race_table(race)]
        if race.profiles:
            drawn |= {"operations": render(draw_operations, race)}
            tables.append(operations_table(race))
        return race, draw_files(drawn) | ({} if plots else table_files(tables))
    evidence = load_evidence(folder)
    return evidence, draw_files(make_figures(evidence)) if plots else build_files(evidence)


def draw_files(figures: dict[str, dict[str, bytes]]) -> dict[str, bytes]:
    """The figures by path."""
    return {f"figures/{name}.{kind}": data for name, kinds in figures.items() for kind, data in kinds.items()}


def build_files(evidence: Evidence) -> dict[str, bytes]:
    """Tables, figures, claims and the page by path."""
    tables, figures = make_tables(evidence), make_figures(evidence)
    files = {"claims.json": claims_json(evidence.cards), "index.html": render_page(evidence, tables, figures)}
    return {name: text.encode() for name, text in files.items()} | table_files(tables) | draw_files(figures)


def table_files(tables: Sequence[Table]) -> dict[str, bytes]:
    """The tables by path."""
    texts = ((table.name, (("csv", table.csv), ("md", table.markdown), ("tex", table.latex))) for table in tables)
    return {f"tables/{name}.{kind}": text.encode() for name, kinds in texts for kind, text in kinds}


def verdict_lines(evidence: Evidence | Race) -> list[str]:
    """One line a claim and regime: the verdict over all sizes and the sizes behind it; of a race, one an entry."""
    if isinstance(evidence, Race):
        return speed_lines(evidence)
    overall = [card for card in evidence.cards if card.px is None]
    return [
        f"{evidence.name}: {card.claim} {card.title}: {card.outcome}"
        + ("" if card.regime == "any" else f" in the {card.regime} regime")
        + f" ({card.note})"
        for card in overall
    ]


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
    kinds = {name.split("/")[0] for name in files if "/" in name}
    made_here = [path for kind in kinds for path in (folder / kind).glob("[!.]*") if path.is_file()]
    stale = {f"{path.parent.name}/{path.name}" for path in made_here} - set(files)
    unequal = {n for n, content in files.items() if not (folder / n).is_file() or (folder / n).read_bytes() != content}
    return sorted(unequal | stale)
