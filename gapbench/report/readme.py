"""The generated blocks of the README: every number in it comes from the published records.

A block stands between `<!-- generated: NAME -->` and `<!-- end -->`; what is between is replaced.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gapbench.analysis.claims import CLAIMS, TESTED, Card
from gapbench.analysis.evidence import Evidence
from gapbench.analysis.verdicts import is_headline, judge_published
from gapbench.race import Race
from gapbench.records import write_text
from gapbench.report.guide import ends, guide
from gapbench.report.overall import overall
from gapbench.report.page import MARKS
from gapbench.report.race import speed_block
from gapbench.report.table import number
from gapbench.spec import UserError

ANSWERS = {"yes": "✓", "no": "✗", "unknown": "?"}
BLOCK = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def verdicts(found: list[Evidence]) -> str:
    """One row a claim: the verdict over everything published, and why."""
    lines = ["| claim | verdict | why |", "|---|---|---|"]
    for verdict in judge_published(found):
        title = f"**{verdict.claim}** {CLAIMS[verdict.claim].title}"
        lines.append(f"| {title} | {MARKS[verdict.outcome]} **{verdict.outcome}** | {verdict.why} |")
    return "\n".join(lines) + "\n"


def cells(found: list[Evidence]) -> str:
    """The cells behind the verdicts: a row a claim and size, a column a headline experiment and regime."""
    headlines = [evidence for evidence in found if is_headline(evidence)]
    columns = [(evidence, regime) for evidence in headlines for regime in ("shared", "tuned")]
    lines = [
        "| claim | " + " | ".join(f"{evidence.name}, {regime}" for evidence, regime in columns) + " |",
        "|---|" + "---|" * len(columns),
    ]
    for claim in TESTED:
        texts = []
        for evidence, regime in columns:
            own = [c for c in evidence.cards if (c.claim, c.regime) == (claim, regime) and c.px]
            texts.append("<br>".join(map(cell_text, own)) or "–")
        lines.append(f"| **{claim}** | {' | '.join(texts)} |")
    return "\n".join(lines) + "\n"


def cell_text(card: Card) -> str:
    """`28 px ✗ +0.12 [-0.30, +0.50], n=10`."""
    text = f"{card.px} px {MARKS[card.outcome]} {card.show(card.estimate)} {card.interval}, n={card.pairs}"
    if card.claim == "C2":
        less, no_worse = (ANSWERS[answer] for answer in card.answers)
        text += f" (less overfit {less}, error no worse {no_worse})"
    return text


def conditions(found: list[Evidence]) -> str:
    """A row an experiment: what it asks, with how many runs, of what size, at what cost; then where all of it ran."""
    lines = ["| experiment | question | runs, seeds | training images, steps | core minutes |", "|---|---|---|---|---|"]
    for evidence in found:
        specs = evidence.experiment.runs
        images = span([spec.task.train_images for spec in specs])
        datasets = ", ".join(dict.fromkeys(spec.task.dataset.partition(",")[0] for spec in specs))  # canvas:SOURCE
        steps = f"{span([spec.recipe.steps for spec in specs])} of {span([spec.recipe.batch for spec in specs])}"
        minutes = evidence.timing[["compile_s", "train_s", "eval_s"]].sum().sum() / 60
        page = f"results/published/{evidence.name}/index.html"
        lines.append(
            f"| [`{evidence.name}`]({page}) | {evidence.experiment.question} | {len(evidence.records)},"
            f" {len({spec.seed for spec in specs})} | {images} of {datasets}, {steps} |"
            f" {number(minutes, 2) if minutes else '–'} |"
        )
    devices = {
        f"{record.provenance['device']}, jax {record.provenance['packages']['jax']}"
        for evidence in found
        for record in evidence.records
    }
    return "\n".join(lines) + f"\n\nTrained on: {'; '.join(sorted(devices))}.\n"


def span(values: Sequence[int]) -> str:
    """`250 to 3,500`, or the one value."""
    return ends(values, "{:,}".format)


BLOCKS: dict[str, tuple[type, Callable[[list[Any]], str]]] = {  # by name: what it is made of, and how
    "verdicts": (Evidence, verdicts),
    "guide": (Evidence, guide),
    "overall": (Evidence, overall),
    "cells": (Evidence, cells),
    "conditions": (Evidence, conditions),
    "speed": (Race, speed_block),
}


def make_block(name: str, found: Sequence[Evidence | Race]) -> str:
    """The text between the marks of a block."""
    kind, make = BLOCKS[name]
    return make([one for one in found if isinstance(one, kind)])


def fill_blocks(readme: Path, found: Sequence[Evidence | Race], write: bool) -> list[str]:
    """Replace every generated block; returns the file's name if that changed it, and writes it only on `write`.

    Raises:
      UserError: the file is missing, has no block, or names one that nothing generates.
    """
    if not readme.is_file():
        raise UserError(f"{readme}: no such file")
    old = readme.read_text()
    names = re.findall(r"<!-- generated: (.*?) -->", old)
    unknown = sorted(set(names) - set(BLOCKS))
    if unknown or not names:
        raise UserError(f"{readme}: {f'unknown block {unknown[0]!r}' if unknown else 'no generated block'}")
    for name in names:
        if not re.search(rf"<!-- generated: {name} -->\n((?!<!-- generated).)*?<!-- end -->", old, re.DOTALL):
            raise UserError(f"{readme}: the block {name!r} has no <!-- end -->")
    new = BLOCK.sub(lambda block: block[1] + make_block(block[2], found) + block[3], old)
    if new != old and write:
        write_text(readme, new)
    return [str(readme)] if new != old else []
