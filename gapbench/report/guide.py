"""The README's decision guide: when to flatten and when to average, each sentence from a claim's records."""

from collections.abc import Callable, Sequence

import numpy as np

from gapbench.analysis.claims import Card
from gapbench.analysis.crossover import Crossover
from gapbench.analysis.evidence import Evidence
from gapbench.analysis.pairs import compare_pairs
from gapbench.analysis.verdicts import Verdict, is_headline, judge_published
from gapbench.report.crossover import crossover_rows, has_crossover
from gapbench.report.table import number, signed_points


def ends(values: Sequence[float], text: Callable[[float], str]) -> str:
    """`2.1 to 9.8`, or the one value."""
    low, high = text(min(values)), text(max(values))
    return low if low == high else f"{low} to {high}"


def compare(differences: Sequence[float]) -> str:
    """`1.54 to 4.01 points higher`."""
    if min(differences) > 0 or max(differences) < 0:
        size = ends([abs(100 * value) for value in differences], number)
        return f"{size} points {'higher' if min(differences) > 0 else 'lower'}"
    return f"between {signed_points(min(differences))} and {signed_points(max(differences))} points higher"


def deciding(found: Sequence[Evidence], claim: str) -> list[Card]:
    """A claim's cells of the headline experiments, in the tuned regime where it has regimes."""
    cards = [card for evidence in found if is_headline(evidence) for card in evidence.cards if card.px]
    return [card for card in cards if card.claim == claim and card.regime in ("tuned", "any")]


def say_parameters(found: Sequence[Evidence], verdict: Verdict) -> str:
    """C1."""
    smallest = min(deciding(found, "C1"), key=lambda card: card.estimate)
    told = f"at {smallest.px} px the whole net has {smallest.estimate:.0%} of the parameters ({smallest.note})"
    return f"**Average (GAP) when parameters count**: {told}." if verdict.outcome == "supported" else f"{told}."


def say_overfitting(found: Sequence[Evidence], verdict: Verdict) -> str:
    """C2."""
    errors = [
        row["estimate"]
        for evidence in found
        if is_headline(evidence)
        for row in compare_pairs(evidence.measures, evidence.experiment, "test_error").to_dict("records")
        if row["regime"] == "tuned"
    ]
    told = f"at equal steps, each at its own rate, test error with GAP is {compare(errors)}"
    texts = {
        "supported": f"**Average against overfitting**: {told}.",
        "refuted": f"**Do not average to generalise better**: {told}.",
        "depends": f"**Against overfitting it depends** ({verdict.why}): {told}.",
        "undecided": f"Whether averaging suppresses overfitting is undecided: {told}.",
    }
    return texts[verdict.outcome]


def say_convergence(found: Sequence[Evidence], verdict: Verdict) -> str:
    """C5."""
    ratios = [card.estimate for card in deciding(found, "C5") if np.isfinite(card.estimate)]
    told = f"each head at its own rate, GAP needs {ends(ratios, number)} times the steps to the same accuracy"
    texts = {
        "supported": f"**Flatten when training is short**: {told}.",
        "refuted": f"**Steps are no reason to flatten**: {told}.",
        "depends": f"**How fast GAP learns depends** ({verdict.why}): {told}.",
        "undecided": f"Whether GAP learns more slowly is undecided: {told}.",
    }
    return texts[verdict.outcome]


def say_speed(found: Sequence[Evidence], verdict: Verdict) -> str:
    """C6."""
    ratios = [card.estimate for card in deciding(found, "C6")]
    told = f"images per second, gap / flatten: {ends(ratios, number)}"
    texts = {
        "supported": f"**Average when throughput counts**: {told}.",
        "refuted": f"**Do not average to train faster**: {told}.",
        "depends": f"**Speed depends** ({verdict.why}): {told}.",
        "undecided": f"Whether GAP runs faster is undecided: {told}.",
    }
    return texts[verdict.outcome]


SAY = {"C1": say_parameters, "C2": say_overfitting, "C5": say_convergence, "C6": say_speed}


def guide(found: Sequence[Evidence]) -> str:
    """A sentence a claim, and one for each axis along which an arm may overtake the other."""
    verdicts = {verdict.claim: verdict for verdict in judge_published(found)}
    lines = [
        f"- {SAY[claim](found, verdict)} ({claim})" for claim, verdict in verdicts.items() if deciding(found, claim)
    ]
    for evidence in filter(has_crossover, found):
        for regime, measure, crossing in crossover_rows(evidence):
            if measure == "test_error" and regime == "tuned":
                lines.append(f"- {say_crossover(evidence, crossing)} (C2, `{evidence.name}`)")
    return "\n".join(lines) + "\n"


def say_crossover(evidence: Evidence, crossing: Crossover) -> str:
    """Along an axis, which arm has the lower test error, and from where on."""
    experiment = evidence.experiment
    axis = {"train_images": "training images", "steps": "training steps"}[experiment.axis]
    values = sorted({spec.cell_row[experiment.axis] for spec in experiment.runs})
    lower = {-1: experiment.pair[1], 1: experiment.pair[0], 0: "neither"}[crossing.sign]
    span = f"{values[0]:,} to {values[-1]:,} {axis}"
    if np.isfinite(crossing.estimate):
        interval = f"[{bound(crossing.low)}, {bound(crossing.high)}]"
        return f"From {number(crossing.estimate)} {axis} on {interval}, {lower} has the lower test error (of {span})"
    return f"From {span} no crossover: {lower} has the lower test error throughout"


def bound(value: float) -> str:
    """An end of an interval that may lie outside the range."""
    return number(value) if np.isfinite(value) else "beyond" if value > 0 else "below"
