"""The cards of an experiment: each claim in each cell, computed from records and judged by the rules of claims.py."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from gapbench.analysis.audits import Way, best_way, ways
from gapbench.analysis.claims import CLAIMS, ERROR_MARGIN, TESTED, Card, beyond, decide, overall, points
from gapbench.analysis.pairs import CELL, cell_rows, compare_pairs, trained_cells
from gapbench.analysis.power import fewest_pairs, pairs_to_decide
from gapbench.analysis.stats import holm, mean_interval
from gapbench.experiment import Cell, Experiment
from gapbench.records import Record

MIN_PAIRS = fewest_pairs()  # a bootstrap of fewer also covers too little
NAN = float("nan")


def make_card(claim: str, dataset: str, px: int | None, regime: str = "any", factors: str = "", **fields: Any) -> Card:
    """A card with what the claim itself fixes filled in; the outcome waits for `judge`."""
    blank = {"estimate": NAN, "low": NAN, "high": NAN, "n": 0, "n_declared": 0, "p": NAN, "p_adjusted": NAN, "note": ""}
    declared = {**asdict(CLAIMS[claim]), **blank, "part": "", "answers": (), "outcome": "undecided"}
    return Card(claim=claim, dataset=dataset, px=px, regime=regime, factors=factors, **{**declared, **fields})


def card_of(row: Mapping[Any, Any], claim: str, **fields: Any) -> Card:
    """The card of a claim in the cell that a row of `compare_pairs` is of."""
    return make_card(claim, **{name: row[name] for name in CELL}, **fields)


def comparison_fields(row: Mapping[Any, Any]) -> dict[str, Any]:
    """The numbers of one row of `compare_pairs` as a card's fields."""
    n, missing = int(row["n"]), int(row["pairs_left_out"])
    fields: dict[str, Any] = {"n": n, "n_declared": n + missing, "low": NAN, "high": NAN}
    if n:
        fields |= {name: float(row[name]) for name in ("estimate", "low", "high")} | {"p": float(row["sign_flip_p"])}
    if missing:
        fields["note"] = f"{missing} of {n + missing} pairs have no value. "
    return fields


class Half(NamedTuple):
    """One part of a claim's rule: a row of `compare_pairs`, the margin, and whether the claimed side is above it."""

    row: Mapping[Any, Any]
    margin: float
    above: bool

    @property
    def answer(self) -> str:
        """yes, no or unknown; unknown too where pairs are too few, or left out: those with a value are no sample."""
        if self.row["n"] < MIN_PAIRS or self.row["pairs_left_out"]:
            return "unknown"
        return beyond(self.row["low"], self.row["high"], self.margin, self.above)


def needed(halves: Sequence[Half]) -> int | None:
    """About how many pairs would decide a claim: one no is enough, and a yes takes all; None where no number would."""
    unknown = [half for half in halves if half.answer == "unknown" and half.row["n"]]
    asked = [
        (pairs_to_decide(h.row["low"], h.row["high"], h.row["estimate"], h.margin, h.row["n"]), h) for h in unknown
    ]
    to_refute = [pairs for pairs, h in asked if pairs and (h.row["estimate"] > h.margin) != h.above]
    to_support = [pairs for pairs, _ in asked if pairs]
    return min(to_refute, default=None) or max(to_support, default=None)


def cards_c1(experiment: Experiment, records: list[Record]) -> list[Card]:
    """Exact: counted on the nets that were built, which the closed form agrees with; no interval needed."""
    nets = {(r.spec.task.dataset, r.spec.task.px, r.spec.head): r for r in records if r.parameters}
    heads = {key: record.parameters["head"] for key, record in nets.items()}
    cards = []
    for dataset, px in sorted({key[:2] for key in nets}):
        keys = [(dataset, px, head) for head in experiment.pair]
        if any(key not in nets for key in keys):
            continue
        flatten, gap = (heads[key] for key in keys)
        shared = nets[keys[0]].parameters["backbone"]
        ratio = (shared + gap) / (shared + flatten)
        same_size = len({heads[key] for key in nets if key[::2] == (dataset, experiment.pair[1])}) == 1
        cards.append(
            make_card(
                "C1",
                dataset,
                px,
                answers=("yes" if ratio < 1 else "no", "yes" if same_size else "no"),
                note=f"head {gap:,} instead of {flatten:,}, whole net {shared + gap:,} instead of {shared + flatten:,}",
                estimate=ratio,
                low=ratio,
                high=ratio,
                n=1,
                n_declared=1,
            )
        )
    return cards


def cards_c2(experiment: Experiment, measures: pd.DataFrame) -> list[Card]:
    """Overfit at matched train loss, together with test error: less overfit bought with more errors is no gain."""
    names = (f"overfit_at_{experiment.train_losses[0]:g}", "test_error", "overfit_final", "train_loss_final")
    tables = [compare_pairs(measures, experiment, name).to_dict("records") for name in names]
    cards = []
    for matched, error, final, loss in zip(*tables, strict=True):
        fields = comparison_fields(matched)
        if error["pairs_left_out"] > matched["pairs_left_out"]:  # a diverged run has a path but no end
            fields |= {name: comparison_fields(error)[name] for name in ("n", "n_declared", "note")}
        halves = (Half(matched, CLAIMS["C2"].margin, above=False), Half(error, ERROR_MARGIN, above=False))
        fields["answers"] = tuple(half.answer for half in halves)
        fields["pairs_to_decide"] = needed(halves)
        note = (
            f"{fields.pop('note', '')}less overfit: {fields['answers'][0]}; test error no worse: {fields['answers'][1]}"
        )
        if error["n"] > 1:
            ends = f"[{points(error['low'])}, {points(error['high'])}]"
            note += f" ({points(error['estimate'])} {ends} points)"
        if loss["n"]:  # a head that has not finished learning is a finding, and the reader must see it
            ends = " and ".join(f"{head} {loss[f'{head}_mean']:.2g}" for head in experiment.pair)
            note += f"; train loss at the end: {ends}"
        if matched["n"] and final["n"] and matched["estimate"] * final["estimate"] < 0:
            note += f"; at the last step overfit has the opposite sign ({points(final['estimate'])} points)"
        cards.append(card_of(matched, "C2", note=note, **fields))
    return cards


def cards_c5(experiment: Experiment, measures: pd.DataFrame) -> list[Card]:
    """Restricted mean steps to the primary target; a run that never gets there counts with the last step."""
    target = f"{experiment.targets[0]:g}"
    cards = []
    for row in compare_pairs(measures, experiment, f"steps_to_{target}", ratio=True).to_dict("records"):
        fields = comparison_fields(row)
        half = Half(row, CLAIMS["C5"].margin, above=True)
        answer = half.answer
        cell = Cell(*(row[name] for name in CELL))
        reached = [cell_rows(measures, cell, arm)[f"reached_{target}"] for arm in experiment.pair]
        # Steps that were cut off at the end make the ratio a bound: from below for gap, from above for flatten.
        cut = {"no": reached[1], "yes": reached[0]}.get(answer)
        bounded = cut is not None and not cut.all()
        fields["answers"] = ("unknown" if bounded else answer,)
        fields["pairs_to_decide"] = None if bounded else needed([half])
        note = ", ".join(f"{head} {r.sum()} of {len(r)}" for head, r in zip(experiment.pair, reached, strict=True))
        note = f"{fields.pop('note', '')}target {target} reached by {note}"
        if bounded:
            note += "; the answer is a bound on the wrong side, which longer runs would mend and more pairs would not"
        cards.append(card_of(row, "C5", note=note, **fields))
    return cards


def cards_c3(experiment: Experiment, measures: pd.DataFrame) -> list[Card]:
    """Hits of the exact evidence maps, against each other and, run by run, against the best of the baselines."""
    if "evidence_pointing" not in measures:
        return []
    cards = []
    reference, arm = experiment.pair
    margin = CLAIMS["C3"].margin
    others = {
        title: compare_pairs(measures, experiment, name).to_dict("records")
        for name, title in (("both_pointing", "where both are right"), ("evidence_box", "MaxBoxAcc V2"))
        if name in measures
    }
    for i, hits in enumerate(compare_pairs(measures, experiment, "evidence_pointing").to_dict("records")):
        rows = cell_rows(measures, Cell(*(hits[name] for name in CELL)), arm)
        above = rows["pointing_over_baseline"].dropna().to_numpy(dtype=float)
        over = {**mean_interval(above)._asdict(), "pairs_left_out": hits["n"] + hits["pairs_left_out"] - len(above)}
        halves = (Half(hits, margin, above=True), Half(over, margin, above=True))
        fields = comparison_fields(hits)
        fields["answers"] = tuple(half.answer for half in halves)
        fields["pairs_to_decide"] = needed(halves)
        notes = [f"better than {reference}: {fields['answers'][0]}", f"than the best baseline: {fields['answers'][1]}"]
        if hits["n"]:
            shares = [f"{one} {hits[f'{one}_mean']:.0%}" for one in experiment.pair]
            notes = [*shares, f"best baseline {rows['baseline_pointing'].mean():.0%}", *notes]
            notes += [f"{title} {in_points(found[i])}" for title, found in others.items() if found[i]["n"]]
        cards.append(card_of(hits, "C3", note=f"{fields.pop('note', '')}{'; '.join(notes)}", **fields))
    return cards


def cards_c4(experiment: Experiment, measures: pd.DataFrame) -> list[Card]:
    """Whether the net under test runs at every size, and what it keeps of its accuracy, resized and padded.

    It runs where every declared run answered. Noted beside it: what either head keeps in the way that suits it best:
    with an adapter, which flatten needs to run at all, or with batch statistics of the new size.
    """
    cards = []
    reference, arm = experiment.pair
    for cell, specs in trained_cells(measures, experiment).items():
        runs, others = (cell_rows(measures, cell, one) for one in (arm, reference))
        declared = sum(spec.arm == arm for spec in specs)
        asked = [Way(fit, "none", "own") for fit in dict.fromkeys(way.fit for way in ways(runs))]
        taken = [way for way in asked if way in ways(runs)]
        answered = min((int(runs[way.measure].notna().sum()) for way in taken), default=0)
        whole = "yes" if answered == declared else "unknown"
        answers = ("unknown" if not asked else whole if taken == asked else "no",)
        fields: dict[str, Any] = {"answers": answers, "n": answered, "n_declared": declared}
        sizes = {*specs[0].audit.sizes} - {cell.px}
        fields["note"] = f"at {len(sizes)} other sizes; {reference} needs an adapter for a map of another side"
        cards.append(make_card("C4", **cell._asdict(), part="runs", **fields))
        for way in taken:
            kept = runs[way.measure].dropna().to_numpy(dtype=float)
            row = {**mean_interval(kept)._asdict(), "pairs_left_out": declared - len(kept)}
            half = Half(row, CLAIMS["C4"].margin, above=True)
            fields = {name: row[name] for name in ("estimate", "low", "high", "n")} | {"n_declared": declared}
            fields |= {"answers": (half.answer,), "pairs_to_decide": needed([half])}
            fields["note"] = f"{say_adapted(runs, arm, way.fit)}, {say_adapted(others, reference, way.fit)}"
            cards.append(make_card("C4", **cell._asdict(), part=f"works {way.fit}", **fields))
    return cards


def say_adapted(runs: pd.DataFrame, arm: str, fit: str) -> str:
    """`flatten (resize): -0.3 [-0.5, -0.1]`, of an arm in the way that suits it best."""
    best = best_way(runs, fit)
    if not best:
        return f"{arm} adapted: none"
    return f"{arm} ({best.label}): {in_points(mean_interval(runs[best.measure].dropna().to_numpy())._asdict())}"


def in_points(row: Mapping[Any, Any]) -> str:
    """`+0.12 [-0.30, +0.50]` of an estimate with its ends."""
    ends = f" [{points(row['low'])}, {points(row['high'])}]" if math.isfinite(row["low"]) else ""
    return points(row["estimate"]) + ends


def cards_c6(experiment: Experiment, throughput: pd.DataFrame) -> list[Card]:
    """One card a timed size (and device): single nets at the batch and precision the experiment trains with."""
    if throughput.empty:
        return []
    recipes = [spec.recipe for spec in experiment.runs]
    own = throughput["batch"].isin({r.batch for r in recipes}) & throughput["precision"].isin(
        {r.precision for r in recipes}
    )
    timed = throughput[own & (throughput["fleet"] == 1) & (throughput["status"] == "ok")]
    cards = []
    for row in timed[timed["phase"] == "train"].to_dict("records"):
        fields: dict[str, Any] = {name: float(row[name]) for name in ("estimate", "low", "high")}
        same = (timed["px"] == row["px"]) & (timed["batch"] == row["batch"]) & (timed["device"] == row["device"])
        also = timed[same & (timed["phase"] == "infer")].itertuples()
        several = row["processes"] > 1
        notes = [f"{row['platform'].upper()}: {row['device']}, batch {row['batch']}"]
        notes += [f"{row['processes']} processes" if several else "one process alone: the interval is too narrow"]
        notes += [f"inference {r.estimate:.2f} [{r.low:.2f}, {r.high:.2f}]" for r in also]
        fields |= {"n": int(row["n"]), "n_declared": int(row["n"]), "note": "; ".join(notes)}
        fields["answers"] = (beyond(row["low"], row["high"], CLAIMS["C6"].margin, above=True),)
        cards.append(make_card("C6", f"random images on {row['device']}", row["px"], **fields))
    return cards


def judge(experiment: Experiment, cards: list[Card]) -> list[Card]:
    """Adjust p over the declared family, decide each card, and add one card a claim and regime over all its cells.

    A test that has no value yet counts in the family with p = 1: what was not run makes nothing significant.
    """
    tested = [claim for claim in experiment.family if claim in TESTED]
    family = [i for i, card in enumerate(cards) if card.claim in tested]
    p_values = [cards[i].p if math.isfinite(cards[i].p) else 1.0 for i in family]
    missing = len(tested) * len(experiment.cells) - len(family)
    adjusted = dict(zip(family, holm(np.array(p_values + [1.0] * missing)), strict=False))
    judged = []
    for i, card in enumerate(cards):
        p = float(adjusted.get(i, card.p))
        outcome = decide(card.answers, p if card.claim in TESTED else None)
        note, pairs = card.note, card.pairs_to_decide if outcome == "undecided" else None
        if pairs:
            note += f"; about {pairs:,} pairs would decide"
        judged.append(
            replace(card, p_adjusted=float(adjusted.get(i, NAN)), outcome=outcome, note=note, pairs_to_decide=pairs)
        )
    keys = dict.fromkeys((card.claim, card.regime) for card in judged)
    order = sorted(keys, key=lambda key: list(CLAIMS).index(key[0]))
    return judged + [combine(experiment, *key, judged) for key in order]


def combine(experiment: Experiment, claim: str, regime: str, cards: list[Card]) -> Card:
    """The card of a claim over all cells of a regime: an outcome and how the cells fell, no pooled estimate."""
    own = [card for card in cards if (card.claim, card.regime) == (claim, regime)]
    note = "; ".join(f"{card.where} {card.outcome}" for card in own)
    datasets = ", ".join(dict.fromkeys(card.dataset for card in own))
    fields: dict[str, Any] = {"n": min(c.n for c in own), "n_declared": max(c.n_declared for c in own)}
    outcome = overall([card.outcome for card in own])
    declared = [f"{px} px" for px in sorted({spec.task.px for spec in experiment.runs})]
    if regime != "any":
        declared = [cell.label for cell in experiment.cells if cell.regime == regime]
    tried = {replace(card, part="").where for card in own}
    untried = [one for one in declared if one not in tried]
    if untried and claim != "C6":  # which may be timed at sizes of its own
        outcome, note = "undecided", f"{note}; not run: {', '.join(untried)}"
    return make_card(claim, datasets, None, regime, outcome=outcome, note=note, **fields)


def make_cards(
    experiment: Experiment, records: list[Record], measures: pd.DataFrame, throughput: pd.DataFrame
) -> list[Card]:
    """Every card of an experiment, judged: one a claim and cell, then one a claim and regime over all its cells."""
    cards = cards_c1(experiment, records)
    trained: dict[str, Callable[[Experiment, pd.DataFrame], list[Card]]] = {
        "C2": cards_c2,
        "C3": cards_c3,
        "C4": cards_c4,
        "C5": cards_c5,
    }
    for claim in experiment.family if not measures.empty else ():
        cards += trained[claim](experiment, measures)
    cards = judge(experiment, cards + cards_c6(experiment, throughput))
    return [spoken_of(card, experiment.pair) for card in cards]


def spoken_of(card: Card, pair: tuple[str, str]) -> Card:
    """The card with its claim said of the arm under test and its reference instead of gap and flatten."""
    words = {"flatten": pair[0], "gap": pair[1], "GAP": "GAP" if pair[1] == "gap" else pair[1]}
    title, estimand, rule = (
        re.sub(r"\b(?:flatten|gap|GAP)\b", lambda found: words[found[0]], text)
        for text in (card.title, card.estimand, card.rule)
    )
    return replace(card, title=title, estimand=estimand, rule=rule)
