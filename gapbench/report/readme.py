"""The generated blocks of the README: every number in it comes from the published records.

A block stands between `<!-- generated: NAME -->` and `<!-- end -->`; what is between is replaced.
"""

import re
from collections.abc import Callable
from pathlib import Path

from gapbench.analysis.claims import CLAIMS, Card, make_cards, overall
from gapbench.analysis.frames import curves_frame, throughput_frame
from gapbench.analysis.metrics import measures_frame
from gapbench.records import load_folder, write_text
from gapbench.report.page import MARKS
from gapbench.report.tables import card_interval, card_number
from gapbench.spec import UserError
from gapbench.timings import load_throughput

BLOCK = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def load_cards(folder: Path) -> list[Card]:
    """The verdicts of one experiment's folder."""
    experiment, records = load_folder(folder)
    measures = measures_frame(records, curves_frame(records), experiment)
    return make_cards(experiment, records, measures, throughput_frame(load_throughput(folder)))


def verdicts(folders: list[Path]) -> str:
    """One row a claim: the verdict over everything published, and the cells behind it."""
    cards = {folder.name: load_cards(folder) for folder in folders}
    lines = [f"| claim | verdict | {' | '.join(cards)} |", "|---|---|" + "---|" * len(cards)]
    for claim, declared in CLAIMS.items():
        cells = {name: [c for c in own if c.claim == claim and c.px is not None] for name, own in cards.items()}
        outcome = overall([card.outcome for own in cells.values() for card in own] or ["undecided"])
        columns = "<br>".join
        texts = [columns(cell_text(card) for card in own) or "–" for own in cells.values()]
        lines.append(f"| **{claim}** {declared.title} | {MARKS[outcome]} **{outcome}** | {' | '.join(texts)} |")
    return "\n".join(lines) + "\n"


def cell_text(card: Card) -> str:
    """`28 px ✗ +0.12 [-0.30, +0.50], n=10`."""
    interval = card_interval({"claim": card.claim, "low": card.low, "high": card.high})
    value = card_number(card.claim, card.estimate)
    return f"{card.px} px {MARKS[card.outcome]} {value} {interval}, n={card.n}"


def conditions(folders: list[Path]) -> str:
    """A line an experiment: what was trained, how often, on what."""
    lines = []
    for folder in folders:
        experiment, records = load_folder(folder)
        spec, seeds = experiment.runs[0], {spec.seed for spec in experiment.runs}
        devices = sorted({f"{r.provenance['device']}, jax {r.provenance['packages']['jax']}" for r in records})
        lines.append(
            f"- `{folder.name}`: {len(records)} runs, {len(seeds)} seeds, {spec.task.train_images:,} training images of"
            f" {spec.task.dataset}, {spec.recipe.steps} steps of {spec.recipe.batch}; {'; '.join(devices)}"
        )
    return "\n".join(lines) + "\n"


BLOCKS: dict[str, Callable[[list[Path]], str]] = {"verdicts": verdicts, "conditions": conditions}


def fill_blocks(readme: Path, folders: list[Path], write: bool) -> list[str]:
    """Replace every generated block; returns the file's name if that changed it, and writes it only on `write`.

    Raises:
      UserError: the file is missing, has no block, or names one that nothing generates.
    """
    if not readme.is_file():
        raise UserError(f"{readme}: no such file")
    old = readme.read_text()
    names = [name for _, name, _ in BLOCK.findall(old)]
    unknown = sorted(set(names) - set(BLOCKS))
    if unknown or not names:
        raise UserError(f"{readme}: {f'unknown block {unknown[0]!r}' if unknown else 'no generated block'}")
    new = BLOCK.sub(lambda found: found[1] + BLOCKS[found[2]](folders) + found[3], old)
    if new != old and write:
        write_text(readme, new)
    return [str(readme)] if new != old else []
