"""One verdict a claim over everything published: what the tuned regime says, and what flips it.

A claim about training is supported or refuted only if every cell of the tuned regime says so, on every data set of the
headline experiments (those that vary nothing but data and size). It depends where those contradict each other, or
where a factor flips them: the shared learning rate, or what another experiment varies (which is asked where they agree
with each other). Else it is undecided.
"""

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from gapbench.analysis.claims import CLAIMS, TRAINED, Card, overall, points
from gapbench.analysis.evidence import Evidence
from gapbench.data.canvas import is_canvas

HEADLINE = ("C2", "C5")  # claims of which an experiment judges at least one to be counted in any other
OPPOSITE = {"supported": "refuted", "refuted": "supported"}


class Verdict(NamedTuple):
    """A claim's outcome, and in a line why."""

    claim: str
    outcome: str
    why: str


def is_headline(evidence: Evidence, claims: Collection[str] = HEADLINE) -> bool:
    """Whether an experiment judges one of the claims and varies nothing but data and size, in both regimes."""
    experiment = evidence.experiment
    return bool(experiment.tuned) and not experiment.factors and not set(claims).isdisjoint(experiment.family)


def on_canvases(evidence: Evidence) -> bool:
    """Whether its objects may stand anywhere, and not in the middle of the image."""
    return all(is_canvas(spec.task.dataset) for spec in evidence.experiment.runs)


def deciding_cards(claim: str, found: Sequence[Evidence]) -> list[Card]:
    """A claim's cells of the headline experiments; where it is about trained nets, of its own and the tuned regime."""
    regime, claims = ("tuned", (claim,)) if claim in TRAINED else ("any", HEADLINE)
    cards = [card for evidence in found if is_headline(evidence, claims) for card in evidence.cards]
    return [card for card in cards if card.px and (card.claim, card.regime) == (claim, regime)]


def judge_claim(claim: str, found: Sequence[Evidence]) -> Verdict:
    """The verdict on one claim."""
    cells = [(evidence, card) for evidence in found for card in evidence.cards if card.claim == claim and card.px]
    deciding = deciding_cards(claim, found)
    if not deciding and claim in TRAINED:
        return Verdict(claim, "undecided", "no tuned regime is published yet")
    if claim == "C4":
        return judge_sizes(deciding)
    deciding = deciding or [card for _, card in cells]  # exact counts and timings know no regime
    outcome = overall([card.outcome for card in deciding] or ["undecided"])
    regime = "tuned cells" if claim in TRAINED else "cells"
    counted = f"{count(deciding)} {regime} of {', '.join(dict.fromkeys(card.dataset for card in deciding))}"
    if halves := [card.answers for card in deciding if claim == "C2" and card.outcome == "refuted"]:
        errs, overfits = (sum(answers[half] == "no" for answers in halves) for half in (1, 0))
        counted += f"; refuted by test error in {errs}, by overfit in {overfits}"
    if outcome == "depends":
        return Verdict(claim, outcome, f"on the {name_factor(deciding)}: {counted}")
    if outcome == "undecided":
        open_cells = [card for card in deciding if card.outcome == "undecided"]
        return Verdict(claim, outcome, f"{counted}; open: {'; '.join(map(say_open, open_cells))}")
    flipped = [(e, card) for e, card in cells if card not in deciding and card.outcome == OPPOSITE[outcome]]
    if flipped:
        factors = dict.fromkeys(
            "the shared learning rate" if is_headline(e) or not card.factors else card.factors for e, card in flipped
        )
        return Verdict(claim, "depends", f"on the recipe: {counted}, but not with {'; '.join(factors)}")
    return Verdict(claim, outcome, counted)


def judge_sizes(tuned: Sequence[Card]) -> Verdict:
    """C4: a net that answers at every size may still answer wrongly."""
    runs = [card for card in tuned if card.part == "runs"]
    works = [card for card in tuned if card not in runs]
    why = f"it runs: {count(runs)} tuned cells"
    if works:
        worst, best = (points(end(card.estimate for card in works)) for end in (min, max))
        why += f"; it works: {count(works)}, {worst} to {best} points at other sizes"
    outcome = overall([card.outcome for card in tuned])
    return Verdict("C4", outcome, f"on what is meant: {why}" if outcome == "depends" else why)


def say_open(card: Card) -> str:
    """An undecided cell, and what would decide it."""
    others = "longer runs" if "unknown" in card.answers else "more pairs"  # else only the test is short of pairs
    mend = f"about {card.pairs_to_decide:,} pairs" if card.pairs_to_decide else others
    return f"{card.dataset}, {card.where} ({mend} would decide)"


def count(cards: Sequence[Card]) -> str:
    """`5 of 7`: how many have the outcome that most have."""
    outcomes = [card.outcome for card in cards]
    parts = [f"{outcomes.count(outcome)} {outcome}" for outcome in dict.fromkeys(outcomes)]
    return " and ".join(parts) + f" of {len(cards)}"


def name_factor(cards: Sequence[Card]) -> str:
    """What separates cells that contradict each other: data, size, both, or else the net and its recipe."""
    keys: dict[str, Callable[[Card], object]] = {
        "data set": lambda card: card.dataset,
        "size": lambda card: card.px,
        "size and data set": lambda card: (card.dataset, card.px),
    }
    for name, key in keys.items():
        groups: dict[object, set[str]] = {}
        for card in cards:
            groups.setdefault(key(card), set()).add(card.outcome)
        if not any({"supported", "refuted"} <= outcomes for outcomes in groups.values()):
            return name
    return "net and its recipe"


def judge_published(found: Sequence[Evidence]) -> list[Verdict]:
    """Every claim that something published speaks of."""
    spoken = {card.claim for evidence in found for card in evidence.cards}
    return [judge_claim(claim, found) for claim in CLAIMS if claim in spoken]
