"""The README's decision guide: when to flatten and when to average, each sentence from a claim's records."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gapbench.analysis.claims import Card
from gapbench.analysis.crossover import Crossover
from gapbench.analysis.evidence import Evidence
from gapbench.analysis.pairs import CELL, cell_rows, cells_by_regime, compare_pairs
from gapbench.analysis.verdicts import deciding_cards, is_headline, judge_published, on_canvases
from gapbench.data.canvas import is_canvas, parse
from gapbench.experiment import Cell
from gapbench.report.arms import measured
from gapbench.report.crossover import bound, crossover_rows, has_crossover, name_lower
from gapbench.report.figures import AXES
from gapbench.report.signs import factors_frame, has_factors, in_row, signs_frame
from gapbench.report.table import number, signed_points, with_interval


def ends(values: Sequence[float | int], text: Callable[[Any], str]) -> str:
    """`2.1 to 9.8`, or the one value."""
    low, high = text(min(values)), text(max(values))
    return low if low == high else f"{low} to {high}"


def compare(differences: Sequence[float]) -> str:
    """`1.54 to 4.01 points higher`."""
    if min(differences) > 0 or max(differences) < 0:
        size = ends([abs(100 * value) for value in differences], number)
        return f"{size} points {'higher' if min(differences) > 0 else 'lower'}"
    return f"between {signed_points(min(differences))} and {signed_points(max(differences))} points higher"


def tell_parameters(found: Sequence[Evidence], cards: Sequence[Card]) -> str:
    """C1."""
    smallest = min(cards, key=lambda card: card.estimate)
    return f"at {smallest.px} px the whole net has {smallest.estimate:.0%} of the parameters ({smallest.note})"


def tell_errors(found: Sequence[Evidence], cards: Sequence[Card]) -> str:
    """C2: its second half, the test errors of the same cells."""
    told = []
    for place, group in places(found).items():
        errors = [
            row["estimate"]
            for evidence in group
            for row in compare_pairs(evidence.measures, evidence.experiment, "test_error").to_dict("records")
            if row["regime"] == "tuned"
        ]
        told.append(f"{place}{compare(errors)}")
    return f"at equal steps, each at its own rate, test error with GAP is {'; '.join(told)}"


def tell_steps(found: Sequence[Evidence], cards: Sequence[Card]) -> str:
    """C5."""
    told = []
    for place, group in places(found).items():
        ratios = [card.estimate for card in deciding_cards("C5", group) if np.isfinite(card.estimate)]
        told += [f"{place}{ends(ratios, number)} times"] if ratios else []
    return (
        f"each head at its own rate, the steps that GAP needs to the same accuracy are {'; '.join(told)} flatten's{CUT}"
    )


def places(found: Sequence[Evidence]) -> dict[str, list[Evidence]]:
    """The headline experiments by how a sentence speaks of where their objects stand."""
    groups: dict[str, list[Evidence]] = {}
    for evidence in filter(is_headline, found):
        groups.setdefault("where objects may stand anywhere " if on_canvases(evidence) else "", []).append(evidence)
    return groups


def tell_maps(found: Sequence[Evidence], cards: Sequence[Card]) -> str:
    """C3: hits by size, of both heads and of the best baseline."""
    told = []
    for evidence in found:
        flatten, gap = evidence.experiment.pair
        own = deciding_cards("C3", [evidence])
        for cell in cells_by_regime(evidence.measures, evidence.experiment).get("tuned", ()) if own else ():
            ours, theirs = (cell_rows(evidence.measures, cell, arm) for arm in (gap, flatten))
            shares = (ours["evidence_pointing"], theirs["evidence_pointing"], ours["baseline_pointing"])
            if any(share.isna().all() for share in shares):
                continue
            texts = [f"{share.mean():.0%}" for share in shares]
            told.append(f"{cell.label} {gap} {texts[0]}, {flatten} {texts[1]}, best baseline {texts[2]}")
    return (
        f"the strongest evidence lies in the object's box in so many images, by size of the canvas: {'; '.join(told)}"
    )


def tell_sizes(found: Sequence[Evidence], cards: Sequence[Card]) -> str:
    """C4: what GAP keeps as it is, and either head with its best adapter."""
    told = []
    for evidence in found:
        works = [card for card in deciding_cards("C4", [evidence]) if card.part != "runs"]
        for card in works:
            told.append(f"`{evidence.name}`, {card.where} {card.show(card.estimate)} {card.interval} ({card.note})")
    return f"accuracy at other sizes minus that at the trained size, in points: {'; '.join(told)}"


def tell_speed(found: Sequence[Evidence], cards: Sequence[Card]) -> str:
    """C6."""
    return f"images per second, gap / flatten: {ends([card.estimate for card in cards], number)}"


READINGS = {"test_error": "test error", "overfit_final": "overfit at the last step"}  # those of `crossover_rows`
PLACES = {"anywhere": "anywhere", "middle": "in the middle"}
AMONG = {"crops": "among clutter", "noise": "in noise", "none": "alone"}
CUT = ", a run that never gets there counting with the last step"
Teller = Callable[[Sequence[Evidence], Sequence[Card]], str]
SAY: dict[str, tuple[Teller, dict[str, str]]] = {  # what was measured, and by outcome what to do about it
    "C1": (tell_parameters, {"supported": "**Average (GAP) when parameters count**: "}),
    "C2": (
        tell_errors,
        {
            "supported": "**Average against overfitting**: ",
            "refuted": "**Do not average to generalise better**: ",
            "depends": "**Against overfitting it depends** ({why}): ",
            "undecided": "Whether averaging suppresses overfitting is undecided: ",
        },
    ),
    "C3": (
        tell_maps,
        {
            "supported": "**Average to see what the net looks at**: ",
            "refuted": "**Maps are no reason to average**: ",
            "depends": "**Whose map is better depends** ({why}): ",
            "undecided": "Whether GAP's map is better is undecided: ",
        },
    ),
    "C4": (
        tell_sizes,
        {
            "supported": "**Average for other input sizes**: ",
            "refuted": "**Do not average for other input sizes**: ",
            "depends": "**GAP runs at any input size, which does not mean that it works**: ",
            "undecided": "Whether GAP works at other sizes is undecided: ",
        },
    ),
    "C5": (
        tell_steps,
        {
            "supported": "**Flatten when training is short**: ",
            "refuted": "**Steps are no reason to flatten**: ",
            "depends": "**How fast GAP learns depends** ({why}): ",
            "undecided": "Whether GAP learns more slowly is undecided: ",
        },
    ),
    "C6": (
        tell_speed,
        {
            "supported": "**Average when throughput counts**: ",
            "refuted": "**Do not average to train faster**: ",
            "depends": "**Speed depends** ({why}): ",
            "undecided": "Whether GAP runs faster is undecided: ",
        },
    ),
}


def guide(found: Sequence[Evidence]) -> str:
    """A sentence a claim, one an axis along which an arm may overtake the other, and one where several things vary."""
    lines = []
    for claim, outcome, why in judge_published(found):
        if cards := deciding_cards(claim, found):
            tell, leads = SAY[claim]
            lines.append(f"- {leads.get(outcome, '').format(why=why)}{tell(found, cards)}. ({claim})")
    for evidence in filter(has_crossover, found):
        for regime, measure, crossing in crossover_rows(evidence):
            if regime == "tuned" and (measure == "test_error" or evidence.experiment.axis == "steps"):
                lines.append(f"- {say_crossover(evidence, regime, measure, crossing)} (C2, `{evidence.name}`)")
    lines += [f"- {say_factors(evidence)} (C2, C5, `{evidence.name}`)" for evidence in filter(has_factors, found)]
    lines += [f"- {say_places(evidence)} (C2, C5, `{evidence.name}`)" for evidence in filter(has_places, found)]
    return "\n".join(lines) + "\n"


def say_factors(evidence: Evidence) -> str:
    """Where several things vary: how many more steps GAP needs, and test error by the factor that moves it most."""
    _, error, steps = measured(evidence)
    ratios = signs_frame(evidence)[f"{steps.name}_estimate"].tolist()
    factors = factors_frame(evidence)
    spread = factors.groupby("factor")[f"{error.name}_estimate"].agg(np.ptp)
    most = factors[factors["factor"] == spread.idxmax()].to_dict("records")
    levels = ", ".join(f"{row['level']} {in_row(row, error)}" for row in most)
    return (
        f"Over {len(ratios)} recipes, each shared by both heads, GAP needs {ends(ratios, number)} times the"
        f" steps{CUT}; test error, gap - flatten in points, by {spread.idxmax()}: {levels}"
    )


def has_places(evidence: Evidence) -> bool:
    """Whether the same task has its objects anywhere in some cells, and in the middle in others."""
    names = {spec.task.dataset for spec in evidence.experiment.runs}
    canvases = [parse(name) for name in names] if all(map(is_canvas, names)) else []
    return {how.place for how in canvases} == {"anywhere", "middle"} and {how.label for how in canvases} == {"what"}


def say_places(evidence: Evidence) -> str:
    """Where the object stands and among what: how much more GAP errs, and how many more steps it needs."""
    experiment, told = evidence.experiment, []
    errors = compare_pairs(evidence.measures, experiment, "test_error").to_dict("records")
    steps = compare_pairs(evidence.measures, experiment, f"steps_to_{experiment.targets[0]:g}", ratio=True)
    for error, ratio in zip(errors, steps.to_dict("records"), strict=True):
        if error["regime"] == "tuned":
            how = parse(error["dataset"])
            points = with_interval(error["estimate"], error["low"], error["high"], signed_points)
            times = with_interval(ratio["estimate"], ratio["low"], ratio["high"], number)
            told.append(f"{PLACES[how.place]} {AMONG[how.clutter]} {points} points, {times} times")
    return f"Test error, gap - flatten, and steps{CUT}, by where an object stands: {'; '.join(told)}"


def say_crossover(evidence: Evidence, regime: str, measure: str, crossing: Crossover) -> str:
    """Along an axis, which arm is lower in a measure, and from where on, or by how much at either end."""
    experiment = evidence.experiment
    axis = AXES[experiment.axis].label
    values = sorted({spec.cell_row[experiment.axis] for spec in experiment.runs})
    lower = f"{name_lower(experiment.pair, crossing.sign)} has the lower {READINGS[measure]}"
    span = f"{values[0]:,} to {values[-1]:,} {axis}"
    if np.isfinite(crossing.estimate):
        interval = f"[{bound(crossing.low)}, {bound(crossing.high)}]"
        return f"From {number(crossing.estimate)} {axis} on {interval}, {lower} (of {span})"
    compared = compare_pairs(evidence.measures, experiment, measure).to_dict("records")
    rows = {Cell(*(row[name] for name in CELL)): row for row in compared if row["regime"] == regime}
    cells = experiment.cells  # derived anew at each call
    order = sorted(rows, key=lambda cell: cells[cell][0].cell_row[experiment.axis])
    first, last = (
        with_interval(row["estimate"], row["low"], row["high"], signed_points)
        for row in (rows[order[0]], rows[order[-1]])
    )
    return (
        f"From {span} no crossover: {lower} throughout, gap - flatten {first} points at the first and {last} at the"
        " last"
    )
