"""C3 and C4 from audits whose numbers are chosen, and the tables and figures that show them."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from records_maker import cards_of, curves, evidence_of, experiment, measured, record, wobble

from gapbench.analysis.audits import Way, best_way, ways
from gapbench.analysis.claims import Card
from gapbench.analysis.evidence import Evidence, derive
from gapbench.analysis.pairs import compare_pairs
from gapbench.analysis.verdicts import judge_published
from gapbench.audits import encode
from gapbench.data import canvas
from gapbench.experiment import Experiment, grid
from gapbench.records import Record
from gapbench.report.figures import DRAW, make_figures, show
from gapbench.report.tables import make_tables
from gapbench.spec import Audit, Backbone, Recipe, RunSpec, Task

SIZES = (6, 8, 12)
AUDITS = {"maps", "gallery", "erasing", "sizes", "size_losses", "position"}  # figures
BASELINES = {"initial": 0.2, "intensity": 0.3, "centre": 0.25}
MAPS = ("evidence", "contrast", "gradcam", *BASELINES)
METRICS = ("pointing", "pointing_15", "box_largest_50", "box", "precision", "pixels")
RIGHT = {"flatten": [1, 1, 0, 0], "gap": [1, 0, 1, 0]}  # of four images: both are right on the first


def declared(audit: Audit, claim: str, seeds: int = 8, dataset: str = "digits") -> Experiment:
    runs = grid(
        task=Task(dataset=dataset, px=8, train_images=100),
        backbone=Backbone(width=4, stages=1),
        head=("flatten", "gap"),
        recipe=Recipe(peak_lr=1e-2, batch=16, steps=100, eval_every=10),
        seed=range(seeds),
        audit=audit,
    )
    tuned = {"tuned_on": "elsewhere", "tuned": {"flatten": 2e-2, "gap": 3e-2}}
    return experiment(runs=runs, family=(claim,), **tuned)


def maps_audit(spec: RunSpec, hits: dict[str, float]) -> dict[str, Any]:
    """Every metric of a map is its head's share, of the best baseline 0.3; of the four images the first is hit."""
    value = hits[spec.head] + 0.01 * wobble(spec.seed, {"flatten": 1, "gap": 3}[spec.head])
    rows = [(name, metric, BASELINES.get(name, value)) for name in MAPS for metric in METRICS]
    images = {"place": [0, 1, 2, 3], "correct": RIGHT[spec.head]}
    images |= {
        m: [hits[spec.head], 0.0, 0.0, 0.0] for m in ("pointing", "pointing_15", "box_largest_50", "box", "precision")
    }
    steps = [
        (order, way, share, share if way == "insertion" else 1 - share)
        for order in ("evidence", "initial")
        for way in ("deletion", "insertion")
        for share in (0.0, 1.0)
    ]
    audits = {
        "maps": dict(zip(("map", "metric", "value"), zip(*rows, strict=True), strict=True)),
        "images": images,
        "erasing": dict(zip(("order", "way", "share", "probability"), zip(*steps, strict=True), strict=True)),
    }
    if spec.seed == 0:
        pixels, heat = np.zeros((8, 8, 1), np.uint8), np.arange(16, dtype="<f4").reshape(4, 4)
        row = {"place": 0, "label": 1, "predicted": 1, "top": 2, "left": 2, "bottom": 5, "right": 5}
        audits["gallery"] = {name: [value] * 2 for name, value in row.items()}
        audits["gallery"] |= {"image": [encode(pixels)] * 2, "evidence": [encode(heat)] * 2}
    return audits


def sizes_audit(spec: RunSpec, kept: dict[str, float]) -> dict[str, Any]:
    """0.9 at its own size, and `kept` more at the others; flatten's pool keeps 0.1 less in test, and more in val."""
    rows = []
    own = 0.9 + 0.01 * wobble(spec.seed, 3)
    for split in ("val", "test"):
        rows.append(("resized", 8, "none", "own", split, 0.5, own))
        for px in (6, 12):
            adapters = {
                "gap": {"none": 0.0, "resize": 0.28},
                "flatten": {"resize": 0.0, "pool": -0.1 if split == "test" else 0.05},
            }
            for adapter, more in adapters[spec.head].items():
                value = own + kept[spec.head] + more + 0.01 * wobble(spec.seed, 7)
                rows += [
                    (fit, px, adapter, "own", split, 0.5, value)
                    for fit in ("resized", "padded")
                    if px > 8 or fit != "padded"
                ]
    names = ("fit", "px", "adapter", "statistics", "split", "loss", "accuracy")
    return {"sizes": dict(zip(names, zip(*rows, strict=True), strict=True))}


def records_of(made: Experiment, audit: Callable[[RunSpec], dict[str, Any]]) -> list[Record]:
    return [record(spec, curves(), audits=audit(spec)) for spec in made.all_runs]


def evidence(made: Experiment, records: list[Record]) -> Evidence:
    blank = evidence_of(made, lambda _: curves())
    return derive(replace(blank, records=records))


def c3(hits: dict[str, float], seeds: int = 8) -> Card:
    made = declared(Audit(maps=True), "C3", seeds, canvas("digits"))
    return cards_of(made, records_of(made, lambda spec: maps_audit(spec, hits)))["C3", 8]


@pytest.mark.parametrize(
    ("flatten", "gap", "answers", "outcome"),
    [
        (0.5, 0.8, ("yes", "yes"), "supported"),
        (0.8, 0.8, ("no", "yes"), "refuted"),  # flatten's map is as good
        (0.1, 0.32, ("yes", "no"), "refuted"),  # no better than a baseline
    ],
)
def test_c3_asks_for_more_than_flatten_and_more_than_the_best_baseline(
    flatten: float, gap: float, answers: tuple[str, str], outcome: str
) -> None:
    card = c3({"flatten": flatten, "gap": gap})
    assert (card.answers, card.outcome) == (answers, outcome)
    assert card.estimate == pytest.approx(gap - flatten, abs=0.01)
    assert "best baseline 30%" in card.note


def test_an_experiment_of_maps_alone_decides_c3_and_no_other_claim() -> None:
    made = declared(Audit(maps=True), "C3", dataset=canvas("digits"))
    found = evidence(made, records_of(made, lambda spec: maps_audit(spec, {"flatten": 0.5, "gap": 0.8})))
    told = {verdict.claim: (verdict.outcome, verdict.why) for verdict in judge_published([found])}
    assert told["C3"] == ("supported", "1 supported of 1 tuned cells of canvas:digits")
    assert set(told) == {"C1", "C3"}


def test_c3_of_few_pairs_is_undecided() -> None:
    assert c3({"flatten": 0.5, "gap": 0.8}, seeds=4).outcome == "undecided"


def test_where_both_are_right_only_those_images_count() -> None:
    made = declared(Audit(maps=True), "C3", dataset=canvas("digits"))
    frame = measured(made, records_of(made, lambda spec: maps_audit(spec, {"flatten": 0.5, "gap": 0.75})))
    rows = compare_pairs(frame, made, "both_pointing")
    assert rows["flatten_mean"].tolist() == [0.5, 0.5]
    assert rows["gap_mean"].tolist() == [0.75, 0.75]
    assert set(frame["both_share"]) == {0.25}


def test_a_run_without_its_other_half_has_no_score_where_both_are_right() -> None:
    made = declared(Audit(maps=True), "C3", dataset=canvas("digits"))
    records = records_of(made, lambda spec: maps_audit(spec, {"flatten": 0.5, "gap": 0.75}))
    frame = measured(made, [one for one in records if (one.spec.head, one.spec.seed) != ("gap", 3)])
    assert frame[frame["seed"] == 3]["both_pointing"].isna().all()
    assert frame[frame["seed"] != 3]["both_pointing"].notna().all()


def c4(kept: dict[str, float]) -> tuple[Experiment, list[Record]]:
    made = declared(Audit(sizes=SIZES), "C4")
    return made, records_of(made, lambda spec: sizes_audit(spec, kept))


@pytest.mark.parametrize(
    ("kept", "works", "verdict"), [(-0.02, "supported", "supported"), (-0.3, "refuted", "depends")]
)
def test_c4_runs_at_every_size_and_works_where_little_is_lost(kept: float, works: str, verdict: str) -> None:
    found = evidence(*c4({"flatten": -0.01, "gap": kept}))
    own = {card.part: card for card in found.cards if (card.claim, card.regime) == ("C4", "tuned") and card.px}
    assert {name: card.outcome for name, card in own.items()} == {
        "runs": "supported",
        "works resized": works,
        "works padded": works,
    }
    assert own["works resized"].estimate == pytest.approx(kept, abs=0.01)
    assert own["works resized"].interval != "–"
    told = {verdict.claim: verdict for verdict in judge_published([found])}["C4"]
    assert told.outcome == verdict
    assert "it runs: 1 supported of 1 tuned cells" in told.why
    assert f"it works: 2 {works} of 2" in told.why


def test_flattens_adapter_is_chosen_on_validation_images_and_judged_on_test() -> None:
    found = evidence(*c4({"flatten": -0.01, "gap": -0.3}))
    runs = found.measures[found.measures["arm"] == "flatten"]
    assert best_way(runs, "resized") == Way("resized", "pool", "own")
    card = next(card for card in found.cards if card.part == "works resized" and card.regime == "tuned")
    assert re.match(r"gap \(resize\): -2\.\d\d \[.+\], flatten \(pool\): -11\.", card.note)


def test_new_statistics_are_a_way_that_may_suit_a_net_best() -> None:
    made, records = c4({"flatten": -0.01, "gap": -0.3})
    changed = []
    for one in records:
        table = {name: list(column) for name, column in one.audits["sizes"].items()}
        for row in list(zip(*table.values(), strict=True)):
            if row[2] == "none" and row[1] != 8:  # gap as it is: nearly all of it comes back
                again = (*row[:3], "new", *row[4:6], float(row[6]) + 0.29)
                for column, value in zip(table.values(), again, strict=True):
                    column.append(value)
        changed.append(one.model_copy(update={"audits": {"sizes": {n: tuple(c) for n, c in table.items()}}}))
    card = next(card for card in evidence(made, changed).cards if card.part == "works resized")
    assert card.estimate == pytest.approx(-0.3, abs=0.01)  # what is judged is the net as it is
    assert re.match(r"gap \(as it is, new statistics\): -1\.\d\d", card.note)


def test_c4_does_not_say_that_nets_run_that_were_not_asked() -> None:
    made, records = c4({"flatten": -0.01, "gap": -0.02})
    found = evidence(made, [one for one in records if (one.spec.head, one.spec.seed) != ("gap", 3)])
    assert {(card.n, card.outcome) for card in found.cards if card.part == "runs"} == {(7, "undecided")}


def test_erasing_is_between_blank_and_whole_of_which_nets_are_not_equally_sure() -> None:
    made = declared(Audit(maps=True), "C3", dataset=canvas("digits"))

    def audit(spec: RunSpec) -> dict[str, Any]:
        sure, blank = {"flatten": (0.4, 0.2), "gap": (0.8, 0.1)}[spec.head]
        rows = [
            (order, way, share, blank + (sure - blank) * (share if way == "insertion" else 1 - share))
            for order in ("evidence", "initial")
            for way in ("deletion", "insertion")
            for share in (0.0, 0.5, 1.0)
        ]
        erasing = dict(zip(("order", "way", "share", "probability"), zip(*rows, strict=True), strict=True))
        return {**maps_audit(spec, {"flatten": 0.5, "gap": 0.8}), "erasing": erasing}

    frame = measured(made, records_of(made, audit))
    for measure in ("deletion_evidence", "insertion_evidence", "deletion_initial"):
        np.testing.assert_allclose(frame[measure], 0.5)


def test_a_way_that_does_not_take_every_size_is_none() -> None:
    made, records = c4({"flatten": -0.01, "gap": -0.3})
    cut = []
    for one in records:
        rows = [row for row in zip(*one.audits["sizes"].values(), strict=True) if row[1:3] != (6, "pool")]
        table = dict(zip(one.audits["sizes"], zip(*rows, strict=True), strict=True))
        cut.append(one.model_copy(update={"audits": {"sizes": table}}))
    assert Way("resized", "pool", "own") not in ways(measured(made, cut))


def check_drawn(found: Evidence, names: set[str]) -> None:
    """These of the figures that tell of audits, and these alone, apply; each is a picture."""
    assert {name for name in AUDITS if DRAW[name][1](found)} == names
    assert all(show(name, found).png.startswith(b"\x89PNG") for name in names)


def test_both_experiments_have_their_tables_and_figures() -> None:
    made = declared(Audit(maps=True), "C3", dataset=canvas("digits"))
    found = evidence(made, records_of(made, lambda spec: maps_audit(spec, {"flatten": 0.5, "gap": 0.8})))
    tables = {table.name: table for table in make_tables(found)}
    assert "| evidence: pointing game" in tables["maps"].markdown
    assert (
        "centre box 25.00 %, brightness 30.00 %, flatten's initial weights 20.00 %, gap's initial"
        in tables["maps"].markdown
    )
    check_drawn(found, {"maps", "gallery", "erasing"})
    found = evidence(*c4({"flatten": -0.01, "gap": -0.3}))
    tables = {table.name: table for table in make_tables(found)}
    costs = [row for row in tables["size_costs"].shown if row[:3] == ["12 px", "gap", "none"]]
    assert costs[0][3] == "50"  # parameters; none of these nets was timed, and the row stands all the same
    assert costs[0][6].startswith("–")
    own = [row[1:3] for row in tables["size_costs"].shown if row[0] == "8 px"]
    assert own == [["flatten", "none"], ["gap", "none"]]  # at their own size nothing is adapted
    shown = [row for row in tables["sizes"].shown if row[:3] == ["tuned", "8 px", "gap"]]
    ways_shown = [(fit, adapter, "own") for fit in ("resized", "padded") for adapter in ("none", "resize")]
    assert [tuple(row[3:6]) for row in shown] == ways_shown
    check_drawn(found, {"sizes", "size_losses"})


@pytest.mark.usefixtures("sketched")
def test_the_position_table_has_what_speaks_of_each_task_and_its_figure_is_drawn() -> None:
    names = [canvas("digits", scale=(0.4, 0.6), label=label) for label in ("where", "what", "swapped")]
    runs = grid(
        task=[Task(dataset=name, px=8, train_images=100) for name in names],
        backbone=[Backbone(width=4, stages=1, padding=padding) for padding in ("zero", "circular")],
        head=("flatten", "gap"),
        recipe=Recipe(peak_lr=1e-2, batch=16, steps=100, eval_every=10),
        seed=range(4),
        audit=Audit(shifts=(1, 2)),
    )
    made = experiment(runs=runs, family=())
    moved = {"shift": (0, 1, 2), "images": (9, 8, 7), "consistency": (1.0, 0.75, 0.5), "accuracy": (0.7, 0.7, 0.6)}
    found = evidence(made, records_of(made, lambda spec: {"shifts": moved}))
    table = {table.name: table for table in make_tables(found)}["position"]
    measures = {task: {row[3] for row in table.shown if row[0] == task} for task in ("where", "what", "swapped")}
    moves = {"same class after 1 px", "same class after 2 px"}
    assert measures == {
        "where": {"test accuracy"},
        "what": {"test accuracy", *moves},
        "swapped": {"test accuracy", "validation - test accuracy", *moves},
    }
    lost = next(row for row in table.shown if row[3] == "validation - test accuracy")
    assert lost[4:6] == ["25.00 %", "25.00 %"]  # 0.95 - 0.7
    assert "position" in make_figures(found)


@pytest.mark.usefixtures("sketched")
def test_images_that_move_under_one_padding_have_a_table_and_runs_that_diverged_have_none() -> None:
    made = declared(Audit(shifts=(1, 2)), "C2")
    moved = {"shift": (0, 1, 2), "images": (9, 8, 7), "consistency": (1.0, 0.75, 0.5), "accuracy": (0.7, 0.7, 0.6)}
    found = evidence(made, records_of(made, lambda spec: {"shifts": moved}))
    table = {table.name: table for table in make_tables(found)}["position"]
    assert [row[4] for row in table.shown if row[3] == "same class after 2 px"] == ["50.00 %", "50.00 %"]
    assert "grid" not in table.caption
    assert "position" not in make_figures(found)
    diverged = evidence(made, [record(spec, curves(), status="diverged", upto=50) for spec in made.all_runs])
    assert "position" not in {table.name for table in make_tables(diverged)}


@pytest.mark.usefixtures("sketched")
@pytest.mark.parametrize("arm", ["flatten", "gap"])
def test_maps_of_which_one_arm_diverged_in_all_runs_are_shown_for_the_other(arm: str) -> None:
    made = declared(Audit(maps=True), "C3", dataset=canvas("digits"))
    ok = {one.run_id: one for one in records_of(made, lambda spec: maps_audit(spec, {"flatten": 0.5, "gap": 0.8}))}
    runs = [
        record(spec, curves(), status="diverged", upto=50) if spec.head == arm else ok[spec.run_id]
        for spec in made.all_runs
    ]
    found = evidence(made, runs)
    drawn = set(make_figures(found))
    assert {"maps", "erasing"} <= drawn
    assert "gallery" not in drawn
    assert {card.outcome for card in found.cards if card.claim == "C3"} == {"undecided"}
    assert "maps" in {table.name for table in make_tables(found)}


@pytest.mark.usefixtures("sketched")
def test_a_partly_trained_sweep_has_its_tables_and_no_verdict_that_it_does_not_bear() -> None:
    made = declared(Audit(maps=True), "C3", dataset=canvas("digits"))
    records = records_of(made, lambda spec: maps_audit(spec, {"flatten": 0.5, "gap": 0.75}))
    alone = evidence(made, [one for one in records if one.spec.head == "gap"])
    assert "no whole pair yet of the images" in {table.name: table for table in make_tables(alone)}["maps"].caption
    assert make_figures(alone)
    made, records = c4({"flatten": -0.01, "gap": -0.3})
    half = evidence(made, [one for one in records if one.spec.head == "flatten"])
    assert {card.outcome for card in half.cards if card.claim == "C4"} == {"undecided"}
    assert {verdict.claim: verdict.outcome for verdict in judge_published([half])}["C4"] == "undecided"
