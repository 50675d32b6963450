"""One self-contained HTML page: verdicts first, then figures and sortable tables; no network, readable on a phone."""

import base64
from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from gapbench.analysis.claims import CLAIMS, IN_POINTS, Card
from gapbench.analysis.evidence import Evidence
from gapbench.analysis.verdicts import count
from gapbench.report.setting import completeness
from gapbench.report.table import Table, p_value

CAPTIONS = {
    "maps": "Does the evidence lie where the object is? Pointing game: the strongest is in its box. MaxBoxAcc V2: a box"
    " around what is above a threshold is its box. PxAP: its pixels come first. Means with 95 % intervals over seeds;"
    " thin: baselines. A score that brightness wins says little of evidence.",
    "gallery": "What does each head look at? The first judged test image of each of the first eight classes, seed 0,"
    " the largest canvas, whatever the nets say of it: its object's box, and the evidence for its class, dark to"
    " bright from the lowest to the highest of each map; below, ✓ or ✗ and the class that the net gives.",
    "sizes": "Does a net work at sizes that it was not trained at? Bands are 95 % intervals over seeds. Dips between"
    " multiples of the net's stride: pooling drops the border, and adapted maps lie a little off.",
    "size_losses": "And how sure is it of what it gets wrong? The loss at the same sizes.",
    "position": "Is GAP blind to position? Means with 95 % intervals over seeds. Moved: of the task what. A little is"
    " left on a circle: the cells are no multiples of the net's stride, so that an object's place in the grid of the"
    " pooling tells of its cell, and the cells are not all equally common.",
    "erasing": "A second opinion without boxes: how fast does the class go when its evidence is erased, and come when"
    " it is shown? 0 % is the blank image, 100 % the whole one.",
    "along_axis": "Does the head's effect grow along the axis? Means with 95 % intervals over seeds.",
    "forest": "What remains of the difference when one thing is taken away? Each row against gap, 95 % intervals.",
    "ladder": "Is there a dose and a response? From gap (1) to flatten (the whole grid), two initialisations.",
    "signs": "Does the difference survive another recipe? gap against flatten in every cell, 95 % intervals.",
    "learning_curves": "How fast, and how far apart? Test (solid) and train (dashed) accuracy;"
    " bands are 95 % intervals over seeds.",
    "paired_differences": "Is it real? One dot a pair of runs that differ in the head alone.",
    "time_to_target": "How long until the target? Kaplan-Meier curves; a marker at the end: runs that never got there.",
    "accuracy_by_parameters": "What do the parameters buy?",
    "gradients": "Is GAP slow because its gradient is small? Norms of the backbone's and the head's gradient.",
    "throughput_ratio": "Is it cheaper to run? Above one, gap is faster; bars are 95 % intervals over processes.",
    "roofline": "What limits it? Under the slope: memory; under the flat line: arithmetic. Filled: float32.",
}
MARKS = {"supported": "✓", "refuted": "✗", "undecided": "?", "depends": "±"}  # beside the colour


def card_view(card: Card) -> dict[str, str]:
    """A card's text as the page shows it."""
    return {
        "regime": card.regime,
        "size": card.where,
        "outcome": card.outcome,
        "mark": MARKS[card.outcome],
        "estimate": card.show(card.estimate),
        "interval": card.interval,
        "n": card.pairs,
        "p": p_value(card.p_adjusted),
        "note": card.note,
    }


def render_page(evidence: Evidence, tables: Sequence[Table], figures: dict[str, dict[str, bytes]]) -> str:
    """The page's HTML."""
    environment = Environment(
        loader=PackageLoader("gapbench.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    claims = []
    for claim in CLAIMS:
        own = [card for card in evidence.cards if card.claim == claim]
        if own:
            wholes = [card for card in own if card.px is None]
            whole = next((card for card in wholes if card.regime == "tuned"), wholes[0])
            cells = [card_view(card) for card in own if card.px is not None]
            margin = whole.show(whole.margin) + (" points" if claim in IN_POINTS else "")
            counted = count([card for card in own if card.px is not None])
            claims.append(
                {"id": claim, "declared": whole, "margin": margin, "whole": card_view(whole), "cells": cells}
                | {"counted": f"{counted} cells"}
            )
    pictures = [
        {"name": figure, "caption": caption, "data": base64.b64encode(figures[figure]["svg"]).decode()}
        for figure, caption in CAPTIONS.items()
        if figure in figures
    ]
    # what --set made is no experiment that make knows
    command = (
        f"gapbench report {evidence.name}" if "+" in evidence.name else f"make reproduce EXPERIMENT={evidence.name}"
    )
    return environment.get_template("page.html").render(
        evidence=evidence, command=command, claims=claims, tables=tables, pictures=pictures, note=completeness(evidence)
    )
